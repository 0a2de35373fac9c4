"""Grouped matrix products: consecutive rows, each group with a matrix of its own, in one call.

`torch.nn.functional.grouped_mm` as an operator of ours: torch 2.13 computes it in fp32 too, but
refuses to trace that, so a compiled step would break at every product.

Axes: S rows, E groups, I in, O out.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


@torch.library.custom_op("minimind::grouped_product", mutates_args=())
def grouped_product(x_SI: Tensor, weights_EOI: Tensor, ends_E: Tensor) -> Tensor:
    """Return (S, O): `x W_e^T` for the rows of group e.

    Args:
        x_SI: rows, those of a group together.
        weights_EOI: of the dtype of `x_SI`; I and O are multiples of 8.
        ends_E: int32: the rows of group e end before `ends_E[e]`; the last is S.
    """
    return F.grouped_mm(x_SI, weights_EOI.transpose(1, 2), offs=ends_E)


@torch.library.custom_op("minimind::grouped_outer", mutates_args=())
def grouped_outer(a_SO: Tensor, b_SI: Tensor, ends_E: Tensor) -> Tensor:
    """Return (E, O, I): `a_e^T b_e` over the rows of each group."""
    return F.grouped_mm(a_SO.T, b_SI, offs=ends_E)


@grouped_product.register_fake
def _(x_SI: Tensor, weights_EOI: Tensor, ends_E: Tensor) -> Tensor:
    return x_SI.new_empty(x_SI.shape[0], weights_EOI.shape[1])


@grouped_outer.register_fake
def _(a_SO: Tensor, b_SI: Tensor, ends_E: Tensor) -> Tensor:
    return a_SO.new_empty(ends_E.shape[0], a_SO.shape[1], b_SI.shape[1])


def _keep(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx: Any, d_SO: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
    x_SI, weights_EOI, ends_E = ctx.saved_tensors
    needs_x, needs_weights, _ = ctx.needs_input_grad
    d_SO = d_SO.contiguous()
    d_x = grouped_product(d_SO, weights_EOI.transpose(1, 2), ends_E) if needs_x else None
    d_weights = grouped_outer(d_SO, x_SI, ends_E) if needs_weights else None
    return d_x, d_weights, None


grouped_product.register_autograd(_backward, setup_context=_keep)
