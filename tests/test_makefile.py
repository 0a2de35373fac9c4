"""What `make` installs, with a pip that only writes down what it was asked for."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
@pytest.mark.parametrize(
    ("torch", "flags", "constrained"),
    [
        (None, (), True),
        ("2.10.1+cu128", (), True),
        ("2.11.0+cu126", (), False),  # a newcomer's own, for an older driver
        ("2.13.0", (), False),
        (None, ("CONSTRAINTS=",), False),
    ],
)
def test_make_keeps_a_torch_that_is_new_enough(tmp_path, torch, flags, constrained):
    packages, bin = tmp_path / "packages", tmp_path / "venv/bin"
    packages.mkdir()
    bin.mkdir(parents=True)
    if torch is not None:
        (packages / f"torch-{torch}.dist-info").mkdir()
        metadata = f"Metadata-Version: 2.1\nName: torch\nVersion: {torch}\n"
        (packages / f"torch-{torch}.dist-info/METADATA").write_text(metadata)
    # -S: without the packages of this environment.
    (bin / "python").write_text(
        f'#!/bin/sh\nif [ "$1" = -m ]; then echo "$@" >> "{tmp_path}/asked"; exit; fi\n'
        f'exec "{sys.executable}" -S "$@"\n'
    )
    (bin / "minimind").write_text(f'#!/bin/sh\necho "minimind $@" >> "{tmp_path}/asked"\n')
    for program in bin.iterdir():
        program.chmod(0o755)
    words = ["make", "speedrun", f"VENV={tmp_path / 'venv'}", "SPEEDRUN_FLAGS=--budget 30m", *flags]
    done = subprocess.run(
        words, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(packages)}, timeout=120,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    install, run = (tmp_path / "asked").read_text().splitlines()
    assert install.startswith("-m pip install")
    assert ("--constraint constraints-cpu.txt" in install) == constrained
    assert install.endswith("-e .[data]")
    assert run == "minimind speedrun --budget 30m"
