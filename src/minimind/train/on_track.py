"""The hook that tells during a run whether its loss is where that of healthy runs is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from minimind.train.bands import Band, find_band, in_words, judge, optim_settings
from minimind.train.metrics import read_metrics

if TYPE_CHECKING:
    from minimind.train.trainer import StepReport, Trainer


class OnTrack:
    """Says when a run is first inside its band, when it leaves or re-enters it, and at the end.

    It judges the lines that `Log` writes, which runs before it.

    Args:
        band: from `find_band`.
        run: the run's directory: what was logged before a resume, and its settings.
        every: steps between the points that are judged: those of metrics.jsonl.
        console: where it is said.
    """

    def __init__(self, band: Band, *, run: Path, every: int, console: Console) -> None:
        self.band, self.console = band, console
        self._every = max(1, every)
        logged = run / "metrics.jsonl"
        earlier = read_metrics(logged) if logged.exists() else []
        self._lines = [line for line in earlier if "loss" in line]
        self._settings = optim_settings(run)
        self._said: str | None = None

    def __call__(self, trainer: Trainer, report: StepReport, /) -> None:
        """Judge the step when it is logged."""
        tokens = trainer.counters.tokens
        again = bool(self._lines) and self._lines[-1]["tokens"] == tokens
        if again or not (report.step % self._every == 0 or trainer.ending):
            return
        self._lines.append({
            "tokens": tokens, "loss": report.loss, "mean_loss": trainer.losses.last,
            "grad_norm": report.grad_norm, "lr": report.lr,
        })  # fmt: skip
        if self.band.at(tokens) is None:
            return
        verdict = judge(self.band, self._lines, settings=self._settings)
        ends = self.band.at(tokens + self._every * report.tokens) is None
        if verdict is not None and (verdict.where != self._said or ends or trainer.ending):
            self._said = verdict.where
            self.console.print(in_words(verdict), highlight=False, soft_wrap=True, markup=False)


def on_track(wish: str, *, run: Path, every: int, console: Console) -> OnTrack | None:
    """Return the hook of `log.band`, or None where there is no band for such a run.

    Raises:
        ConfigError: `wish` is a file that is no band, or one of other data or another model.
    """
    band = find_band(run, wish=wish)
    return None if band is None else OnTrack(band, run=run, every=every, console=console)
