"""Experiment trackers behind one setting, `log.tracker`; metrics.jsonl is written in any case."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from minimind.errors import ConfigError, did_you_mean, require


class Tracker(Protocol):
    """Takes the figures of a step."""

    def log(self, figures: dict[str, float], *, step: int) -> None:
        """Send `figures` under `step`."""
        ...

    def finish(self) -> None:
        """Write out what is buffered."""
        ...


class _Wandb:
    """Weights & Biases; offline it writes RUN/wandb/, for `wandb sync` later."""

    def __init__(self, name: str, directory: Path, settings: dict[str, Any], mode: str) -> None:
        wandb = require("wandb", extra="track")
        self._run = wandb.init(
            project="minimind", name=name, dir=str(directory), config=settings, mode=mode
        )

    def log(self, figures: dict[str, float], *, step: int) -> None:
        self._run.log(figures, step=step)

    def finish(self) -> None:
        self._run.finish()


class _TensorBoard:
    """Event files in RUN/tensorboard/: `tensorboard --logdir RUN`."""

    def __init__(self, directory: Path) -> None:
        require("tensorboard", extra="track")
        # torch's writer imports the package tensorboard, so it can't be imported before the check
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(log_dir=str(directory / "tensorboard"))

    def log(self, figures: dict[str, float], *, step: int) -> None:
        for name, value in figures.items():
            self._writer.add_scalar(name, value, global_step=step)

    def finish(self) -> None:
        self._writer.close()


class _SwanLab:
    """SwanLab in its local mode: files in RUN/swanlab/, nothing leaves the machine."""

    def __init__(self, name: str, directory: Path, settings: dict[str, Any]) -> None:
        self._swanlab = require("swanlab", extra="track")
        self._swanlab.init(
            project="minimind",
            experiment_name=name,
            logdir=str(directory / "swanlab"),
            config=settings,
            mode="offline",
        )

    def log(self, figures: dict[str, float], *, step: int) -> None:
        self._swanlab.log(figures, step=step)

    def finish(self) -> None:
        self._swanlab.finish()


def make_tracker(
    kind: str, *, name: str, directory: Path, settings: dict[str, Any] | None = None
) -> Tracker | None:
    """Return the tracker of `log.tracker`, or None for `none`.

    Args:
        kind: `none`, `wandb`, `wandb-offline`, `tensorboard` or `swanlab`.
        name: the run's name.
        directory: the run's directory; trackers write below it.
        settings: the resolved configuration, shown beside the curves.

    Raises:
        MissingExtraError: its package is not installed.
        ConfigError: there is no such tracker.
    """
    settings = settings or {}
    makers: dict[str, Callable[[], Tracker | None]] = {
        "none": lambda: None,
        "wandb": lambda: _Wandb(name, directory, settings, "online"),
        "wandb-offline": lambda: _Wandb(name, directory, settings, "offline"),
        "tensorboard": lambda: _TensorBoard(directory),
        "swanlab": lambda: _SwanLab(name, directory, settings),
    }
    if kind not in makers:
        raise ConfigError(
            f"log.tracker = {kind!r} is not one of {', '.join(makers)}.{did_you_mean(kind, makers)}"
        )
    return makers[kind]()
