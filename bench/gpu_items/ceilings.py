"""Item 2: what the card can do at best: matrix products at the model's shapes, and copies."""

from __future__ import annotations

from typing import Any

import torch

from gpu_items.common import Context, seconds_of, spread


def run(context: Context) -> None:
    """Measure on random data: zeros run faster than anything real."""
    size = context.choose(8192, 512)
    tokens = context.choose(32_768, 512)
    shapes = {
        f"{size}^3": (size, size, size),
        "64m q (512 x 512)": (tokens, 512, 512),
        "64m up (512 x 4096)": (tokens, 512, 4096),
        "64m down (4096 x 512)": (tokens, 4096, 512),
        "head (512 x 12000)": (tokens // 4, 512, 12_000),
        "64m-wide up (768 x 2304)": (tokens, 768, 2304),
    }
    for name, shape in shapes.items():
        rates = context.attempt(name, 5, lambda shape=shape: product_rates(context, shape))
        if rates is not None:
            context.add(line(f"bf16 {name}", "TFLOP/s", [rate / 1e12 for rate in rates]))
    rates = context.attempt("copies", 5, lambda: copy_rates(context, inner=context.choose(10, 2)))
    if rates is not None:
        context.add(line("copy, read + written", "GB/s", [rate / 1e9 for rate in rates]))


def line(what: str, unit: str, rates: list[float]) -> dict[str, Any]:
    """Return a line of the table."""
    return {"what": what, "unit": unit, **spread(rates)}


def product_rates(context: Context, shape: tuple[int, int, int]) -> list[float]:
    """Return FLOP/s of bf16 products of (m, k) and (k, n)."""
    m, k, n = shape
    left = torch.randn(m, k, device=context.device).bfloat16()
    right = torch.randn(k, n, device=context.device).bfloat16()
    taken = seconds_of(lambda: left @ right, context.device, inner=context.choose(20, 2))
    return [2 * m * k * n / seconds for seconds in taken]


def copy_rates(context: Context, *, inner: int) -> list[float]:
    """Return bytes a second, read and written, of copies of 4 GB."""
    number = context.choose(2**30, 2**24)
    source = torch.randn(number, device=context.device)
    target = torch.empty_like(source)
    taken = seconds_of(lambda: target.copy_(source), context.device, inner=inner)
    return [8 * number / seconds for seconds in taken]


def matrix_rate(context: Context) -> float:
    """Return the bf16 rate of a large product in FLOP/s, for the shares of other items."""
    size = context.choose(8192, 512)
    return spread(product_rates(context, (size, size, size)))["median"]


def read_rate(context: Context) -> float:
    """Return the rate at which the card moves its memory, in bytes a second."""
    return spread(copy_rates(context, inner=context.choose(5, 2)))["median"]
