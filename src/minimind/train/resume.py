"""Whether a run may start here, and whether a resume continues the same run."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from minimind import checkpoint
from minimind.config import ModelConfig, RunConfig
from minimind.errors import ConfigError
from minimind.model import stretch
from minimind.settings import load_run_config
from minimind.train.metrics import read_metrics

FREE_ON_RESUME = (
    "name", "out", "log.", "save.", "train.threads", "train.max_bad_steps",
    "train.steps", "train.tokens", "train.epochs", "train.minutes",
    "train.micro_batch_rows", "train.gradient_checkpointing", "train.parallel",
    "train.fuse_projections",
)  # fmt: skip
"""What may differ when a run is continued: what is told and kept, how long it goes on, and how a
step is split. Another split sums in another order, so losses are the same up to rounding only.

A longer run keeps its past and gets the schedule of the new length from here on: with WSD or a
constant rate that is as if it had been that long from the start, up to the first decay. Everything
else would make the curve another one than that of an uninterrupted run.
"""


def check_new(directory: Path) -> None:
    """Refuse to start a run on top of another.

    Raises:
        ConfigError: there is one already.
    """
    if (directory / "run.toml").exists():
        raise ConfigError(
            f"{directory} holds a run: add --resume to continue it, or choose another --name"
        )


def check_same_run(config: RunConfig, stored: Path) -> None:
    """Refuse to continue a run with other settings.

    Raises:
        ConfigError: lists every setting that differs, with both values.
    """
    before = dict(_leaves(load_run_config([str(stored)])))
    now = dict(_leaves(config))
    differing = [
        f"{name}: was {before.get(name)!r}, now {now.get(name)!r}"
        for name in sorted(before.keys() | now.keys())
        if before.get(name) != now.get(name) and not name.startswith(FREE_ON_RESUME)
    ]
    if differing:
        raise ConfigError(
            "these settings differ from those the run began with:\n  "
            + "\n  ".join(differing)
            + f"\nContinue with the same ones: minimind train {stored} --resume"
            "\nor start another run with --name"
        )


def recall_best(directory: Path, *, step: int) -> None:
    """Note the checkpoint that is resumed from as the best, if it is and a kill came in between.

    Saving it and noting it in `best.json` are two writes; its validation was logged before both.
    """
    lowest = checkpoint.best_loss(directory)
    log = directory / "metrics.jsonl"
    for line in read_metrics(log) if log.exists() else []:
        loss: float | None = line.get("validation_loss")  # null: it was not finite
        if line["step"] == step and loss is not None and (lowest is None or loss < lowest):
            checkpoint.record_best(directory, step=step, validation_loss=loss)


def with_shape(config: RunConfig, shape: ModelConfig) -> RunConfig:
    """Return the run with the shape that its checkpoint gives it, stretched by `init.rope_scaling`.

    Raises:
        ConfigError: [model] asks for another one.
    """
    wanted, scaling = config.model, config.init.rope_scaling
    stretched = wanted if scaling is None else stretch(wanted, scaling)
    if config.init.upcycle is not None:
        stretched = dataclasses.replace(stretched, moe=config.init.upcycle)
    if wanted not in (ModelConfig(), shape) and stretched != shape:
        found = dataclasses.asdict(shape)
        differing = [
            f"model.{name} = {value!r}, the checkpoint has {found[name]!r}"
            for name, value in dataclasses.asdict(wanted).items()
            if found[name] != value
        ]
        raise ConfigError(
            f"[model] doesn't fit {config.init.checkpoint}: {'; '.join(differing)}. "
            "Leave [model] out: the checkpoint has its own"
        )
    return dataclasses.replace(config, model=shape)


def _leaves(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for field in dataclasses.fields(value):
        item = getattr(value, field.name)
        if dataclasses.is_dataclass(item):
            yield from _leaves(item, f"{prefix}{field.name}.")
        else:
            yield f"{prefix}{field.name}", item
