"""Cross-entropy and log-probabilities from hidden states, without ever holding all logits.

At 2,048 tokens and 12,000 words the logits alone are 98 MB in fp32, their softmax and gradient as
much again. Here a chunk of tokens is multiplied with the output matrix, used, and dropped.

Axes: N tokens, n tokens of a chunk, D hidden, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

IGNORE = -100
"""Label of a token that is not learnt (the number that `minimind.data` and torch use)."""


def linear_cross_entropy(
    hidden_ND: Tensor, weight_VD: Tensor, labels_N: Tensor, *, chunk: int = 512
) -> tuple[Tensor, Tensor]:
    """Return the summed cross-entropy (fp32 scalar) and how many labels counted (int64 scalar).

    The gradients are computed chunk by chunk in the forward pass, while the chunk's softmax is at
    hand, and only scaled in the backward pass (Liger's and Apple's cut cross-entropy do likewise):
    nothing is computed twice. Matrix products run in the autocast dtype where autocast is on; the
    softmax, the sum and the gradient of the weight are accumulated in fp32.

    Args:
        hidden_ND: (N, D), after the last norm.
        weight_VD: (V, D) output matrix.
        labels_N: (N,) int64, `IGNORE` (-100) where nothing is learnt.
        chunk: tokens whose logits are held at once.
    """
    grad = torch.is_grad_enabled()
    loss_sum = _LinearCrossEntropy.apply(
        hidden_ND, weight_VD, labels_N, chunk, _product_dtype(hidden_ND, weight_VD),
        grad and hidden_ND.requires_grad, grad and weight_VD.requires_grad,
    )  # fmt: skip
    return loss_sum, (labels_N != IGNORE).sum()


def token_log_probs(
    hidden_ND: Tensor, weight_VD: Tensor, labels_N: Tensor, *, chunk: int = 512
) -> Tensor:
    """Return log p(label) of each token, (N,) fp32; 0 where the label is `IGNORE`.

    For objectives that weigh tokens differently (DPO, policy gradients). The chunks' logits are
    computed again in the backward pass.
    """
    dtype = _product_dtype(hidden_ND, weight_VD)
    return _TokenLogProbs.apply(hidden_ND, weight_VD, labels_N, chunk, dtype)  # pyright: ignore[reportReturnType]


def _product_dtype(hidden_ND: Tensor, weight_VD: Tensor) -> torch.dtype:
    device_type = hidden_ND.device.type
    if torch.is_autocast_enabled(device_type):
        return torch.get_autocast_dtype(device_type)
    return torch.promote_types(hidden_ND.dtype, weight_VD.dtype)


def _joined(parts: list[Tensor], whole: Tensor) -> Tensor:
    return torch.cat(parts) if parts else torch.zeros_like(whole)  # no token at all


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden_ND: Tensor, weight_VD: Tensor, labels_N: Tensor, chunk: int,
        dtype: torch.dtype, grad_hidden: bool, grad_weight: bool,
    ) -> Tensor:  # fmt: skip
        w_VD = weight_VD.to(dtype)
        loss_sum = hidden_ND.new_zeros((), dtype=torch.float32)
        d_hidden: list[Tensor] = []
        d_weight_VD = torch.zeros_like(weight_VD, dtype=torch.float32) if grad_weight else None
        for begin in range(0, hidden_ND.shape[0], chunk):
            h_nD = hidden_ND[begin : begin + chunk].to(dtype)
            labels_n = labels_N[begin : begin + chunk]
            learnt_n = labels_n != IGNORE
            target_n1 = labels_n.clamp(min=0)[:, None]
            loss, d_logits_nV = _chunk_loss(
                h_nD, w_VD, target_n1, learnt_n, grad=grad_hidden or grad_weight
            )
            loss_sum = loss_sum + loss
            if d_logits_nV is None:
                continue
            if grad_hidden:
                d_hidden.append((d_logits_nV @ w_VD).to(hidden_ND.dtype))
            if d_weight_VD is not None:
                d_weight_VD = d_weight_VD + d_logits_nV.T @ h_nD
            del d_logits_nV  # before the next chunk's logits are made
        ctx.save_for_backward(_joined(d_hidden, hidden_ND) if grad_hidden else None, d_weight_VD)
        ctx.weight_dtype = weight_VD.dtype
        return loss_sum

    @staticmethod
    def backward(ctx: Any, d_sum: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        d_hidden_ND, d_weight_VD = ctx.saved_tensors
        return (
            None if d_hidden_ND is None else (d_hidden_ND * d_sum).to(d_hidden_ND.dtype),
            None if d_weight_VD is None else (d_weight_VD * d_sum).to(ctx.weight_dtype),
            None, None, None, None, None,
        )  # fmt: skip


def _chunk_loss(
    h_nD: Tensor, w_VD: Tensor, target_n1: Tensor, learnt_n: Tensor, *, grad: bool
) -> tuple[Tensor, Tensor | None]:
    """Return the summed loss of a chunk and its gradient by the logits; the logits are dropped."""
    logits_nV = (h_nD @ w_VD.T).float()
    normaliser_n1 = logits_nV.logsumexp(-1, keepdim=True)
    losses_n = (normaliser_n1 - logits_nV.gather(1, target_n1))[:, 0]
    loss = losses_n.where(learnt_n, 0.0).sum()
    if not grad:
        return loss, None
    d_logits_nV = _softmax_minus_one_hot(logits_nV, normaliser_n1, target_n1, learnt_n)
    return loss, d_logits_nV.to(h_nD.dtype)


def _softmax_minus_one_hot(
    logits_nV: Tensor, normaliser_n1: Tensor, target_n1: Tensor, learnt_n: Tensor
) -> Tensor:
    """Return the gradient of cross-entropy by the logits; overwrites `logits_nV`.

    On a GPU inductor makes one pass of it all, from the product's bf16 to the gradient's; a scatter
    would have the probabilities written and read again in fp32, 400 MB of them at a time.
    """
    if torch.compiler.is_compiling() and logits_nV.is_cuda:
        return _fused_softmax_minus_one_hot(logits_nV, normaliser_n1, target_n1, learnt_n)
    probs_nV = logits_nV.sub_(normaliser_n1).exp_()
    probs_nV.scatter_add_(1, target_n1, torch.full_like(normaliser_n1, -1.0))
    return probs_nV.masked_fill_(~learnt_n[:, None], 0.0)


def _fused_softmax_minus_one_hot(
    logits_nV: Tensor, normaliser_n1: Tensor, target_n1: Tensor, learnt_n: Tensor
) -> Tensor:
    """Return the same numbers without a scatter and without overwriting."""
    word_V = torch.arange(logits_nV.shape[1], device=logits_nV.device)
    probs_nV = (logits_nV - normaliser_n1).exp()
    return (probs_nV - (word_V == target_n1).to(probs_nV.dtype)).where(learnt_n[:, None], 0.0)


class _TokenLogProbs(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden_ND: Tensor, weight_VD: Tensor, labels_N: Tensor, chunk: int,
        dtype: torch.dtype,
    ) -> Tensor:  # fmt: skip
        w_VD = weight_VD.to(dtype)
        log_probs: list[Tensor] = []
        for begin in range(0, hidden_ND.shape[0], chunk):
            labels_n = labels_N[begin : begin + chunk]
            logits_nV = (hidden_ND[begin : begin + chunk].to(dtype) @ w_VD.T).float()
            picked_n = logits_nV.gather(1, labels_n.clamp(min=0)[:, None])[:, 0]
            log_probs.append((picked_n - logits_nV.logsumexp(-1)).where(labels_n != IGNORE, 0.0))
        ctx.save_for_backward(hidden_ND, weight_VD, labels_N)
        ctx.chunk, ctx.dtype = chunk, dtype
        return torch.cat(log_probs) if log_probs else hidden_ND.new_zeros(0, dtype=torch.float32)

    @staticmethod
    def backward(ctx: Any, d_N: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        hidden_ND, weight_VD, labels_N = ctx.saved_tensors
        w_VD = weight_VD.to(ctx.dtype)
        d_hidden: list[Tensor] = []
        d_weight_VD = torch.zeros_like(weight_VD, dtype=torch.float32)
        for begin in range(0, hidden_ND.shape[0], ctx.chunk):
            part = slice(begin, begin + ctx.chunk)
            h_nD, labels_n = hidden_ND[part].to(ctx.dtype), labels_N[part]
            logits_nV = (h_nD @ w_VD.T).float()
            d_logits_nV = _softmax_minus_one_hot(
                logits_nV, logits_nV.logsumexp(-1, keepdim=True),
                labels_n.clamp(min=0)[:, None], labels_n != IGNORE,
            )  # fmt: skip
            d_logits_nV = (d_logits_nV * -d_N[part, None]).to(ctx.dtype)
            d_hidden.append((d_logits_nV @ w_VD).to(hidden_ND.dtype))
            d_weight_VD = d_weight_VD + d_logits_nV.T @ h_nD
        return _joined(d_hidden, hidden_ND), d_weight_VD.to(weight_VD.dtype), None, None, None
