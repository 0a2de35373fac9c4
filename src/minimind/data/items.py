"""Rows to token ids: a pure function of the row, so any process may compute it. No torch here.

Legend: n tokens of one row.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from minimind.config import DataConfig
from minimind.data.formats import ChatRow, Message, PreferenceRow, Row, TextRow
from minimind.errors import DataError
from minimind.tokenizer import Tokenizer

IGNORE = -100
"""Label of a position where nothing is learnt (torch's and Hugging Face's convention)."""

PART_CHARACTERS = 1 << 19
"""A longer text is encoded in parts, cut where a sentence or line ends: the encoder's memory grows
with the longest stretch that it is given."""
_CUT = re.compile(r"(?<=[。！？\n])")

Side = tuple[np.ndarray, np.ndarray]
"""(n,) ids and (n,) whether each is learnt, of one side of a preference pair."""


@dataclass(frozen=True, slots=True)
class Item:
    """One encoded row; without ids it was rejected for `reason`, and keeps its place in the order.

    Attributes:
        ids: (n,) int32 token ids.
        mask: (n,) bool, which of them are learnt; None: all.
        pair: the sides of a preference pair, which has no `ids`.
    """

    ids: np.ndarray
    mask: np.ndarray | None = None
    pair: tuple[Side, Side] | None = None
    reason: str = ""

    @property
    def documents(self) -> int:
        """Return 1, or 0 if the row was rejected."""
        return int(len(self.ids) > 0 or self.pair is not None)

    @property
    def tokens(self) -> int:
        """Return the tokens of the row (both sides of a pair)."""
        return len(self.ids) + (sum(len(ids) for ids, _ in self.pair) if self.pair else 0)


_NONE = np.empty(0, np.int32)


class RowEncoder:
    """Encodes rows of one kind as `config` says."""

    def __init__(self, config: DataConfig, tokenizer: Tokenizer) -> None:
        self.config, self.tokenizer = config, tokenizer
        self.length = config.sequence_length

    def encode(self, rows: Sequence[Row]) -> list[Item]:
        """Return one item a row, in order; with nothing to learn it has a reason, not ids."""
        if self.config.kind == "text":
            return self._texts([row.text for row in rows if isinstance(row, TextRow)])
        return [self._one(row) for row in rows]

    def _texts(self, texts: Sequence[str]) -> list[Item]:
        start, end = self.tokenizer.document_start_id, self.tokenizer.endoftext_id
        # The stream packer marks where documents begin and end; rows of their own need it here,
        # and so does a vocabulary with another mark for the beginning.
        opening = [] if self.config.pack and start == end else [start]
        ending = [] if self.config.pack else [end]
        parts = [_parts(text) for text in texts]
        encoded = iter(self.tokenizer.encode_batch([part for text in parts for part in text]))
        items = []
        for text in parts:
            ids = [*opening, *(token for _ in text for token in next(encoded)), *ending]
            items.append(Item(np.array(ids, np.int32)))
        return items

    def _one(self, row: Row) -> Item:
        try:
            if isinstance(row, ChatRow):
                return self._chat(row)
            assert isinstance(row, PreferenceRow)
            return self._preference(row)
        except DataError as error:
            return Item(_NONE, reason=str(error))

    def _chat(self, row: ChatRow) -> Item:
        rendered = self.tokenizer.render(row.messages, tools=row.tools)
        # The first token is never a target; the last that fits is.
        if not any(rendered.mask[1 : self.length]):
            raise DataError("nothing to learn: the answer begins beyond data.sequence_length")
        return Item(np.array(rendered.ids, np.int32), np.array(rendered.mask, np.bool_))

    def _preference(self, row: PreferenceRow) -> Item:
        shared = 0
        for chosen, rejected in zip(row.chosen[:-1], row.rejected[:-1], strict=False):
            if chosen != rejected:
                break
            shared += 1
        sides = self._side(row.chosen, shared), self._side(row.rejected, shared)
        return Item(_NONE, pair=sides)

    def _side(self, messages: list[Message], shared: int) -> Side:
        """Return ids and mask of one side; what both sides share is context, not learnt."""
        rendered = self.tokenizer.render(messages)
        mask = np.array(rendered.mask[: self.length], np.bool_)
        if any(message["role"] == "assistant" for message in messages[:shared]):
            mask[: len(self.tokenizer.render(messages[:shared]).ids)] = False
        if not mask[1:].any():
            raise DataError("nothing to learn: an answer begins beyond data.sequence_length")
        return np.array(rendered.ids[: self.length], np.int32), mask


def _parts(text: str) -> list[str]:
    """Return a text in parts of at most about `PART_CHARACTERS`; nearly always it is one."""
    if len(text) <= PART_CHARACTERS:
        return [text]
    parts, size = [[]], 0
    for sentence in _CUT.split(text):
        for start in range(0, len(sentence), PART_CHARACTERS):
            piece = sentence[start : start + PART_CHARACTERS]
            if size + len(piece) > PART_CHARACTERS and parts[-1]:
                parts.append([])
                size = 0
            parts[-1].append(piece)
            size += len(piece)
    return ["".join(part) for part in parts]


def shifted_labels(
    ids: np.ndarray | Sequence[int], mask: np.ndarray | Sequence[bool] | None
) -> np.ndarray:
    """Return (n,) labels: the next token where the mask has it learnt; the last has none."""
    labels = np.full(len(ids), IGNORE, np.int64)
    labels[:-1] = ids[1:]
    if mask is not None:
        labels[:-1][~np.asarray(mask[1:], np.bool_)] = IGNORE
    return labels
