"""Rows to token ids, fed to a packer: the part of loading that differs between kinds."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from minimind.config import DataConfig
from minimind.data.batch import IGNORE
from minimind.data.formats import ChatRow, Message, PreferenceRow, TextRow
from minimind.data.packing import PackedRow, Packer, StreamPacker, WholePacker, shifted_labels
from minimind.data.reader import Rejects
from minimind.data.stream import Drawn
from minimind.errors import DataError
from minimind.tokenizer import Tokenizer

Side = tuple[np.ndarray, np.ndarray]
"""(n,) ids and (n,) labels of one side of a preference pair."""


@dataclass(frozen=True, slots=True)
class Item:
    """One encoded row; without ids it was rejected, and keeps its place in the order."""

    ids: Sequence[int] = ()
    mask: Sequence[bool] | None = None
    pair: tuple[Side, Side] | None = None

    @property
    def documents(self) -> int:
        """Return 1, or 0 if the row was rejected."""
        return int(bool(self.ids) or self.pair is not None)

    @property
    def tokens(self) -> int:
        """Return the tokens of the row (both sides of a pair)."""
        return len(self.ids) + (sum(len(ids) for ids, _ in self.pair) if self.pair else 0)


class Encoder:
    """Encodes rows of one kind and packs them."""

    def __init__(self, config: DataConfig, tokenizer: Tokenizer, rejects: Rejects) -> None:
        self.config, self.tokenizer, self.rejects = config, tokenizer, rejects
        self.length = config.sequence_length
        self._packer = self._make_packer()
        self._ready: deque[PackedRow | tuple[Side, Side]] = deque()

    def _make_packer(self) -> Packer:
        config, end = self.config, self.tokenizer.endoftext_id
        if config.kind == "text" and config.pack:
            return StreamPacker(length=self.length, endoftext_id=end)
        if config.pack:
            return WholePacker(length=self.length, endoftext_id=end)
        return WholePacker(length=self.length, endoftext_id=end, open_rows=0)

    def encode(self, chunk: Sequence[Drawn]) -> Iterator[Item]:
        """Yield one item a row, in order; what has nothing to learn is rejected with its place."""
        if self.config.kind == "text":
            texts = [drawn.row.text for drawn in chunk if isinstance(drawn.row, TextRow)]
            start, end = self.tokenizer.document_start_id, self.tokenizer.endoftext_id
            # The stream packer marks where documents begin and end; rows of their own need it here,
            # and so does a vocabulary with another mark for the beginning.
            opening = [] if self.config.pack and start == end else [start]
            ending = [] if self.config.pack else [end]
            for ids in self.tokenizer.encode_batch(texts):
                yield Item(opening + ids + ending)
            return
        for drawn in chunk:
            try:
                if isinstance(drawn.row, ChatRow):
                    yield self._chat(drawn.row)
                elif isinstance(drawn.row, PreferenceRow):
                    yield self._preference(drawn.row)
            except DataError as error:
                raw = json.dumps(asdict(drawn.row), ensure_ascii=False).encode(errors="replace")
                self.rejects.add(drawn.file, drawn.line, str(error), raw)
                yield Item()

    def _chat(self, row: ChatRow) -> Item:
        rendered = self.tokenizer.render(row.messages, tools=row.tools)
        # The first token is never a target; the last that fits is.
        if not any(rendered.mask[1 : self.length]):
            raise DataError("nothing to learn: the answer begins beyond data.sequence_length")
        return Item(rendered.ids, rendered.mask)

    def _preference(self, row: PreferenceRow) -> Item:
        shared = 0
        for chosen, rejected in zip(row.chosen[:-1], row.rejected[:-1], strict=False):
            if chosen != rejected:
                break
            shared += 1
        return Item(pair=(self._side(row.chosen, shared), self._side(row.rejected, shared)))

    def _side(self, messages: list[Message], shared: int) -> Side:
        """Return ids and labels of one side; what both sides share is context, not learnt."""
        rendered = self.tokenizer.render(messages)
        mask = list(rendered.mask)
        if any(message["role"] == "assistant" for message in messages[:shared]):
            context = len(self.tokenizer.render(messages[:shared]).ids)
            mask[:context] = [False] * context
        ids = np.array(rendered.ids[: self.length], np.int64)
        labels = shifted_labels(rendered.ids[: self.length], mask[: self.length])
        if not (labels != IGNORE).any():
            raise DataError("nothing to learn: an answer begins beyond data.sequence_length")
        return ids, labels

    def add(self, item: Item) -> bool:
        """Give an item to the packer. False if it was longer than a row and was cut."""
        if item.pair is not None:
            self._ready.append(item.pair)
            return all(len(ids) < self.length for ids, _ in item.pair)
        return self._packer.add(item.ids, item.mask) if item.ids else True

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
