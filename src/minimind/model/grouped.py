"""Rows sorted by group, and grouped matrix products: each group with a matrix, in one call.

`torch.nn.functional.grouped_mm` as an operator of ours: torch 2.13 computes it in fp32 too, but
refuses to trace that, so a compiled step would break at every product.

Axes: N tokens, C choices of a token, S = N*C rows, E groups (experts), I in, O out, D hidden.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F


class SortedPairs(NamedTuple):
    """The (token, choice) pairs of a batch, sorted by expert.

    Attributes:
        token_S: which token each sorted pair is of.
        slot_NC: where each token's choices went.
        ends_E: int32: the sorted pairs of expert e end before `ends_E[e]`.
    """

    token_S: Tensor  # noqa: N815
    slot_NC: Tensor  # noqa: N815
    ends_E: Tensor  # noqa: N815


def sort_by_expert(chosen_NC: Tensor, *, num_experts: int) -> SortedPairs:
    """Sort pairs by expert; those of one expert keep the order of their tokens."""
    expert_S = chosen_NC.flatten()
    order_S = expert_S.argsort(stable=True)
    places_S = torch.arange(order_S.shape[0], device=order_S.device)
    slot_S = torch.zeros_like(order_S).scatter(0, order_S, places_S)
    experts_E = torch.arange(num_experts, device=order_S.device)
    counts_E = (expert_S[:, None] == experts_E).sum(0)
    return SortedPairs(
        token_S=order_S // chosen_NC.shape[1],
        slot_NC=slot_S.view(chosen_NC.shape),
        ends_E=counts_E.cumsum(0).to(torch.int32),
    )


def dispatch(x_ND: Tensor, pairs: SortedPairs) -> Tensor:
    """Return (S, D): each token's row at the places of its choices."""
    return _Dispatch.apply(x_ND, pairs.token_S, pairs.slot_NC)


def combine(y_SD: Tensor, pairs: SortedPairs) -> Tensor:
    """Return (N, D): the sum of each token's rows."""
    return _Combine.apply(y_SD, pairs.token_S, pairs.slot_NC)


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


class _Dispatch(torch.autograd.Function):
    """Copy each token to its places; backward gathers, where autograd's own would scatter."""

    @staticmethod
    def forward(ctx: Any, x_ND: Tensor, token_S: Tensor, slot_NC: Tensor) -> Tensor:
        ctx.save_for_backward(slot_NC)
        return x_ND.index_select(0, token_S)

    @staticmethod
    def backward(ctx: Any, d_SD: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        (slot_NC,) = ctx.saved_tensors
        return _gathered_sum(d_SD, slot_NC), None, None


class _Combine(torch.autograd.Function):
    """Add up each token's results: `_Dispatch` the other way round."""

    @staticmethod
    def forward(ctx: Any, y_SD: Tensor, token_S: Tensor, slot_NC: Tensor) -> Tensor:
        ctx.save_for_backward(token_S)
        return _gathered_sum(y_SD, slot_NC)

    @staticmethod
    def backward(ctx: Any, d_ND: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        (token_S,) = ctx.saved_tensors
        return d_ND.index_select(0, token_S), None, None


def _gathered_sum(rows_SD: Tensor, slot_NC: Tensor) -> Tensor:
    """Return (N, D): the sum over a token's choices, in fp32 inside.

    Choice by choice: rows are copied whole, which on a CPU takes a half to a third of the time of
    indexing by `slot_NC` and reducing, and no (N, C, D) is made.
    """
    if slot_NC.shape[1] == 1:
        return rows_SD.index_select(0, slot_NC[:, 0])
    total_ND = rows_SD.index_select(0, slot_NC[:, 0]).float()
    for slot_N in slot_NC.unbind(1)[1:]:
        total_ND += rows_SD.index_select(0, slot_N)
    return total_ND.to(rows_SD.dtype)
