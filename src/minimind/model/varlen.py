"""`attention = "flash"`: the documents of packed rows, each a sequence of its own on flash kernels.

They are torch's own (`torch.nn.attention.varlen`, torch 2.10 and newer), with their gradient, and
an operator that torch.compile leaves whole. No mask exists: a document's tokens are all there is.

How many documents there are is data, and only the host can know it: counted from the ids inside a
compiled graph it would split the graph. So `starts_on` counts before the graph begins, and marks
the result: compiled code takes it at any length, one graph serves all batches.

Axes: B batch, T query, S key, N = B*T, H heads, G kv heads, K head dim.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from minimind.errors import ConfigError
from minimind.model.compiler import too_old

CAPABILITY = (8, 0)
"""CUDA's compute capability from which torch has flash kernels: Ampere."""

LARGEST_HEAD = 256

# torch 2.11 takes fewer kv heads than heads as they are, and knows no such argument.
_SAYS_GROUPED = torch.__version__ >= "2.12"


def check_flash(device: torch.device) -> None:
    """Refuse a device without flash kernels.

    Raises:
        ConfigError: says what is missing and what to use instead.
    """
    if device.type != "cuda":
        reason = f"runs on CUDA only, the model is on {device.type}"
    else:
        reason = too_old(device, CAPABILITY, cards="RTX 30, A100")
    if reason is not None:
        raise ConfigError(f"train.attention = 'flash' {reason}: use --train.attention auto")


def document_starts(document_ids_BT: Tensor) -> Tensor:
    """Return where each document starts in the flat B*T, and the end: (documents + 1,) int32.

    A row's padding counts as a document. On the host; on a GPU the host has to wait for it.
    """
    first_BT = torch.ones_like(document_ids_BT, dtype=torch.bool)
    first_BT[:, 1:] = document_ids_BT[:, 1:] != document_ids_BT[:, :-1]
    starts = first_BT.flatten().nonzero().flatten()
    return F.pad(starts, (0, 1), value=document_ids_BT.numel()).int()


def starts_on(device: torch.device, document_ids_BT: Tensor) -> Tensor:
    """Return `document_starts` of ids on the host, on `device`, of any length to compiled code."""
    starts = document_starts(document_ids_BT)
    if device.type == "cuda" and starts.device.type == "cpu":
        starts = starts.pin_memory()  # else the host may wait for the device
    starts = starts.to(device, non_blocking=True)
    torch._dynamo.mark_dynamic(starts, 0)
    return starts


def flash(
    q_BHTK: Tensor, k_BGSK: Tensor, v_BGSK: Tensor, *, starts: Tensor | None, window: int | None
) -> Tensor:
    """Return causal attention inside each document as (B, H, T, K).

    Args:
        q_BHTK: queries, bf16 or fp16.
        k_BGSK: keys, S = T.
        v_BGSK: values.
        starts: from `document_starts`; None: each row is one document.
        window: how many tokens a query sees, itself included; None: all before it.

    Raises:
        ConfigError: another precision, or a head dimension that the kernels don't have.
    """
    from torch.nn.attention.varlen import varlen_attn  # brings the compiler along: a second

    B, H, T, K = q_BHTK.shape
    _check_numbers(q_BHTK.dtype, K)
    if starts is None:
        starts = torch.arange(0, (B + 1) * T, T, dtype=torch.int32, device=q_BHTK.device)
    q_NHK, k_NGK, v_NGK = (
        x.transpose(1, 2).flatten(0, 1).contiguous() for x in (q_BHTK, k_BGSK, v_BGSK)
    )
    grouped: dict[str, Any] = {}
    if _SAYS_GROUPED and k_BGSK.shape[1] != H:
        grouped["enable_gqa"] = True
    out_NHK = varlen_attn(
        q_NHK, k_NGK, v_NGK, starts, starts, T, T,  # no document is longer than its row
        window_size=(-1 if window is None else window - 1, 0), **grouped,
    )  # fmt: skip
    assert isinstance(out_NHK, Tensor)
    return out_NHK.view(B, T, H, K).transpose(1, 2)


def _check_numbers(dtype: torch.dtype, head_dim: int) -> None:
    if dtype not in (torch.bfloat16, torch.float16):
        raise ConfigError(
            f"train.attention = 'flash' computes in bf16 or fp16, the model in {dtype}: "
            "use --train.precision bf16, or --train.attention auto"
        )
    if head_dim % 8 or head_dim > LARGEST_HEAD:
        raise ConfigError(
            f"train.attention = 'flash' takes heads of a multiple of 8 up to {LARGEST_HEAD}, the "
            f"model's have {head_dim}: use --train.attention auto"
        )
