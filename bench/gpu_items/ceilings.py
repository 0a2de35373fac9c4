"""Item 2: what the card can do at best: matrix products at the model's shapes, and copies."""

from __future__ import annotations

import torch

from gpu_items.common import Context, Item, seconds_of, spread


def run(context: Context) -> Item:
    """Measure on random data: zeros run faster than anything real."""
    device = context.device
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
    rows = []
    for name, (m, k, n) in shapes.items():
        left = torch.randn(m, k, device=device).bfloat16()
        right = torch.randn(k, n, device=device).bfloat16()
        inner = context.choose(20, 2)
        rates = [2 * m * k * n / s for s in seconds_of(lambda: left @ right, device, inner=inner)]  # noqa: B023
        rows.append({"what": f"bf16 {name}", "unit": "TFLOP/s",
                     **{key: value / 1e12 if key != "n" else value
                        for key, value in spread(rates).items()}})  # fmt: skip
    number = context.choose(2**30, 2**24)
    source = torch.randn(number, device=device)
    target = torch.empty_like(source)
    inner = context.choose(10, 2)
    rates = [8 * number / s for s in seconds_of(lambda: target.copy_(source), device, inner=inner)]
    rows.append({"what": "copy, read + written", "unit": "GB/s",
                 **{key: value / 1e9 if key != "n" else value
                    for key, value in spread(rates).items()}})  # fmt: skip
    return Item(rows=rows)


def matrix_rate(context: Context) -> float:
    """Return the bf16 rate of a large product in FLOP/s, for the shares of other items."""
    size = context.choose(8192, 512)
    left = torch.randn(size, size, device=context.device).bfloat16()
    right = torch.randn(size, size, device=context.device).bfloat16()
    taken = seconds_of(lambda: left @ right, context.device, inner=context.choose(10, 2))
    return 2 * size**3 / spread(taken)["median"]


def read_rate(context: Context) -> float:
    """Return the rate at which the card reads its memory, in bytes a second."""
    number = context.choose(2**30, 2**24)
    source = torch.randn(number, device=context.device)
    target = torch.empty_like(source)
    taken = seconds_of(lambda: target.copy_(source), context.device, inner=context.choose(5, 2))
    return 8 * number / spread(taken)["median"]
