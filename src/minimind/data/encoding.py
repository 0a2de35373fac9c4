"""Rows to token ids, fed to a packer: here, or in processes of their own."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import asdict
from typing import Any

import numpy as np

from minimind.config import DataConfig
from minimind.data.items import Item, RowEncoder, shifted_labels
from minimind.data.packing import PackedRow, Packer, StreamPacker, WholePacker
from minimind.data.rejects import Rejects
from minimind.data.tables import as_json
from minimind.data.windows import Drawn
from minimind.data.workers import Workers
from minimind.tokenizer import Tokenizer

LabelledSide = tuple[np.ndarray, np.ndarray]
"""(n,) ids and (n,) labels of one side of a preference pair."""


class PendingChunk:
    """Rows on their way to becoming items: those that a cache had are there already."""

    def __init__(
        self, chunk: Sequence[Drawn], encoded: Sequence[Item] | Future[list[Item]]
    ) -> None:
        self.chunk, self._encoded = chunk, encoded

    def items(self) -> list[Item]:
        """Return one item a row, in order; waits for a worker if one has them."""
        encoded = self._encoded.result() if isinstance(self._encoded, Future) else self._encoded
        fresh = iter(encoded)
        return [drawn.item if drawn.item is not None else next(fresh) for drawn in self.chunk]


class Encoder:
    """Encodes rows of one kind and packs them.

    Args:
        config: kind and shape of rows.
        tokenizer: gives the ids.
        rejects: where rows with nothing to learn go.
        workers: processes that encode; None: this one does.
    """

    def __init__(
        self, config: DataConfig, tokenizer: Tokenizer, rejects: Rejects,
        workers: Workers | None = None,
    ) -> None:  # fmt: skip
        self.config, self.tokenizer, self.rejects = config, tokenizer, rejects
        self.length = config.sequence_length
        self._workers = workers
        self._rows = RowEncoder(config, tokenizer)
        self._packer = self._make_packer()
        self._ready: deque[PackedRow | tuple[LabelledSide, LabelledSide]] = deque()

    def _make_packer(self) -> Packer:
        config, end = self.config, self.tokenizer.endoftext_id
        if config.kind == "text" and config.pack:
            return StreamPacker(length=self.length, endoftext_id=end)
        if config.pack:
            return WholePacker(length=self.length, endoftext_id=end)
        return WholePacker(length=self.length, endoftext_id=end, open_rows=0)

    def start(self, chunk: Sequence[Drawn]) -> PendingChunk:
        """Begin to encode a chunk: with workers it returns at once."""
        rows = [drawn.row for drawn in chunk if drawn.row is not None]
        if self._workers is not None:
            return PendingChunk(chunk, self._workers.encode(rows) if rows else [])
        return PendingChunk(chunk, self._rows.encode(rows))

    def finish(self, pending: PendingChunk) -> list[Item]:
        """Return a chunk's items; what has nothing to learn is rejected with its place."""
        items = pending.items()
        for drawn, item in zip(pending.chunk, items, strict=True):
            if item.reason and drawn.row is not None:
                raw = as_json(asdict(drawn.row))
                self.rejects.add(drawn.file, drawn.line, item.reason, raw)
            if drawn.shard is not None:
                drawn.shard.put(drawn.number, item)
        return items

    def add(self, item: Item) -> bool:
        """Give an item to the packer. False if it was longer than a row and was cut."""
        if item.pair is not None:
            chosen, rejected = (
                (ids.astype(np.int64), shifted_labels(ids, mask)) for ids, mask in item.pair
            )
            self._ready.append((chosen, rejected))
            return all(len(ids) < self.length for ids, _ in item.pair)
        return self._packer.add(item.ids, item.mask) if item.documents else True

    def flush(self) -> None:
        """Close what is incomplete."""
        self._packer.flush()

    def ready(self, rows: int) -> bool:
        """Tell whether that many rows (or pairs) are complete."""
        while len(self._ready) < rows and (row := self._packer.take()) is not None:
            self._ready.append(row)
        return len(self._ready) >= rows

    def take(self, rows: int) -> list[Any]:
        """Return up to that many rows (or pairs), fewer if fewer are complete."""
        self.ready(rows)
        return [self._ready.popleft() for _ in range(min(rows, len(self._ready)))]

    def packer_state(self) -> dict[str, Any]:
        """Return what is held between steps (after `take`, nothing else is)."""
        return self._packer.state_dict()

    def packer_load(self, state: dict[str, Any]) -> None:
        """Hold what another encoder held."""
        self._packer.load_state_dict(state)
