"""Item 5: what only size can answer: rates at 64M, and which shape learns most in equal time."""

from __future__ import annotations

import dataclasses
import tempfile
import time
from pathlib import Path
from typing import Any

from gpu_items.common import Context, compile_error, free
from gpu_items.prepare import unpack
from minimind.config import RunConfig
from minimind.settings import load_run_config
from minimind.tokenizer import Tokenizer
from minimind.train.fit import fitted
from minimind.train.rng import seed_all
from timed_run import TimedRun

ARMS = (
    ("64m", ""), ("64m", " x0.5"), ("64m", " x2"), ("64m", " momentum"), ("64m-wide", ""),
    ("moe", ""), ("64m", " constant"),
)  # fmt: skip
"""Shape, and what is changed: both learning rates, Muon's momentum, or no warm-down. The most
wanted first."""
RATES = {" x0.5": 0.5, " x2": 2.0}
MOMENTUM = 0.85
"""What small runs prefer to 0.95 (docs/recipe.md): of how long a run is that true?"""
MEAN = 0.9
"""Each arm is also measured with `train.average_decay` at this (docs/LOG.md)."""
HELD_OUT_MB = 1.0
OVERHEAD = 30.0
"""Seconds of an arm beside its training, at first: compiling, reading what is held out."""


def run(context: Context) -> None:
    """Train each arm for the same seconds; compilation is not counted."""
    if context.data is None:
        context.left_out.append("the arms: --data FOLDER of `gpu.py prepare`")
        return
    compiled = can_compile(context)
    with tempfile.TemporaryDirectory() as folder:
        data = unpack(context.data, Path(folder))
        arms = context.choose(ARMS, (("nano", ""), ("nano", " momentum")))
        if context.models:
            arms = [(model, "") for model in context.models]
        seconds = context.choose(max(15.0, context.left / len(arms) - OVERHEAD), 4.0)
        context.figures["seconds_of_an_arm"] = seconds
        longest = seconds + OVERHEAD
        for shape, change in arms:
            began = time.perf_counter()
            figures = context.attempt(
                f"{shape}{change}", longest,
                lambda shape=shape, change=change: train(
                    context, settings(context, data, shape, change, compiled=compiled), seconds
                ),
            )  # fmt: skip
            if figures is not None:
                context.add({"arm": f"{shape}{change}", **figures})
                longest = max(longest, time.perf_counter() - began)
            free(context.device)
    context.remarks.append(
        f"{seconds:.0f} s each, one seed: a difference below the spread of seeds in docs/LOG.md "
        "says nothing"
    )


def can_compile(context: Context) -> bool:
    """Tell whether arms can have compiled steps; note it if not."""
    refusal = compile_error(context.device)
    if refusal is not None:
        context.left_out.append(f"compiled steps, the arms are eager: {refusal}")
    return refusal is None


def train(context: Context, config: RunConfig, seconds: float) -> dict[str, Any]:
    """Return an arm's held-out bits per byte and its speed."""
    tokenizer = Tokenizer.load("default")
    seed_all(config.seed)
    timed = TimedRun(config, tokenizer, seconds=seconds, averages=(MEAN,))
    if config.train.compile:
        timed.warm_up()
    timed.train(seconds)
    figures = timed.figures() | timed.validate(int(context.choose(HELD_OUT_MB, 0.02) * 2**20))
    names = ("bits_per_byte", f"bits_per_byte_mean_{MEAN:g}", "learnt_tokens_per_second", "steps")
    rates = ("lr", "muon_lr", "muon_momentum")
    return {name: figures[name] for name in names} | {
        name: getattr(config.optim, name) for name in rates
    }


def settings(context: Context, data: Path, shape: str, change: str, *, compiled: bool) -> RunConfig:
    """Return the run of an arm."""
    config = load_run_config(["pretrain", shape, "speedrun"] if not context.small
                             else ["pretrain", shape])  # fmt: skip
    files = tuple(str(path) for path in sorted((data / "pretrain").glob("*.jsonl")))
    factor = RATES.get(change, 1.0)
    optim = dataclasses.replace(
        config.optim, lr=config.optim.lr * factor, muon_lr=config.optim.muon_lr * factor,
        muon_momentum=MOMENTUM if change == " momentum" else config.optim.muon_momentum,
        schedule="constant" if change == " constant" else config.optim.schedule,
    )  # fmt: skip
    # A quarter of the step: in a minute there must be some hundred updates.
    rows = context.choose(max(1, config.train.batch_rows // 4), 8)
    loop = dataclasses.replace(
        config.train, batch_rows=rows, micro_batch_rows=min(rows, config.train.micro_batch_rows),
        device=context.device, compile=compiled and not context.small,
    )  # fmt: skip
    vocab_size = Tokenizer.load("default").vocab_size
    model = dataclasses.replace(config.model, vocab_size=vocab_size)
    return fitted(dataclasses.replace(
        config, data=dataclasses.replace(config.data, train=files), optim=optim, train=loop,
        model=model,
    ))  # fmt: skip
