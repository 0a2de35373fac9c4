"""One token of one row, compiled: 2-3 times the speed of the same step without (docs/LOG.md).

Reading the weights is what a single token costs. Compiled, a matrix times one vector is inductor's
own loop, which reads memory at 50-76 % of the machine's rate where the library's product reads at
27-33 % (`layers.project`), and nothing is spent on launching some 400 small operations.

What is read of the cache grows in steps of `LENGTH_STEP` slots, masked, and its length is a symbol
to the compiler: one compilation serves every length (about 20 s; torch keeps it on disk for the
next start).

Axes: B batch (1), T query (1), S key, G kv heads, K head dim, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from minimind.model.attention import Mask
from minimind.model.cache import KVCache
from minimind.model.rope import rotary_tables

if TYPE_CHECKING:
    from minimind.model.transformer import CausalLM

LENGTH_STEP = 64


def compiled_length(context: int) -> int:
    """Return how long a cache must be for one compilation to serve all of it.

    All caches alike, since strides are compiled in; and one slot more than is ever read, since a
    buffer read whole is another layout than a part of one.
    """
    return -(-context // LENGTH_STEP) * LENGTH_STEP + 1


Buffers = list[Tensor]


class CompiledStep:
    """Reads one token of one row through a compiled forward pass.

    Args:
        model: in eval mode; its weights may change, its modules may not.
    """

    def __init__(self, model: CausalLM) -> None:
        self._model = model
        self._windows = [model.config.window_of(i) for i in range(model.config.num_hidden_layers)]
        # The guards on the modules stay (0.3 ms of 5): two models share this function's code.
        self._step: Callable[..., Tensor] = torch.compile(self._forward, fullgraph=True)

    def takes(self, cache: KVCache) -> bool:
        """Tell whether the step can be done with this cache: one row."""
        return cache.batch_size == 1

    def cache_length(self, max_length: int, *, batch_size: int) -> int:
        """Return how long a cache must be made to hold `max_length` tokens."""
        context = self._model.config.max_position_embeddings
        compiled = batch_size == 1 or max_length == context
        return compiled_length(context) if compiled else max_length

    @torch.no_grad()
    def __call__(self, cache: KVCache, ids_B: Tensor) -> Tensor:
        """Read one token, advance the cache by it, and return (1, V) logits of the next.

        Args:
            cache: of one row.
            ids_B: (1,) int64.

        Raises:
            ConfigError: the cache is full.
        """
        cache.begin(1)
        position_BT = cache.lengths[:, None].to(cache.device)
        keys, values = (self._read_slots(buffers, cache) for buffers in cache.buffers())
        logits_BV = self._step(ids_B[:, None], position_BT, keys, values)
        cache.advance(1)
        return logits_BV

    def _read_slots(self, buffers: Buffers, cache: KVCache) -> Buffers:
        """Return the slots that may hold a token; a ring is read whole."""
        needed = (int(cache.lengths[0]) // LENGTH_STEP + 1) * LENGTH_STEP
        parts = []
        for buffer, window in zip(buffers, self._windows, strict=True):
            part = buffer[:, :, :needed] if window is None else buffer
            if window is None and needed < buffer.shape[2]:
                torch._dynamo.maybe_mark_dynamic(part, 2)
            parts.append(part)
        return parts

    def _forward(
        self, ids_BT: Tensor, position_BT: Tensor, keys: Buffers, values: Buffers
    ) -> Tensor:
        model = self._model
        rotary = rotary_tables(model.config, position_BT)
        writer = _Writer(keys, values, self._windows, position_BT[0])
        x_BTD = model.model.embed_tokens(ids_BT)
        for number, layer in enumerate(model.model.layers):
            x_BTD = layer(x_BTD, rotary, writer.mask(number), writer, writer)
        return model.head(model.model.norm(x_BTD))[:, 0]


class _Writer:
    """What `KVCache` and `CacheStep` are to a layer, as tensors of fixed shape.

    Args:
        keys: a layer's (1, G, S, K), for every layer.
        values: likewise.
        windows: of the layers.
        position_1: (1,) int64, of the token that is read.
    """

    def __init__(
        self, keys: Buffers, values: Buffers, windows: list[int | None], position_1: Tensor
    ) -> None:
        self._keys, self._values = keys, values
        self._windows, self._position_1 = windows, position_1

    def write(
        self, layer: int, k_BGTK: Tensor, v_BGTK: Tensor, _step: object
    ) -> tuple[Tensor, Tensor]:
        """Store the token's key and value; return the whole buffers."""
        keys, values = self._keys[layer], self._values[layer]
        # Full layers hold token p in slot p; a sliding layer's ring has its own length.
        slot_1 = self._position_1 % keys.shape[2]
        keys[:, :, slot_1] = k_BGTK.to(keys.dtype)
        values[:, :, slot_1] = v_BGTK.to(values.dtype)
        return keys.to(k_BGTK.dtype), values.to(v_BGTK.dtype)

    def mask(self, layer: int) -> Mask:
        """Return which slots the query sees (as `CacheStep.allowed`)."""
        slots, window = self._keys[layer].shape[2], self._windows[layer]
        slot_S = torch.arange(slots, device=self._position_1.device)
        # Slot j holds the newest token p with p mod slots == j; negative: none was written yet.
        token_S = self._position_1 - (self._position_1 - slot_S) % slots
        seen_S = token_S >= 0
        if window is not None:
            seen_S = seen_S & (token_S > self._position_1 - window)
        return Mask("single", allowed=seen_S[None, None, None])
