"""Matrix products and real training steps, timed; what a token budget would take.

Every figure is measured here and now; the estimates multiply them and say so.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from minimind.config import RunConfig
from minimind.data.batch import Batch
from minimind.model import CausalLM
from minimind.model.accounting import training_flops_per_token
from minimind.train.device import pick_device, pick_precision
from minimind.train.objective import NextToken
from minimind.train.optim import build_optimizer
from minimind.train.trainer import Trainer

TOKENS_PER_PARAMETER = 20
"""Compute-optimal training tokens for each parameter (Hoffmann et al. 2022, Chinchilla)."""
MATRIX_SIZE = {"cpu": 2048, "cuda": 8192, "mps": 4096}
USUAL_SHARE = 0.5
"""Share of the matrix rate that training usually reaches, to choose how much to time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """Training steps of a preset, timed.

    Attributes:
        tokens_per_second: with the preset's own number of micro-batches a step.
        step_seconds: one optimizer step of the preset: micro-batches and update.
        update_seconds: the part of it that is the optimizer.
        startup_seconds: the first step, with compilation.
        flops_per_token: forward and backward.
        matrix_share: of the measured matrix rate in the same precision (MFU).
        peak_memory_bytes: on a GPU what torch held, else of this whole process;
            None on Windows.
        micro_batch_rows: rows that were timed; fewer than the preset's where those take too long.
        steps: how many steps were timed.
    """

    precision: str
    compiled: bool
    micro_batch_rows: int
    tokens_per_second: float
    step_seconds: float
    update_seconds: float
    startup_seconds: float
    flops_per_token: float
    matrix_share: float
    peak_memory_bytes: int | None
    steps: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What a token budget would take at the measured rate."""

    tokens: int
    hours: float
    cost: float | None


def matrix_rate(device: torch.device, *, dtype: torch.dtype, seconds: float = 1.0) -> float:
    """Return the FLOP/s of a large square matrix product, the best of `seconds` of trying."""
    size = MATRIX_SIZE[device.type]
    left = torch.randn(size, size, device=device).to(dtype)
    right = torch.randn(size, size, device=device).to(dtype)

    def product() -> torch.Tensor:
        return left @ right

    _timed(product, device)
    best, until = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < until:
        best = min(best, _timed(product, device))
    return 2 * size**3 / best


def matrix_rates(device: torch.device, *, seconds: float = 1.0) -> dict[str, float]:
    """Return FLOP/s of matrix products in fp32 and bf16."""
    dtypes = {"fp32": torch.float32, "bf16": torch.bfloat16}
    return {
        name: matrix_rate(device, dtype=dtype, seconds=seconds) for name, dtype in dtypes.items()
    }


def time_training(config: RunConfig, *, seconds: float, rates: dict[str, float]) -> Trial:
    """Train on random tokens for about `seconds` and time it, with the trainer's own parts.

    Steps of one and of two micro-batches take turns: their difference is a micro-batch, the rest
    the update. From these comes the preset's step, which would itself be too long to wait for.

    Args:
        config: model, optimiser, row length, micro-batch, precision, compilation.
        seconds: of timed steps, after the first (which compiles); at least one of each is done.
        rates: FLOP/s from `matrix_rates`.
    """
    device = pick_device(config.train)
    precision = pick_precision(config.train, device)
    matrix_flops = rates["fp32" if precision == "fp32" else "bf16"]
    flops = training_flops_per_token(config.model, sequence_length=config.data.sequence_length)
    rows = _rows_in_time(config, seconds=seconds / 6, rate=USUAL_SHARE * matrix_flops / flops)
    torch.manual_seed(config.seed)
    model = CausalLM(config.model).to(device)
    trainer = Trainer(
        model=model,
        objective=NextToken(),
        optimizer=build_optimizer(model, config.optim),
        schedule=lambda _: 1.0,
        config=config.train,
        steps=sys.maxsize,
    )
    batches = [_random_batch(config, rows), _random_batch(config, rows)]
    startup = _timed(lambda: trainer.train_step(batches[:1]), device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    one, two, until = [], [], time.perf_counter() + seconds
    while not one or time.perf_counter() < until:
        one.append(_timed(lambda: trainer.train_step(batches[:1]), device))
        two.append(_timed(lambda: trainer.train_step(batches), device))
    single, double = statistics.median(one), statistics.median(two)
    micro = max(double - single, 0.5 * single)  # noise must not make a micro-batch free
    update = max(0.0, single - micro)
    step = update + micro * config.train.batch_rows / rows
    rate = config.train.batch_rows * config.data.sequence_length / step
    return Trial(
        precision=precision,
        compiled=config.train.compile,
        micro_batch_rows=rows,
        tokens_per_second=rate,
        step_seconds=step,
        update_seconds=update,
        startup_seconds=startup,
        flops_per_token=flops,
        matrix_share=rate * flops / matrix_flops,
        peak_memory_bytes=_peak_memory(device),
        steps=len(one) + len(two),
    )


def estimate(
    trial: Trial, *, parameters: int, tokens: int | None = None, price: float | None = None
) -> Estimate:
    """Return how long a token budget takes, and its cost at `price` per hour."""
    budget = tokens or TOKENS_PER_PARAMETER * parameters
    hours = budget / trial.tokens_per_second / 3600
    return Estimate(tokens=budget, hours=hours, cost=None if price is None else hours * price)


def _rows_in_time(config: RunConfig, *, seconds: float, rate: float) -> int:
    """Return the preset's micro-batch rows, halved until one should take at most `seconds`."""
    rows = config.train.micro_batch_rows
    while rows > 1 and rows * config.data.sequence_length / rate > seconds:
        rows //= 2
    return rows


def _random_batch(config: RunConfig, rows: int) -> Batch:
    shape = rows, config.data.sequence_length
    ids_BT = torch.randint(config.model.vocab_size, shape)
    return Batch(input_ids=ids_BT, labels=ids_BT.roll(-1, dims=1))


def _timed(work: Callable[[], object], device: torch.device) -> float:
    started = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
    return time.perf_counter() - started


def _peak_memory(device: torch.device) -> int | None:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if sys.platform == "win32":
        return None
    import resource  # not on Windows

    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, Linux kilobytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
