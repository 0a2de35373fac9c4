"""Matrix products by themselves: the floor of a part of a training step at its own shapes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

Product = tuple[int, int, int, int]
"""How many at once, and m, k, n of (m, k) times (k, n)."""


def bare(products: Sequence[Product], device: str) -> Callable[[], None]:
    """Return what does each product in bf16, forward, and backward to both sides.

    There are no weights in fp32, no casts and nothing elementwise: at these shapes the library is
    not faster than that.
    """
    pairs = []
    for batch, m, k, n in products:
        left = torch.randn(batch, m, k, device=device).bfloat16()
        right = torch.randn(batch, k, n, device=device).bfloat16()
        out = torch.randn(batch, m, n, device=device).bfloat16()
        if batch == 1:
            left, right, out = left[0], right[0], out[0]
        pairs += [(left, right), (out, right.mT), (left.mT, out)]

    def run() -> None:
        for left, right in pairs:
            torch.matmul(left, right)

    return run
