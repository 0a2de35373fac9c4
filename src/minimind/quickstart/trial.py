"""How much is timed before the minutes are divided: real steps, as many as a plan may cost."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from minimind.config import RunConfig
from minimind.doctor.timing import USUAL_SHARE, matrix_rate
from minimind.model.accounting import training_flops_per_token
from minimind.train.device import pick_device, pick_precision

STEPS = 14
FEWEST_STEPS = 6
UNTIMED_STEPS = 4
"""The first of them compile, or fill caches; the rate is the median of the others."""

SHARE = 0.05
"""Of all minutes the trial may take, as far as the device's matrix rate foretells it."""


@dataclass(frozen=True, kw_only=True)
class TrialSize:
    """Steps that are timed.

    Attributes:
        steps: how many.
        batch_rows: rows of each; fewer than the run's where those take too long.
        micro_batch_rows: as the run's, or fewer.
    """

    steps: int
    batch_rows: int
    micro_batch_rows: int

    def flags(self, config: RunConfig) -> list[object]:
        """Return what differs from the run as flags of `minimind train`."""
        flags: list[object] = ["--train.steps", self.steps]
        if self.batch_rows != config.train.batch_rows:
            flags += ["--train.batch-rows", self.batch_rows]
        if self.micro_batch_rows != config.train.micro_batch_rows:
            flags += ["--train.micro-batch-rows", self.micro_batch_rows]
        return flags


def trial_size(config: RunConfig, *, seconds: float, rate: float) -> TrialSize:
    """Return the steps that fit `seconds`: whole ones, else of whole micro-batches, else of rows.

    The fewest are `FEWEST_STEPS` of one row, however long they take.

    Args:
        config: the run that is planned.
        seconds: how long they should take.
        rate: tokens per second that are expected.
    """
    rows = int(seconds * rate / config.data.sequence_length)  # in all steps together
    batch, micro = config.train.batch_rows, min(config.train.micro_batch_rows,
                                                config.train.batch_rows)  # fmt: skip
    if rows >= STEPS * batch:
        return TrialSize(steps=STEPS, batch_rows=batch, micro_batch_rows=micro)
    if rows >= STEPS * micro:
        whole = rows // STEPS // micro * micro
        return TrialSize(steps=STEPS, batch_rows=whole, micro_batch_rows=micro)
    few = min(micro, max(1, rows // FEWEST_STEPS))
    return TrialSize(steps=FEWEST_STEPS, batch_rows=few, micro_batch_rows=few)


def expected_rate(config: RunConfig) -> float:
    """Return about how many tokens a second the device trains, by its matrix products alone."""
    device = pick_device(config.train)
    kind = torch.float32 if pick_precision(config.train, device) == "fp32" else torch.bfloat16
    flops = training_flops_per_token(config.model, sequence_length=config.data.sequence_length)
    return USUAL_SHARE * matrix_rate(device, dtype=kind, seconds=0.2) / flops
