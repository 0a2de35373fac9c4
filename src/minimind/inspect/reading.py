"""One pass of a model over a text, with everything that it computed on the way kept.

Nothing of the model is replaced or changed: forward hooks copy what flows, and the attention
weights are computed once more from the queries and keys that the layer itself makes.

Axes: L layers, T positions, S keys, H heads, D hidden.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from minimind.errors import ConfigError, DataError
from minimind.inference.decode import check_prompt, evaluating
from minimind.model import CausalLM
from minimind.model.attention import attention_weights, build_masks
from minimind.model.transformer import Attention
from minimind.tokenizer import Tokenizer
from minimind.tokenizer.shown import texts

MOST_CELLS = 1 << 28
"""Attention weights kept at once: 2^28 of 4 bytes are 1 GB."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Reading:
    """What a model did with a row of T tokens.

    Attributes:
        name: what the model is called.
        model: in eval mode.
        tokenizer: the model's.
        ids: the T tokens.
        pieces: the texts that people wrote or the model generated, in order, without markup.
        generated: index of the first token that the model generated; T: none was.
        hidden_LTD: (L + 1, T, D) fp32, the residual stream: embedding, then after each layer.
        attention_LHTS: (layers, heads, T, T) fp32, of the chosen ones; rows sum to 1.
        layers: which layers `attention_LHTS` has.
        heads: which heads it has.
    """

    name: str
    model: CausalLM = field(repr=False)
    tokenizer: Tokenizer = field(repr=False)
    ids: tuple[int, ...] = field(repr=False)
    pieces: tuple[str, ...]
    generated: int
    hidden_LTD: Tensor = field(repr=False)  # noqa: N815  (shapes in names)
    attention_LHTS: Tensor = field(repr=False)  # noqa: N815
    layers: tuple[int, ...]
    heads: tuple[int, ...]

    @property
    def raw(self) -> list[bytes]:
        """Return the bytes of each token; spare ids beyond the vocabulary have none."""
        known = self.tokenizer.vocab_size
        return [self.tokenizer.token_bytes(i) if i < known else b"" for i in self.ids]

    @property
    def shown(self) -> list[str]:
        """Return each token as people can read it (see `tokenizer.shown.texts`)."""
        return texts(self.raw)


def read_ids(
    model: CausalLM,
    tokenizer: Tokenizer,
    *,
    ids: Sequence[int],
    pieces: Sequence[str],
    name: str = "model",
    generated: int | None = None,
    layers: Sequence[int] | None = None,
    heads: Sequence[int] | None = None,
) -> Reading:
    """Read token ids as one row, and keep what the model computes.

    Args:
        model: any `CausalLM`: with adapters, quantised, or imported as well.
        tokenizer: the model's.
        ids: T token ids.
        pieces: the texts in them, see `Reading`.
        name: what the model is called.
        generated: index of the first generated token.
        layers: whose attention is kept, from 0; None: all.
        heads: whose attention is kept, from 0; None: all.

    Raises:
        ConfigError: a layer or head that the model doesn't have.
        DataError: no tokens, more than the context, or more attention than fits.
    """
    config = model.config
    layers = _chosen("layers", layers, count=config.num_hidden_layers)
    heads = _chosen("heads", heads, count=config.num_attention_heads)
    check_prompt(model, ids)
    T = len(ids)
    if len(layers) * len(heads) * T * T > MOST_CELLS:
        raise DataError(
            f"{len(layers)} layers x {len(heads)} heads x {T:,} x {T:,} tokens are too many "
            f"attention weights (at most {MOST_CELLS:,}): choose some with --layers and --heads, "
            "or give a shorter text"
        )
    device = model.model.norm.weight.device
    with torch.no_grad(), evaluating(model), _recording(model, layers, heads) as kept:
        model(torch.tensor([list(ids)], device=device), logits="none")
    return Reading(
        name=name,
        model=model,
        tokenizer=tokenizer,
        ids=tuple(ids),
        pieces=tuple(pieces),
        generated=T if generated is None else generated,
        hidden_LTD=torch.stack(kept.hidden),
        attention_LHTS=torch.stack([kept.attention[layer] for layer in layers]),
        layers=tuple(layers),
        heads=tuple(heads),
    )


@dataclass
class _Kept:
    hidden: list[Tensor] = field(default_factory=list)
    attention: dict[int, Tensor] = field(default_factory=dict)


@contextmanager
def _recording(model: CausalLM, layers: Sequence[int], heads: Sequence[int]) -> Iterator[_Kept]:
    """Copy what passes through the layers to the CPU, as fp32, while the block runs."""
    kept, chosen = _Kept(), list(heads)

    def keep_hidden(module: torch.nn.Module, args: Any, x_BTD: Tensor) -> None:
        kept.hidden.append(x_BTD[0].float().cpu())

    def keep_weights(module: torch.nn.Module, args: Any, options: Any, out: Tensor) -> None:
        assert isinstance(module, Attention)
        x_BTD, rotary = args
        window = model.config.window_of(module.layer)
        masks = build_masks(
            "eager", windows=[window], T=x_BTD.shape[1], device=x_BTD.device, document_ids_BT=None
        )
        q_BHTK, k_BGSK, _ = module.heads(x_BTD, rotary)
        weights_BHTS = attention_weights(q_BHTK, k_BGSK, masks[window])
        kept.attention[module.layer] = weights_BHTS[0, chosen].cpu()

    decoder = model.model
    handles = [decoder.embed_tokens.register_forward_hook(keep_hidden)]
    for number, layer in enumerate(decoder.layers):
        handles.append(layer.register_forward_hook(keep_hidden))
        if number in layers:
            attention = layer.get_submodule("self_attn")
            handles.append(attention.register_forward_hook(keep_weights, with_kwargs=True))
    try:
        yield kept
    finally:
        for handle in handles:
            handle.remove()


def _chosen(what: str, numbers: Sequence[int] | None, *, count: int) -> list[int]:
    if numbers is None:
        return list(range(count))
    for number in numbers:
        if not 0 <= number < count:
            raise ConfigError(
                f"--{what} {number}: the model has {count} {what}, numbered 0 to {count - 1}"
            )
    if not numbers:
        raise ConfigError(f"--{what}: give at least one number from 0 to {count - 1}")
    return sorted(set(numbers))
