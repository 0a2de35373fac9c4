# Each target sets up all that it needs, then does its job. Needs Python 3.11+ and make, nothing else.
#   make quickstart        from raw text to a chat with your own model (about 12 minutes on 2 cores)
#   make speedrun          the same at 64M on one GPU, in two hours (SPEEDRUN_FLAGS='--budget 30m')
#   make test              the tests that a change must pass
#   make test-slow         the tests that take minutes
#   make lint              format, lint, types, import contracts
# With a GPU: docs/speedrun.md says which torch. One of 2.11 or newer that is in VENV is kept.

PYTHON ?= python3
VENV ?= .venv
CONSTRAINTS ?= constraints-cpu.txt
PIP_FLAGS ?=
QUICKSTART_FLAGS ?=
SPEEDRUN_FLAGS ?=
WORKERS ?= 2

bin := $(VENV)/bin

# The constraint names the torch that is tested. One that is there already and is new enough stays: it
# may be the CUDA build that this card's driver needs.
has_torch = $(bin)/python -c 'import importlib.metadata as m, re, sys; \
  sys.exit([int(n) for n in re.findall(r"\d+", m.version("torch"))[:2]] < [2, 11])' 2>/dev/null
constraint = $$($(has_torch) || echo --constraint $(CONSTRAINTS))
pip = $(bin)/python -m pip install --quiet $(if $(CONSTRAINTS),$(constraint)) $(PIP_FLAGS)

.PHONY: quickstart speedrun test test-slow lint clean
.DEFAULT_GOAL := help
.PHONY: help
help:
	@sed -n '2,7s/^# \{0,1\}//p' Makefile

$(bin)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "minimind needs Python 3.11 or newer; this is $$($(PYTHON) --version). Try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 2; }
	@$(PYTHON) -m venv $(VENV) || \
	  { echo "python could not make a virtual environment; on Debian and Ubuntu: apt install python3-venv"; rm -rf $(VENV); exit 2; }

# One stamp for what running needs, one for what developing needs: a second `make` installs nothing.
$(VENV)/.run-installed: pyproject.toml $(CONSTRAINTS) | $(bin)/python
	@echo "setting up $(VENV) (once; one to three minutes)"
	@$(pip) -e '.[data]'
	@touch $@

$(VENV)/.dev-installed: pyproject.toml $(CONSTRAINTS) | $(bin)/python
	@echo "setting up $(VENV) with the test tools (once; two to four minutes)"
	@$(pip) -e '.[dev]'
	@touch $@ $(VENV)/.run-installed

quickstart: $(VENV)/.run-installed
	@$(bin)/minimind quickstart $(QUICKSTART_FLAGS)

speedrun: $(VENV)/.run-installed
	@$(bin)/minimind speedrun $(SPEEDRUN_FLAGS)

test: $(VENV)/.dev-installed
	@$(bin)/python -m pytest -n $(WORKERS) -m "not slow"

test-slow: $(VENV)/.dev-installed
	@$(bin)/python -m pytest -m slow

lint: $(VENV)/.dev-installed
	@$(bin)/ruff format --check src tests bench
	@$(bin)/ruff check src tests bench
	@$(bin)/pyright --pythonpath $(bin)/python
	@$(bin)/lint-imports

clean:
	rm -rf $(VENV) build dist src/*.egg-info .pytest_cache .ruff_cache .hypothesis .import_linter_cache
