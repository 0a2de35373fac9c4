"""Causal attention with document boundaries and sliding windows, on whichever kernel fits.

Axes: B batch, T query, S key, D hidden, H heads, G kv heads, K head dim.

A mask is built once a forward pass for each window that occurs, then shared by the layers. Padding
(document -1) sees earlier padding and itself, so that no row of a mask is empty: no NaN.

| backend | where | for |
|---|---|---|
| `sdpa` | everywhere | torch's fused kernels; without boundaries no mask is made at all |
| `flex` | CUDA; CPU without gradients | boundaries and windows as blocks: skips what is masked |
| `flash` | CUDA from Ampere on, bf16/fp16 | documents as sequences of their own (`varlen`) |
| `eager` | everywhere | four readable lines, the oracle of the others |
| `single` | decoding, half precision on a CPU or compiled | one query a row |
| `auto` | | `sdpa`; on CUDA `flex` for document boundaries or windows, if torch.compile works |

On a CPU `auto` means `eager` inside a compiled training step of rows up to 512: inductor fuses it.
With a KV cache `flex` and `flash` mean `sdpa`: a handful of queries leaves nothing to skip.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

from minimind.errors import ConfigError, did_you_mean
from minimind.model.cache import CacheStep
from minimind.model.compiler import compiles, sound_kernels
from minimind.model.varlen import check_flash, document_starts, flash

BACKENDS: tuple[str, ...] = ("auto", "sdpa", "flex", "flash", "eager")

FUSED_ROWS = 512
"""On a CPU, compiled, rows up to this length: 795 against 761 tokens/s at 64m (docs/LOG.md)."""


class Mask(NamedTuple):
    """What queries may see, in the form that one backend wants.

    Attributes:
        backend: `sdpa`, `flex`, `flash` or `eager`.
        causal: plain causal attention over S = T; `allowed` is None then.
        allowed: (B or 1, 1, T, S) bool for `sdpa` and `eager`. None and not causal: everything.
        blocks: for `flex`.
        starts: for `flash`: where each document starts (`varlen.document_starts`).
        window: for `flash`.
    """

    backend: str
    causal: bool = False
    allowed: Tensor | None = None
    blocks: BlockMask | None = None
    starts: Tensor | None = None
    window: int | None = None


Masks = dict[int | None, Mask]
"""One mask for each window that occurs among the layers (None: full attention)."""


def check_backend(backend: str, *, device: torch.device) -> None:
    """Refuse an unknown backend, or one that the device doesn't have.

    Raises:
        ConfigError: with what to do.
    """
    if backend not in BACKENDS:
        raise ConfigError(
            f"train.attention = {backend!r} is not a backend.{did_you_mean(backend, BACKENDS)} "
            f"There are: {', '.join(BACKENDS)}"
        )
    if backend == "flash":
        check_flash(device)


def choose_backend(
    backend: str, *, device: torch.device, needs_blocks: bool, needs_grad: bool, T: int
) -> str:
    """Return the backend that serves this request.

    Args:
        backend: what was asked for.
        device: where the model is.
        needs_blocks: there are document boundaries or windows.
        needs_grad: a backward pass follows.
        T: tokens in a row.

    Raises:
        ConfigError: the backend that was asked for can't.
    """
    if backend == "auto":
        if device.type == "cuda":
            # In rows of one block (128) there is nothing to skip.
            return "flex" if needs_blocks and T > 128 and compiles(device) else "sdpa"
        # Compiled, the four lines of `eager` beat torch's CPU kernel until the scores grow large.
        fused = needs_grad and T <= FUSED_ROWS and torch.compiler.is_compiling()
        return "eager" if fused else "sdpa"
    if backend == "flex" and device.type != "cuda" and needs_grad:
        raise ConfigError(
            f"train.attention = 'flex' has no backward pass on {device.type}: "
            "use --train.attention auto"
        )
    return backend


def build_masks(
    backend: str, *, windows: Iterable[int | None], T: int, device: torch.device,
    document_ids_BT: Tensor | None, starts: Tensor | None = None,
) -> Masks:  # fmt: skip
    """Make the mask of every window for rows that are read whole (no cache).

    Args:
        backend: as `choose_backend` returned it.
        windows: those of the layers.
        T: tokens in a row.
        device: where the model is.
        document_ids_BT: (B, T); None: each row is one document.
        starts: for `flash`, what `document_starts` says of them; None: it is called here.
    """
    if backend == "flash" and starts is None and document_ids_BT is not None:
        starts = document_starts(document_ids_BT)
    # A window that covers the row is no window.
    effective = {window: None if window is None or window >= T else window for window in windows}
    made = {
        window: Mask(backend, starts=starts, window=window)
        if backend == "flash"
        else _build_mask(backend, window, T, device, document_ids_BT)
        for window in set(effective.values())
    }
    return {window: made[effective[window]] for window in effective}


def build_cached_masks(backend: str, *, windows: Iterable[int | None], step: CacheStep) -> Masks:
    """Make the mask of every window for tokens that follow what a cache holds."""
    backend = "eager" if backend == "eager" else "sdpa"
    masks: Masks = {}
    for window in set(windows):
        fits = window is None or window >= step.where(window)[1]
        if fits and step.empty:
            masks[window] = Mask(backend, causal=True)
        elif fits and step.uniform and step.T == 1:
            masks[window] = Mask(backend)
        else:
            masks[window] = Mask(backend, allowed=step.allowed(window))
    return masks


def attend(q_BHTK: Tensor, k_BGSK: Tensor, v_BGSK: Tensor, mask: Mask) -> Tensor:
    """Return softmax(q k / sqrt(K), masked) v as (B, H, T, K)."""
    return _KERNELS[mask.backend](q_BHTK, k_BGSK, v_BGSK, mask)


def _build_mask(
    backend: str, window: int | None, T: int, device: torch.device, document_ids_BT: Tensor | None
) -> Mask:
    plain = window is None and document_ids_BT is None
    if plain:
        return Mask("sdpa" if backend == "flex" else backend, causal=True)
    if backend == "flex":
        return Mask(backend, blocks=_blocks(window, T, device, document_ids_BT))
    query_T1 = torch.arange(T, device=device)[:, None]
    key_S = torch.arange(T, device=device)
    seen_BTS = (key_S <= query_T1)[None]
    if window is not None:
        seen_BTS = seen_BTS & (key_S > query_T1 - window)
    if document_ids_BT is not None:
        seen_BTS = seen_BTS & (document_ids_BT[:, :, None] == document_ids_BT[:, None, :])
    return Mask(backend, allowed=seen_BTS[:, None])


def _blocks(
    window: int | None, T: int, device: torch.device, document_ids_BT: Tensor | None
) -> BlockMask:
    def seen(b: Tensor, h: Tensor, query: Tensor, key: Tensor) -> Tensor:
        inside = key <= query
        if window is not None:
            inside = inside & (key > query - window)
        if document_ids_BT is not None:
            inside = inside & (document_ids_BT[b, query] == document_ids_BT[b, key])
        return inside

    B = None if document_ids_BT is None else document_ids_BT.shape[0]
    return create_block_mask(seen, B, None, T, T, device=str(device))


def _sdpa(q_BHTK: Tensor, k_BGSK: Tensor, v_BGSK: Tensor, mask: Mask) -> Tensor:
    if q_BHTK.shape[2] == 1 and q_BHTK.device.type == "cpu" and q_BHTK.dtype != torch.float32:
        # torch's bf16 kernel takes 7.5 ms for 32 rows of 512 keys, two products 1.3 (docs/LOG.md).
        return _single(q_BHTK, k_BGSK, v_BGSK, mask)
    with sound_kernels(q_BHTK.device, masked=mask.allowed is not None):
        return F.scaled_dot_product_attention(
            q_BHTK, k_BGSK, v_BGSK, attn_mask=mask.allowed, is_causal=mask.causal,
            enable_gqa=q_BHTK.shape[1] != k_BGSK.shape[1],
        )  # fmt: skip


def attention_weights(q_BHTK: Tensor, k_BGSK: Tensor, mask: Mask) -> Tensor:
    """Return how much each query takes of each key, (B, H, T, S) fp32; rows sum to 1.

    Args:
        q_BHTK: queries, positions applied.
        k_BGSK: keys, positions applied.
        mask: of the backend `eager`.
    """
    k_BHSK = k_BGSK.repeat_interleave(q_BHTK.shape[1] // k_BGSK.shape[1], dim=1)
    scores_BHTS = q_BHTK @ k_BHSK.transpose(-1, -2) * q_BHTK.shape[-1] ** -0.5
    allowed = (
        torch.ones_like(scores_BHTS[0, 0], dtype=torch.bool).tril() if mask.causal else mask.allowed
    )
    if allowed is not None:
        scores_BHTS = scores_BHTS.masked_fill(~allowed, -torch.inf)
    return scores_BHTS.float().softmax(-1)


def _eager(q_BHTK: Tensor, k_BGSK: Tensor, v_BGSK: Tensor, mask: Mask) -> Tensor:
    v_BHSK = v_BGSK.repeat_interleave(q_BHTK.shape[1] // v_BGSK.shape[1], dim=1)
    return attention_weights(q_BHTK, k_BGSK, mask).type_as(v_BHSK) @ v_BHSK


def _single(q_BHTK: Tensor, k_BGSK: Tensor, v_BGSK: Tensor, mask: Mask) -> Tensor:
    """One query a row, T = 1: the queries of a kv head side by side, so that no key is copied."""
    B, H, T, K = q_BHTK.shape
    G = k_BGSK.shape[1]
    q_BGhK = q_BHTK.view(B, G, H // G, K)
    if torch.compiler.is_compiling():  # sums over rows, which inductor fuses with their neighbours
        scores_BGhS = (q_BGhK[:, :, :, None].float() * k_BGSK[:, :, None].float()).sum(-1)
    else:
        scores_BGhS = (q_BGhK @ k_BGSK.transpose(-1, -2)).float()
    scores_BGhS = scores_BGhS * K**-0.5
    if mask.allowed is not None:
        scores_BGhS = scores_BGhS.masked_fill(~mask.allowed, -torch.inf)
    weights_BGhS = scores_BGhS.softmax(-1)
    if torch.compiler.is_compiling():
        out_BGhK = (weights_BGhS[..., None] * v_BGSK[:, :, None].float()).sum(-2)
    else:
        out_BGhK = weights_BGhS.type_as(v_BGSK) @ v_BGSK
    return out_BGhK.reshape(B, H, T, K).type_as(v_BGSK)


def _flex(q_BHTK: Tensor, k_BGSK: Tensor, v_BGSK: Tensor, mask: Mask) -> Tensor:
    # Inside a compiled step the step's compiler fuses it.
    apart = q_BHTK.is_cuda and not torch.compiler.is_compiling()
    kernel = _compiled_flex() if apart else flex_attention
    gqa = q_BHTK.shape[1] != k_BGSK.shape[1]
    return kernel(q_BHTK, k_BGSK, v_BGSK, block_mask=mask.blocks, enable_gqa=gqa)


@functools.cache
def _compiled_flex() -> Callable[..., Any]:
    """Return flex attention compiled by itself: uncompiled it holds the whole score matrix."""
    return torch.compile(flex_attention)


def _flash(q_BHTK: Tensor, k_BGSK: Tensor, v_BGSK: Tensor, mask: Mask) -> Tensor:
    return flash(q_BHTK, k_BGSK, v_BGSK, starts=mask.starts, window=mask.window)


_KERNELS: dict[str, Callable[[Tensor, Tensor, Tensor, Mask], Tensor]] = {
    "sdpa": _sdpa, "eager": _eager, "flex": _flex, "flash": _flash, "single": _single,
}  # fmt: skip
