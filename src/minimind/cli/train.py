"""`minimind train PRESET [PRESET ...] [--flags] [--resume] [--dry-run]`: run one stage."""

from __future__ import annotations

import shlex
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from minimind.config import RunConfig
from minimind.errors import ConfigError
from minimind.settings import dump_run_config, load_run_config, preset_names

if TYPE_CHECKING:
    from minimind.train.run import RunResult

_USAGE = """\
usage: minimind train PRESET [PRESET ...] [--flags]

  minimind train pretrain nano --data.train corpus/pretrain --train.tokens 5_000_000
  minimind train sft --init.checkpoint runs/pretrain --data.train corpus/sft.jsonl
  minimind train runs/sft/run.toml --resume

A PRESET is a name from this list or a TOML file of yours: model shapes are laid first, stages over
them, then files, then flags.
"""
_OWN_FLAGS = """
  --resume     continue the run with this --name from its newest whole checkpoint, exactly
  --dry-run    print the resolved settings as TOML and stop
  --help       this, and every setting. --lora.rank 16 and the other --lora... flags switch LoRA on
"""
_AFTER = {
    "pretrain": "minimind generate {run} 从前",
    "answers": "minimind chat {run}",
}


def main(argv: list[str]) -> int | None:
    """Run one stage; see `minimind train --help`."""
    layers, flags = _split(argv)
    own = {flag for flag in flags if flag in {"--resume", "--dry-run"}}
    settings = [flag for flag in flags if flag not in own]
    if not layers and not own and not settings:
        raise ConfigError(f"which stage?\n{_help()}")
    if {"--help", "-h"} & set(settings):
        sys.stdout.write(_help())
        settings = ["--help"]
    config = load_run_config(layers, settings)
    if "--dry-run" in own:
        sys.stdout.write(dump_run_config(config))
        return None
    return _train(config, resume="--resume" in own)


def _split(argv: list[str]) -> tuple[list[str], list[str]]:
    """Separate the presets at the front from the flags."""
    first_flag = next((i for i, word in enumerate(argv) if word.startswith("-")), len(argv))
    return argv[:first_flag], argv[first_flag:]


def _help() -> str:
    names = preset_names()
    listed = "\n".join(f"  {name:<10} {about.partition(': ')[2]}" for name, about in names.items())
    return f"{_USAGE}\n{listed}\n{_OWN_FLAGS}"


def _train(config: RunConfig, *, resume: bool) -> int | None:
    from minimind.cli.console import SteadyConsole
    from minimind.train.rendezvous import Place
    from minimind.train.run import run

    console = SteadyConsole()
    first = Place.from_env().rank == 0  # of several processes one speaks

    def say(words: str) -> None:
        if first:
            console.print(words, markup=False, highlight=False, soft_wrap=True)

    say(f"{_purpose(config)} -> {Path(config.out) / config.name}")
    with warnings.catch_warnings():
        warnings.showwarning = _shown_on(console)
        result = run(config, resume=resume, console=console)
    say(_what_next(config, result))
    return 130 if result.stopped_by is not None else None


def _shown_on(console: Console) -> Callable[..., None]:
    """Return a `warnings.showwarning` that prints our warnings without a line of source code."""
    usual = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *place: Any) -> None:
        if category.__module__.startswith("minimind."):
            console.print(f"warning: {message}", markup=False, highlight=False, soft_wrap=True)
        else:
            usual(message, category, *place)

    return show


def _purpose(config: RunConfig) -> str:
    """Say in one line what the stage does and why."""
    start = f"from {config.init.checkpoint}" if config.init.checkpoint else "from random weights"
    if config.objective.kind == "dpo":
        what = "DPO: make chosen answers likelier than rejected ones, near the model it starts as"
    elif config.objective.kind == "distill":
        what = f"distillation: learn the whole distribution of {config.objective.teacher}"
    elif config.data.kind == "image":
        alone = config.vision is not None and config.vision.train == "projector"
        learns = "only the projector is learnt" if alone else "the language model learns too"
        what = f"images with text: learn what pictures show; {learns}"
    elif config.data.kind == "chat":
        what = "fine-tuning on conversations: learn to answer, only the answers are learnt"
    else:
        what = "pretraining: learn the language by predicting each next token of plain text"
    adapters = f", only LoRA adapters of rank {config.lora.rank}" if config.lora else ""
    return f"{what}{adapters}, {start}"


def _what_next(config: RunConfig, result: RunResult) -> str:
    """Say where the results are and what to type next."""
    run = shlex.quote(str(result.directory))
    if result.stopped_by is not None:
        return f"stopped and saved. Continue: minimind train {run}/run.toml --resume"
    state = "done" if result.last is not None else "nothing left to do: the run is complete"
    kind = "pretrain" if config.data.kind == "text" else "answers"
    return f"{state}: {run} (metrics.jsonl, checkpoints/). Next: {_AFTER[kind].format(run=run)}"
