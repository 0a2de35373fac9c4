"""Rows of tokens that a model has read: all that continuous batching needs of whatever computes.

`TorchRows` is a `CausalLM` with a KV cache; `serve.llamacpp` has the same over llama.cpp's memory.

Axes: B rows, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from minimind.inference.decode import decode_one, new_cache, prefill
from minimind.model import CausalLM


class Rows(Protocol):
    """`count` rows, each of at most `max_length` tokens; a row begins empty.

    Attributes:
        count: rows.
        max_length: tokens that a row holds.
        context: tokens that the model can see, prompt and answer together; at least `max_length`.
        vocab_size: V.
        device: where the logits are.
        nbytes: size of the keys and values.
    """

    count: int
    max_length: int
    context: int
    vocab_size: int
    device: torch.device
    nbytes: int

    def read(self, first: int, pieces: Sequence[Sequence[int]]) -> Tensor:
        """Append `pieces[i]` to row `first + i`; return (B, V) logits after each one's last token.

        What is computed depends on these rows only.
        """
        ...

    def cut(self, row: int, length: int) -> None:
        """Keep the first `length` tokens of a row (see `keepable`)."""
        ...

    def keepable(self, row: int, length: int) -> int:
        """Return `length` if the row can be cut back to it, or copied so far; else 0."""
        ...

    def copy_prefix(self, source: int, target: int, length: int) -> None:
        """Make row `target` hold the first `length` tokens of row `source`."""
        ...

    def swap(self, a: int, b: int) -> None:
        """Exchange two rows."""
        ...

    def close(self) -> None:
        """Give the memory back; nothing can be read afterwards."""
        ...


class TorchRows:
    """A `CausalLM` and a KV cache.

    Args:
        model: in eval mode while it reads.
        count: rows.
        max_length: tokens that a row holds; None: the model's context.
    """

    def __init__(self, model: CausalLM, *, count: int, max_length: int | None = None) -> None:
        self.model = model
        self.context = model.config.max_position_embeddings
        self.vocab_size = model.config.vocab_size
        self.count = count
        self.max_length = max_length or self.context
        self.cache = new_cache(model, batch_size=count, max_length=self.max_length)
        self.device = self.cache.device
        self.nbytes = self.cache.nbytes

    def read(self, first: int, pieces: Sequence[Sequence[int]]) -> Tensor:
        """Append tokens and return logits (see `Rows`)."""
        cache = self.cache.view(first, len(pieces))
        if all(len(piece) == 1 for piece in pieces):
            return decode_one(self.model, cache, torch.tensor(pieces, device=self.device)[:, 0])
        return prefill(self.model, cache, pieces)

    def cut(self, row: int, length: int) -> None:
        """Keep the first `length` tokens of a row."""
        self.cache.lengths[row] = length

    def keepable(self, row: int, length: int) -> int:
        """Return `length` if the row can be cut back to it (see `KVCache.keepable`)."""
        return self.cache.keepable(row, length)

    def copy_prefix(self, source: int, target: int, length: int) -> None:
        """Make row `target` hold the first `length` tokens of row `source`."""
        self.cache.copy_prefix(source, target, length)

    def swap(self, a: int, b: int) -> None:
        """Exchange two rows."""
        self.cache.swap(a, b)

    def close(self) -> None:
        """Give the memory of the cache back."""
        del self.cache
