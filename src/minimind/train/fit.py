"""Which micro-batch fits a device's memory, by the prediction of `minimind params`."""

from __future__ import annotations

import dataclasses

import torch

from minimind.config import ModelConfig, RunConfig
from minimind.errors import ConfigError
from minimind.model.accounting import training_memory
from minimind.train.device import pick_device

HEADROOM = 0.85
"""Share of the free memory that is planned with: the prediction is within 15 % (bench/memory.py)
and a compiled step on a GPU's kernels of attention should hold less than it says: nano on a CPU, 4
rows: 247 MB uncompiled, compiled with fused attention 192 (docs/LOG.md); on CUDA it is unmeasured.
"""

ENOUGH_TOKENS = 65_536
"""Tokens of a micro-batch beyond which no device gets faster."""


def fitted(config: RunConfig) -> RunConfig:
    """Return the run with the largest micro-batch that its CUDA device holds; else as it is.

    The step stays the same: rows that don't fit at once follow one another.

    Raises:
        ConfigError: not even one row fits.
    """
    device = pick_device(config.train)
    if device.type != "cuda":
        return config
    free, _ = torch.cuda.mem_get_info(device)
    length = config.data.sequence_length
    rows, layers = largest_micro_batch(
        config.model,
        sequence_length=length,
        most_rows=min(config.train.batch_rows, max(1, ENOUGH_TOKENS // length)),
        optimizer=config.optim.kind,
        memory=int(free * HEADROOM),
        averaged=config.train.average_decay > 0,
    )
    train = dataclasses.replace(config.train, micro_batch_rows=rows, gradient_checkpointing=layers)
    return dataclasses.replace(config, train=train)


def largest_micro_batch(
    model: ModelConfig, *, sequence_length: int, most_rows: int, optimizer: str, memory: int,
    averaged: bool = False,
) -> tuple[int, str]:  # fmt: skip
    """Return the rows of a micro-batch that fit, and the layers to checkpoint: `none` or `all`.

    Rows are halved from `most_rows` on. Checkpointing costs a third of the speed, so it is taken
    only where fewer than 4 rows would fit without.

    Args:
        model: its shape.
        sequence_length: tokens in a row.
        most_rows: never more than these.
        optimizer: `muon` or `adamw`.
        memory: bytes that the step may take.
        averaged: an average of the weights is held as well.

    Raises:
        ConfigError: not even one row fits.
    """
    needed = 0
    for layers, fewest in (("none", min(4, most_rows)), ("all", 1)):
        rows = most_rows
        while rows >= fewest:
            needed = training_memory(
                model, micro_batch_rows=rows, sequence_length=sequence_length, device="cuda"
            ).total(optimizer=optimizer, checkpointed=layers == "all", averaged=averaged)
            if needed <= memory:
                return rows, layers
            rows //= 2
    raise ConfigError(
        f"one row of {sequence_length} tokens needs about {needed / 1e9:.1f} GB with every layer "
        f"checkpointed, {memory / 1e9:.1f} GB are free: take a smaller preset, or a shorter "
        "--data.sequence-length"
    )
