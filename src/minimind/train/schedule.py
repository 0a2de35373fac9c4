"""Learning-rate schedules: pure functions from a step to a factor of the peak rate.

The factor of step `s` (0-based) of `steps` is used for that step's update, so the first step of a
warm-up already moves (factor 1/warmup) and nothing depends on state: resume needs no schedule.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from minimind.config import OptimConfig

Schedule = Callable[[int], float]
"""Step (0-based) -> factor between 0 and 1."""


def _warmup(step: int, warmup_steps: int) -> float:
    return min(1.0, (step + 1) / max(1, warmup_steps))


def constant(step: int, *, warmup_steps: int) -> float:
    """Warm up linearly, then stay."""
    return _warmup(step, warmup_steps)


def cosine(step: int, *, steps: int, warmup_steps: int, final: float) -> float:
    """Warm up linearly, then follow half a cosine down to `final` (Loshchilov & Hutter 2017)."""
    if step < warmup_steps:
        return _warmup(step, warmup_steps)
    progress = min(1.0, (step - warmup_steps) / max(1, steps - warmup_steps))
    return final + (1.0 - final) * 0.5 * (1.0 + math.cos(math.pi * progress))


def wsd(step: int, *, steps: int, warmup_steps: int, decay_steps: int, final: float) -> float:
    """Warm up, stay, decay linearly to `final` (MiniCPM, Hu et al. 2024)."""
    left = max(0, steps - step)
    decayed = final + (1.0 - final) * min(1.0, left / max(1, decay_steps))
    return min(_warmup(step, warmup_steps), decayed)


def first_falling_step(config: OptimConfig, *, steps: int) -> int:
    """Return the step from which on the rates fall: until then the length doesn't matter.

    Past the warm-up, that is, whose length is a share of the steps too.
    """
    if config.schedule == "constant":
        return steps
    if config.schedule == "cosine":
        return round(config.warmup_share * steps)
    return steps - round(config.decay_share * steps)


def build_schedule(config: OptimConfig, *, steps: int) -> Schedule:
    """Return the schedule of `config` over `steps` optimizer steps."""
    warmup_steps = round(config.warmup_share * steps)
    final = config.final_lr_share
    if config.schedule == "constant":
        return lambda step: constant(step, warmup_steps=warmup_steps)
    if config.schedule == "cosine":
        return lambda step: cosine(step, steps=steps, warmup_steps=warmup_steps, final=final)
    decay_steps = round(config.decay_share * steps)
    return lambda step: wsd(
        step, steps=steps, warmup_steps=warmup_steps, decay_steps=decay_steps, final=final
    )
