"""metrics.jsonl: one line of figures a logged step, the record that reports are made from."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minimind.errors import RunError
from minimind.train.trackers import Tracker

if TYPE_CHECKING:
    from minimind.train.trainer import StepReport


class MetricsLog:
    """Appends lines to RUN/metrics.jsonl and sends the same figures to a tracker.

    Args:
        path: the file; its folder exists.
        tracker: from `make_tracker`.
    """

    def __init__(self, path: Path, *, tracker: Tracker | None = None) -> None:
        self.path = path
        self._tracker = tracker

    def write(self, figures: dict[str, float | int | None], *, step: int) -> None:
        """Append one line; NaN and infinity become null, because JSON has neither."""
        clean = {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in figures.items()
        }
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": step, **clean}) + "\n")
        except OSError as error:
            raise RunError(
                f"{self.path} can't be written: {error.strerror}. Make room, then continue with "
                "--resume from the last checkpoint"
            ) from error
        if self._tracker is not None:
            numbers = {name: float(value) for name, value in clean.items() if value is not None}
            self._tracker.log(numbers, step=step)

    def cut_after(self, step: int) -> None:
        """Drop lines past `step` and a last line that was cut in half, before a resume."""
        if not self.path.exists():
            return
        kept = [line for line in read_metrics(self.path) if line["step"] <= step]
        partial = self.path.with_name(self.path.name + ".tmp")
        partial.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")
        partial.replace(self.path)

    def finish(self) -> None:
        """Let the tracker write out what it holds."""
        if self._tracker is not None:
            self._tracker.finish()


class LossMean:
    """The mean training loss of the steps between two lines of metrics.jsonl.

    One step's loss is that of its few documents; what is compared between runs (loss bands) is
    therefore the mean. It is part of the training state: a run that was saved between two lines
    and resumed writes the next one as the run that was never interrupted does.

    Attributes:
        last: what the newest line says; NaN before the first and without steps that learnt.
    """

    def __init__(self) -> None:
        self._sum, self._count, self.last = 0.0, 0, math.nan

    def add(self, report: StepReport) -> None:
        """Count a step that learnt something; a loss that is not finite makes the mean NaN."""
        if report.learnt_tokens:
            self._sum += report.loss
            self._count += 1

    def line(self, *, regular: bool) -> float:
        """Return the mean for a line; after one that only the end of the run made, go on adding."""
        self.last = self._sum / self._count if self._count else math.nan
        if regular:
            self._sum, self._count = 0.0, 0
        return self.last

    def state_dict(self) -> dict[str, Any]:
        """Return what was added since the last regular line."""
        return {"sum": self._sum, "count": self._count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict()`; a checkpoint of before it was kept has an empty one."""
        self._sum, self._count = state.get("sum", 0.0), state.get("count", 0)


def read_metrics(path: Path) -> list[dict[str, float]]:
    """Return the lines of a metrics.jsonl; one that a killed run left in half is left out."""
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return lines
