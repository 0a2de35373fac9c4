"""One token of each of several rows on a GPU, as a CUDA graph: one launch instead of some 400.

What it saves on a GPU is for `bench/gpu.py 6` to tell: none was at hand. A graph is recorded the
first time that a number of rows meets a number of slots, both rounded up, and replayed from then
on. Rows that only fill a number up write to the slot after the last, which nobody reads.
The recorded kernels are torch's own, some 60 a layer, or with `fuse` those of torch.compile, fewer
and larger: the first recordings then take half a minute.

Axes: B rows, T query (1), S key, G kv heads, K head dim, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from minimind.model.attention import Mask
from minimind.model.cache import KVCache
from minimind.model.compiled import LENGTH_STEP, compiled_length
from minimind.model.rope import rotary_tables

if TYPE_CHECKING:
    from minimind.model.transformer import CausalLM

WARM_UP = 2
"""Runs before a recording: they pick the matrix kernels and fill the rotary tables."""


@dataclass(frozen=True, slots=True)
class _Recording:
    """A step for one number of rows and slots.

    Attributes:
        buffer: the first of the cache's keys that it writes to.
        ids: (B, 1) int64, read.
        positions: (B, 1) int64, read.
        logits: (B, V), written.
        replay: runs it.
        pool: the memory of what it computes on the way.
    """

    buffer: Tensor
    ids: Tensor
    positions: Tensor
    logits: Tensor
    replay: Callable[[], None]
    pool: Any = None


class GraphStep:
    """Reads one token of every row of a cache by replaying a CUDA graph.

    It serves dense models whose layers all see everything: experts choose rows by what they read,
    a ring has no slot that is nobody's, and dynamic RoPE asks for the longest row. On a CPU, where
    there is nothing to record, the same step runs as it is (for tests).

    Args:
        model: in eval mode; its weights may change in place, its modules may not.
        fuse: compile the step before it is recorded.
    """

    def __init__(self, model: CausalLM, *, fuse: bool = False) -> None:
        self._model = model
        self._step: Callable[..., Tensor] = (
            torch.compile(self._forward, fullgraph=True) if fuse else self._forward
        )
        config = model.config
        windows = {config.window_of(layer) for layer in range(config.num_hidden_layers)}
        dynamic = config.rope_scaling is not None and config.rope_scaling.rope_type == "dynamic"
        self._serves = config.moe is None and windows == {None} and not dynamic
        # A recording knows its cache's memory, so it goes when the cache does.
        self._recordings: WeakKeyDictionary[KVCache, dict[tuple[int, ...], _Recording]] = (
            WeakKeyDictionary()
        )
        self._stream: torch.cuda.Stream | None = None

    def takes(self, cache: KVCache) -> bool:
        """Tell whether the cache has the slot that nobody reads, and the model is one of these."""
        whole = cache.whole or cache
        return self._serves and whole.max_length % LENGTH_STEP == 1

    def cache_length(self, max_length: int, *, batch_size: int) -> int:
        """Return how long a cache must be made to hold `max_length` tokens."""
        return compiled_length(max_length)

    @torch.no_grad()
    def __call__(self, cache: KVCache, ids_B: Tensor) -> Tensor:
        """Read one token of each row, advance the cache by it, and return (B, V) logits.

        Args:
            cache: of B rows, or a view of some.
            ids_B: (B,) int64.

        Returns:
            A buffer that the next call overwrites.

        Raises:
            ConfigError: the cache is full.
        """
        needed = (cache.reserve(1) // LENGTH_STEP + 1) * LENGTH_STEP
        whole, count = cache.whole or cache, len(ids_B)
        rows = min(1 << (count - 1).bit_length(), whole.batch_size - cache.first)
        key = (cache.first, rows, needed)
        recordings = self._recordings.setdefault(whole, {})
        recording = recordings.get(key)
        if recording is None or recording.buffer is not whole.buffers()[0][0]:
            recording = recordings[key] = self._record(whole, cache.first, rows, needed)
        recording.ids[:count, 0] = ids_B
        recording.positions[:count, 0].copy_(cache.lengths)
        recording.positions[count:] = whole.max_length - 1
        recording.replay()
        cache.advance(1)
        return recording.logits[:count]

    def _record(self, whole: KVCache, first: int, rows: int, needed: int) -> _Recording:
        device, (keys, values) = whole.device, whole.buffers()
        ids_B1 = torch.zeros(rows, 1, dtype=torch.int64, device=device)
        # While it warms up it writes where nobody reads.
        positions_B1 = torch.full_like(ids_B1, whole.max_length - 1)
        mine = [[buffer[first : first + rows] for buffer in buffers] for buffers in (keys, values)]

        def step() -> Tensor:
            return self._step(ids_B1, positions_B1, *mine, needed)

        if device.type != "cuda":
            logits_BV = torch.empty(
                rows, self._model.config.vocab_size, dtype=self._model.output_weight.dtype
            )
            return _Recording(
                keys[0], ids_B1, positions_B1, logits_BV, lambda: void(logits_BV.copy_(step()))
            )
        # One stream for all: the matrix library keeps 32 MB for each that it was used on.
        side = self._stream = self._stream or torch.cuda.Stream(device)
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UP):
                step()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._shared_pool(), stream=side):
            logits_BV = step()
        return _Recording(keys[0], ids_B1, positions_B1, logits_BV, graph.replay, graph.pool())

    def _shared_pool(self) -> Any:
        """Return the memory of a recording that is there, or None; only one runs at a time.

        The pool of graphs that are all gone can't be recorded into: torch stops at an assertion.
        """
        return next((r.pool for those in self._recordings.values() for r in those.values()), None)

    def _forward(
        self, ids_B1: Tensor, positions_B1: Tensor, keys: list[Tensor], values: list[Tensor],
        needed: int,
    ) -> Tensor:  # fmt: skip
        """Return (B, V) logits; of the cache the first `needed` slots are seen."""
        model = self._model
        writer = _RowsWriter(keys, values, needed, positions_B1)
        rotary = rotary_tables(model.config, positions_B1)
        mask = writer.mask()
        x_BTD = model.model.embed_tokens(ids_B1)
        for layer in model.model.layers:
            x_BTD = layer(x_BTD, rotary, mask, writer, writer)
        return model.head(model.model.norm(x_BTD))[:, 0]


def void(_: object) -> None:
    """Return nothing."""


class _RowsWriter:
    """What `KVCache` and `CacheStep` are to a layer, for one token of each of several rows."""

    def __init__(
        self, keys: list[Tensor], values: list[Tensor], needed: int, positions_B1: Tensor
    ) -> None:
        self._keys, self._values = keys, values
        self._needed, self._positions_B1 = needed, positions_B1
        self._rows_B = torch.arange(positions_B1.shape[0], device=positions_B1.device)

    def write(
        self, layer: int, k_BGTK: Tensor, v_BGTK: Tensor, _step: object
    ) -> tuple[Tensor, Tensor]:
        """Store each row's key and value; return the slots that may hold a token."""
        parts = []
        for buffer, new_BGTK in ((self._keys[layer], k_BGTK), (self._values[layer], v_BGTK)):
            at_B = self._positions_B1[:, 0]
            buffer[self._rows_B, :, at_B] = new_BGTK[:, :, 0].to(buffer.dtype)
            parts.append(buffer[:, :, : self._needed].to(new_BGTK.dtype))
        return parts[0], parts[1]

    def mask(self) -> Mask:
        """Return which slots each query sees, (B, 1, 1, S)."""
        slot_S = torch.arange(self._needed, device=self._positions_B1.device)
        return Mask("single", allowed=(slot_S <= self._positions_B1)[:, None, None])
