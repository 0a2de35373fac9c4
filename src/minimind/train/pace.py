"""`train.minutes`: a run that ends when its time is over, with its learning rate all the way down.

How fast a machine is shows while it trains: a few steps that are timed beforehand can be off by a
tenth or more (clocks that fall as it warms up, other programs). So the length is planned again from
the rate of the run itself, again and again until the rates begin to fall. Until then a schedule
that stays at its peak (`wsd`, `constant`) is the same for any length; after that the length stays.

What counts is wall-clock of every process of the run: start-up, hooks, saves, and work that a kill
undid (`Clock`). The time between two processes doesn't count.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from minimind.checkpoint.files import write_atomically
from minimind.config import OptimConfig, RunConfig
from minimind.errors import ConfigError
from minimind.settings import load_run_config
from minimind.train.schedule import build_schedule, first_falling_step
from minimind.train.trainer import StepReport, Trainer

UNTIMED_STEPS = 4
"""A process's first steps are compiled, or fill caches."""

FIRST_PLAN = 12
GROWTH = 1.25
"""It is planned at the process's 12th step, and each time that it has done a quarter more."""

SHOWN = 0.02
"""Smaller changes of the length aren't worth a line."""

KEPT_EVERY = 5.0
"""Seconds of a process that a kill can hide from the clock: it is written down so often."""


class Clock:
    """Wall-clock of a run over all its processes, as RUN/clock.json keeps it.

    Args:
        path: the file.
        started: `time.monotonic()` of when this process began with the run.
        resumed: processes before this one count; else the clock begins at zero.
    """

    def __init__(self, path: Path, *, started: float, resumed: bool) -> None:
        self.path, self.started = path, started
        self._kept = -KEPT_EVERY
        self.before: float | None = None if resumed else 0.0
        if resumed and path.exists():
            self.before = float(json.loads(path.read_text(encoding="utf-8"))["seconds"])

    def read(self, now: float) -> float:
        """Return the run's seconds at `now`, of `time.monotonic()`."""
        return (self.before or 0.0) + now - self.started

    def keep(self, now: float, *, always: bool = False) -> None:
        """Write the reading down, unless that was done just now."""
        if always or now - self.started - self._kept >= KEPT_EVERY:
            self._kept = now - self.started
            write_atomically(self.path, json.dumps({"seconds": round(self.read(now), 3)}) + "\n")


class Pace:
    """A hook that gives the run the steps that fit its time; see the module.

    Args:
        minutes: wall-clock of the run, resumes included.
        clock: tells how much of it is gone.
        optim: what the schedule is made of.
        console: where a changed length is said.
        note: is told a new length, to be written down where a resume finds it.
    """

    def __init__(
        self, minutes: float, *, clock: Clock, optim: OptimConfig, console: Console,
        note: Callable[[int], None],
    ) -> None:  # fmt: skip
        self.minutes, self.clock, self.optim = minutes, clock, optim
        self.console, self.note = console, note
        self._done, self._next = 0, FIRST_PLAN
        self._timed_from: tuple[int, float] | None = None
        self._shown: int | None = None

    def __call__(self, trainer: Trainer, report: StepReport, /) -> None:
        """Count a step; plan again when it is time to."""
        if self._shown is None:
            self._shown = trainer.steps
        if self.clock.before is None:  # a run of before it had a clock: its steps at least
            self.clock.before = trainer.counters.seconds - report.seconds
        self._done += 1
        now = time.monotonic()
        self.clock.keep(now, always=trainer.ending)
        if self._timed_from is None:
            if self._done >= UNTIMED_STEPS:
                self._timed_from = (trainer.step, now)
            return
        falling = trainer.step >= first_falling_step(self.optim, steps=trainer.steps)
        if self._done < self._next or trainer.ending or falling:
            return
        self._next = int(self._done * GROWTH) + 1
        first, since = self._timed_from
        left = self.minutes * 60 - self.clock.read(now)
        fitting = int(left * (trainer.step - first) / max(now - since, 1e-9))
        self._lengthen(trainer, steps=trainer.step + max(1, fitting))

    def _lengthen(self, trainer: Trainer, *, steps: int) -> None:
        if steps == trainer.steps:
            return
        trainer.steps = steps
        trainer.schedule = build_schedule(self.optim, steps=steps)
        self.note(steps)
        assert self._shown is not None
        if abs(steps - self._shown) > SHOWN * self._shown:
            self.console.print(
                f"step {trainer.step}: {steps:,} steps fit {self.minutes:g} minutes "
                f"(before: {self._shown:,})",
                markup=False, highlight=False,
            )  # fmt: skip
            self._shown = steps


def with_steps(config: RunConfig, steps: int) -> RunConfig:
    """Return the run with another length."""
    return dataclasses.replace(config, train=dataclasses.replace(config.train, steps=steps))


def planned_before(config: RunConfig, stored: Path) -> RunConfig:
    """Return a run by the clock with the length that it was last given, where it was given one."""
    before = load_run_config([str(stored)]).train
    if config.train.minutes is None or before.minutes is None or before.steps is None:
        return config
    return with_steps(config, before.steps)


def check_pace(config: RunConfig, *, processes: int) -> None:
    """Refuse what a run by the clock can't do.

    Raises:
        ConfigError: several processes: their clocks would have to agree on every plan.
    """
    if config.train.minutes is not None and processes > 1:
        raise ConfigError(
            f"train.minutes = {config.train.minutes:g} with {processes} processes: a run by the "
            "clock has one. Set --train.steps or --train.tokens instead"
        )
