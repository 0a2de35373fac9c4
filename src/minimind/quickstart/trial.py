"""How fast this machine trains: real steps are timed, or on a slow one single micro-batches."""

from __future__ import annotations

from dataclasses import replace

from minimind.config import RunConfig
from minimind.doctor.timing import USUAL_SHARE, matrix_rates, time_training
from minimind.model.accounting import training_flops_per_token
from minimind.train.device import cpp_compiler, pick_device, pick_precision

STEPS = 14
UNTIMED_STEPS = 4
"""The first of them compile, or fill caches; the rate is the median of the others."""

SHARE = 0.05
"""Of all minutes that real steps may take, as far as the device's matrix rate foretells it."""

SLOW_SHARE = 0.02
"""Of all minutes that micro-batches are timed for; the first steps come before that."""


def slow_rate(config: RunConfig, *, minutes: float) -> float | None:
    """Return tokens per second where `STEPS` real steps would take too much of the minutes.

    Then steps of one and of two micro-batches are timed, on random tokens; the step follows from
    them (`doctor.timing.time_training`). None: the device does real steps fast enough.

    Args:
        config: the run that is planned.
        minutes: all that there are.
    """
    device = pick_device(config.train)
    rates = matrix_rates(device, seconds=0.2)
    flops = training_flops_per_token(config.model, sequence_length=config.data.sequence_length)
    kind = "fp32" if pick_precision(config.train, device) == "fp32" else "bf16"
    step = config.train.batch_rows * config.data.sequence_length * flops
    if STEPS * step / (USUAL_SHARE * rates[kind]) <= SHARE * minutes * 60:
        return None
    compiled = config.train.compile and cpp_compiler()[0] is not None
    timed = replace(config, train=replace(config.train, compile=compiled))
    return time_training(timed, seconds=SLOW_SHARE * minutes * 60, rates=rates).tokens_per_second
