"""Keys and values of the tokens that were already read, so that each token is read once.

Axes: B batch, T query, S key (a slot of the buffer), G kv heads, K head dim.

Full-attention layers hold `max_length` slots and token p lies in slot p. Sliding layers hold a ring
of `window + chunk` slots and token p lies in slot p mod ring: memory doesn't grow with the length.
The extra `chunk` slots make two things exact: a chunk of T <= chunk tokens can be written before
its first query has read the oldest key it needs, and the last `chunk` tokens can be taken back.

Rows come and go while a server runs: `view` gives a few neighbouring rows to a forward pass (the
others cost nothing), `swap` brings rows together, `copy_prefix` and `keepable` serve prompts that
begin as an earlier one did.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor

from minimind.config import ModelConfig
from minimind.errors import ConfigError


class KVCache:
    """Preallocated keys and values for `batch_size` rows of at most `max_length` tokens.

    `lengths` (B,) int64 **on the CPU** says how many tokens each row holds; it may be assigned or
    edited. A forward pass writes row b at `lengths[b]`, attends to what is before it, and advances
    by T. Ragged prompts are padded on the right and read once; either give `token_counts` to the
    forward pass, or set `lengths` to the true lengths afterwards: later tokens overwrite the pads.

    Args:
        config: shape of the model.
        batch_size: rows.
        max_length: tokens a row can hold, prompt and answer together.
        dtype: of the buffers; that of the model's keys (bf16 under bf16 autocast).
        device: of the buffers.
        chunk: tokens that a sliding layer can write at once and take back (see the module).
    """

    def __init__(
        self,
        config: ModelConfig,
        *,
        batch_size: int,
        max_length: int,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        chunk: int = 512,
    ) -> None:
        if min(batch_size, max_length, chunk) < 1:
            raise ConfigError(
                f"KVCache: batch_size = {batch_size}, max_length = {max_length}, chunk = {chunk}: "
                "each must be at least 1"
            )
        self.max_length = max_length
        self.chunk = chunk
        self.whole: KVCache | None = None  # of a view: what it is a view of, and from which row
        self.first = 0
        self.lengths: Tensor = torch.zeros(batch_size, dtype=torch.int64)
        self._written = self.lengths.clone()  # how far each row was ever written since empty
        self._windows = [config.window_of(layer) for layer in range(config.num_hidden_layers)]
        self._keys: list[Tensor] = []
        self._values: list[Tensor] = []
        for window in self._windows:
            shape = (batch_size, config.num_key_value_heads, self.slots(window), config.head_dim)
            self._keys.append(torch.zeros(shape, dtype=dtype, device=device))
            self._values.append(torch.zeros(shape, dtype=dtype, device=device))

    @property
    def batch_size(self) -> int:
        """Return B."""
        return self._keys[0].shape[0]

    @property
    def device(self) -> torch.device:
        """Return where the buffers are."""
        return self._keys[0].device

    @property
    def nbytes(self) -> int:
        """Return the size of all buffers in bytes."""
        return sum(buffer.nbytes for buffer in (*self._keys, *self._values))

    @property
    def longest_piece(self) -> int:
        """Return how many tokens one write may have (`chunk` where a ring can wrap around)."""
        wraps = any(self.slots(window) < self.max_length for window in self._windows)
        return self.chunk if wraps else self.max_length

    def slots(self, window: int | None) -> int:
        """Return how many slots a layer with this window has."""
        return self.max_length if window is None else min(self.max_length, window + self.chunk)

    def reset(self) -> None:
        """Forget every token; the buffers stay."""
        self.lengths.zero_()
        self._written.zero_()

    def buffers(self) -> tuple[list[Tensor], list[Tensor]]:
        """Return the keys and the values of every layer, (B, G, S, K) each, to be written to."""
        return self._keys, self._values

    def view(self, first: int, count: int) -> KVCache:
        """Return rows `first` to `first + count` as a cache that shares memory with this one.

        A forward pass through the view advances these rows here. Assign to neither cache's
        `lengths` while the view is in use; editing its elements is fine.
        """
        part = copy.copy(self)
        part.whole, part.first = self.whole or self, self.first + first
        rows = slice(first, first + count)
        part.lengths, part._written = self.lengths[rows], self._written[rows]
        part._keys = [buffer[rows] for buffer in self._keys]
        part._values = [buffer[rows] for buffer in self._values]
        return part

    def swap(self, a: int, b: int) -> None:
        """Exchange two rows."""
        used = int(torch.maximum(self._written[a], self._written[b]))
        for buffer, slots in self._buffers(used):
            kept = buffer[a, :, :slots].clone()
            buffer[a, :, :slots] = buffer[b, :, :slots]
            buffer[b, :, :slots] = kept
        for numbers in (self.lengths, self._written):
            numbers[[a, b]] = numbers[[b, a]]

    def copy_prefix(self, source: int, target: int, length: int) -> None:
        """Make row `target` hold the first `length` tokens of row `source` (see `keepable`)."""
        used = int(self._written[source])
        for (buffer, slots), window in zip(self._buffers(used), self._windows * 2, strict=True):
            if window is None:
                slots = length
            buffer[target, :, :slots] = buffer[source, :, :slots]
        self.lengths[target], self._written[target] = length, self._written[source]

    def keepable(self, row: int, length: int) -> int:
        """Return `length` if the row can be cut back to it (or copied so far), else 0.

        The rings of sliding layers may have lost what the next token needs.
        """
        for window in set(self._windows) - {None}:
            oldest_held = max(int(self._written[row]) - self.slots(window), 0)
            if oldest_held > max(length - (window or 0) + 1, 0):
                return 0
        return length

    def _buffers(self, used: int) -> list[tuple[Tensor, int]]:
        """Return each buffer, and how many slots hold something after `used` tokens."""
        slots = [min(self.slots(window), used) for window in self._windows]
        return list(zip((*self._keys, *self._values), slots * 2, strict=True))

    def truncate(self, lengths: Tensor | Sequence[int] | int) -> None:
        """Take back tokens: row b keeps its first `min(lengths[b], what it has)` tokens.

        Sliding layers can take back `chunk` tokens, or all; the next forward pass checks.
        """
        torch.minimum(self.lengths, torch.as_tensor(lengths).cpu().long(), out=self.lengths)

    def select(self, rows: Tensor | Sequence[int]) -> KVCache:
        """Keep these rows in this order (a row may come twice); changes the cache, returns it."""
        index_CPU = torch.as_tensor(rows).cpu().long()
        self.whole, self.first = None, 0
        self.lengths = self.lengths[index_CPU]
        self._written = self._written[index_CPU]
        index = index_CPU.to(self.device)
        self._keys = [buffer[index] for buffer in self._keys]
        self._values = [buffer[index] for buffer in self._values]
        return self

    def reserve(self, T: int) -> int:
        """Check that T more tokens fit, and return how many the longest row holds.

        Nothing is asked of the device: what knows where tokens go needs no more than this.

        Raises:
            ConfigError: they don't fit, or a ring lost tokens that are needed again.
        """
        longest = int(self.lengths.max())
        if longest + T > self.max_length:
            raise ConfigError(
                f"the KV cache holds max_length = {self.max_length} tokens; a row has {longest} "
                f"and {T} more were given: make the cache longer, or give fewer tokens"
            )
        for window in set(self._windows) - {None}:
            self._check_ring(window or 0)
        self._written[self.lengths == 0] = 0
        torch.maximum(self._written, self.lengths + T, out=self._written)
        return longest

    def begin(self, T: int) -> CacheStep:
        """Reserve T more tokens and say where they go; the model calls this once a pass.

        Raises:
            ConfigError: as `reserve`.
        """
        longest = self.reserve(T)
        uniform = bool((self.lengths == self.lengths[0]).all())
        start_B = self.lengths.to(self.device, copy=True)  # `advance` edits the lengths
        return CacheStep(self, T, start_B=start_B, longest=longest, uniform=uniform)

    def advance(self, counts: Tensor | int) -> None:
        """Add `counts` (B,) or a number to the lengths after a pass has written its tokens."""
        self.lengths += counts.cpu() if isinstance(counts, Tensor) else counts

    def write(
        self, layer: int, k_BGTK: Tensor, v_BGTK: Tensor, step: CacheStep
    ) -> tuple[Tensor, Tensor]:
        """Store the new keys and values; return those to attend to, (B, G, S, K) each."""
        keys, values = self._keys[layer], self._values[layer]
        slots_BT, S = step.where(self._windows[layer])
        keys[step.rows_B1, :, slots_BT] = k_BGTK.transpose(1, 2).to(keys.dtype)
        values[step.rows_B1, :, slots_BT] = v_BGTK.transpose(1, 2).to(values.dtype)
        return keys[:, :, :S].to(k_BGTK.dtype), values[:, :, :S].to(v_BGTK.dtype)

    def _check_ring(self, window: int) -> None:
        oldest_held_B = (self._written - self.slots(window)).clamp(min=0)
        oldest_needed_B = (self.lengths - window + 1).clamp(min=0)
        lost_B = (self.lengths > 0) & (oldest_held_B > oldest_needed_B)
        if lost_B.any():
            row = int(lost_B.nonzero()[0])
            raise ConfigError(
                f"KVCache: row {row} was cut back from {int(self._written[row])} to "
                f"{int(self.lengths[row])} tokens, but its sliding layers keep only the last "
                f"{self.slots(window)}: give token_counts with right-padded prompts, or make "
                f"KVCache with a chunk above {self.chunk}"
            )


class CacheStep:
    """Where the tokens of one forward pass go, computed once for all layers.

    Attributes:
        start_B: (B,) tokens that each row held before.
        rows_B1: (B, 1) row numbers, to index with.
        empty: no row held a token.
        uniform: all rows held equally many.
    """

    def __init__(
        self, cache: KVCache, T: int, *, start_B: Tensor, longest: int, uniform: bool
    ) -> None:
        self.start_B = start_B
        self.T = T
        self.uniform = uniform
        self.empty = longest == 0
        self._end = longest + T
        device = start_B.device
        self.rows_B1 = torch.arange(start_B.shape[0], device=device)[:, None]
        self.positions_BT = start_B[:, None] + torch.arange(T, device=device)
        self._where: dict[int | None, tuple[Tensor, int]] = {}
        self._ring = {window: cache.slots(window) for window in set(cache._windows)}

    def where(self, window: int | None) -> tuple[Tensor, int]:
        """Return the slots that are written, (B, T), and how many slots S are read."""
        if window not in self._where:
            ring = self._ring[window]
            self._where[window] = (self.positions_BT % ring, min(self._end, ring))
        return self._where[window]

    def allowed(self, window: int | None) -> Tensor:
        """Return which slots each query sees, (B, 1, T, S) bool."""
        slots_BT, S = self.where(window)
        slot_S = torch.arange(S, device=slots_BT.device)
        query_BT1 = self.positions_BT[:, :, None]
        if window is None:
            return (slot_S <= query_BT1)[:, None]
        # Slot j holds the newest token p with p mod ring == j; negative: nothing was written yet.
        newest_B1 = self.start_B[:, None] + (self.T - 1)
        token_B1S = (newest_B1 - (newest_B1 - slot_S) % self._ring[window])[:, None, :]
        seen_BTS = (token_B1S >= 0) & (token_B1S <= query_BT1) & (token_B1S > query_BT1 - window)
        return seen_BTS[:, None]
