"""Token ids to rows: documents concatenated, or conversations packed whole.

A packer is fed one document at a time, gives complete rows, and its state is what it still holds.
Legend: T positions in a row, n tokens of one document.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

from minimind.data.batch import IGNORE, Batch
from minimind.data.items import shifted_labels

Ids = Sequence[int] | np.ndarray
Mask = Sequence[bool] | np.ndarray | None

OPEN_ROWS = 32
"""Rows that a conversation may still be put into. First-fit over 32 left 1.8 % of the positions
empty on the built SFT set (19,489 conversations, rows of 512)."""


@dataclass(frozen=True, slots=True)
class PackedRow:
    """One row of T positions; `documents` counts from 0 within the row, padding is -1."""

    input_ids: np.ndarray
    labels: np.ndarray
    documents: np.ndarray


class Packer(Protocol):
    """Takes documents, gives rows."""

    def add(self, ids: Ids, mask: Mask = None) -> bool:
        """Take a document; `mask` tells which tokens are learnt. False if it was cut."""
        ...

    def take(self) -> PackedRow | None:
        """Return the next complete row, or None until more is added."""
        ...

    def flush(self) -> None:
        """Close what is incomplete, padded: no more documents will come."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return what is held and not yet taken."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Hold what another packer held."""
        ...


class StreamPacker:
    """Documents, each opened by <|endoftext|>, as one stream cut into rows of T.

    The mark that opens a document is also the label of the last token before it: every token is
    learnt exactly once, the first one and the end of each document included, and attention still
    stays inside (the mark belongs to the document that it opens). The rows' input ids,
    concatenated, are the stream; the label of a row's last position is the next row's first token.
    """

    def __init__(self, *, length: int, endoftext_id: int) -> None:
        self.length, self.endoftext_id = length, endoftext_id
        self._tokens = np.empty(0, np.int32)
        self._starts = np.empty(0, np.bool_)
        self._mark = np.array([endoftext_id], np.int32)
        self._new: list[np.ndarray] = []
        self._new_starts: list[int] = []
        self._new_size = 0
        self._closed = False

    def add(self, ids: Ids, mask: Mask = None) -> bool:
        """Append a document. Never cut, so always True."""
        del mask  # in a text every token is learnt
        self._open()
        self._new.append(np.asarray(ids, np.int32))
        self._new_size += len(ids)
        return True

    def take(self) -> PackedRow | None:
        """Return the next T positions once their labels are known."""
        if len(self._tokens) + self._new_size <= self.length and not self._closed:
            return None
        self._merge()
        if len(self._tokens) <= 1:  # at most the mark that closed the last document
            return None
        row = self._row(self._tokens[: self.length + 1], self._starts[: self.length])
        self._tokens, self._starts = self._tokens[self.length :], self._starts[self.length :]
        return row

    def flush(self) -> None:
        """Close the last document, and let `take` give the last, shorter row, padded."""
        if not self._closed:
            self._open()
        self._closed = True

    def _open(self) -> None:
        self._new_starts.append(self._new_size)
        self._new.append(self._mark)
        self._new_size += 1

    def _merge(self) -> None:
        if self._new:
            starts = np.zeros(self._new_size, np.bool_)
            starts[self._new_starts] = True
            self._tokens = np.concatenate([self._tokens, *self._new], dtype=np.int32)
            self._starts = np.concatenate([self._starts, starts])
            self._new, self._new_starts, self._new_size = [], [], 0

    def _row(self, tokens: np.ndarray, starts: np.ndarray) -> PackedRow:
        inputs = np.full(self.length, self.endoftext_id, np.int64)
        labels = np.full(self.length, IGNORE, np.int64)
        documents = np.full(self.length, -1, np.int64)
        n = len(tokens) - 1
        inputs[:n], labels[:n] = tokens[:-1], tokens[1:]
        # A document that began in an earlier row is number 0 here too.
        documents[:n] = np.cumsum(starts[:n]) - int(starts[0])
        return PackedRow(inputs, labels, documents)

    def state_dict(self) -> dict[str, Any]:
        """Return the tokens not yet in a row: at most the rest of one document and a row."""
        self._merge()
        return {
            "tokens": torch.from_numpy(self._tokens.copy()),
            "starts": torch.from_numpy(self._starts.copy()),
            "closed": self._closed,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Hold what another packer held."""
        self._tokens, self._starts = state["tokens"].numpy(), state["starts"].numpy()
        self._new, self._new_starts, self._new_size = [], [], 0
        self._closed = state["closed"]


class WholePacker:
    """Documents kept whole: put first-fit into one of a few open rows, padded at the end.

    Longer ones are cut at T. `open_rows=0` gives every document a row of its own.
    """

    def __init__(self, *, length: int, endoftext_id: int, open_rows: int = OPEN_ROWS) -> None:
        self.length, self.endoftext_id, self.open_rows = length, endoftext_id, open_rows
        self._open: list[list[tuple[np.ndarray, np.ndarray]]] = []
        self._full: list[list[tuple[np.ndarray, np.ndarray]]] = []

    def add(self, ids: Ids, mask: Mask = None) -> bool:
        """Put a document into the first open row with room; the fullest row makes room."""
        tokens = np.array(ids[: self.length], np.int64)
        labels = shifted_labels(ids, mask)[: self.length]
        if self.open_rows == 0:
            self._full.append([(tokens, labels)])
            return len(ids) <= self.length
        for row in self._open:
            if _used(row) + len(tokens) <= self.length:
                row.append((tokens, labels))
                break
        else:
            if len(self._open) == self.open_rows:
                fullest = max(range(self.open_rows), key=lambda i: _used(self._open[i]))
                self._full.append(self._open.pop(fullest))
            self._open.append([(tokens, labels)])
        return len(ids) <= self.length

    def take(self) -> PackedRow | None:
        """Return the next closed row."""
        if not self._full:
            return None
        inputs = np.full(self.length, self.endoftext_id, np.int64)
        labels = np.full(self.length, IGNORE, np.int64)
        documents = np.full(self.length, -1, np.int64)
        at = 0
        for number, (tokens, learnt) in enumerate(self._full.pop(0)):
            end = at + len(tokens)
            inputs[at:end], labels[at:end], documents[at:end] = tokens, learnt, number
            at = end
        return PackedRow(inputs, labels, documents)

    def flush(self) -> None:
        """Close every open row."""
        self._full += self._open
        self._open = []

    def state_dict(self) -> dict[str, Any]:
        """Return the open rows and the closed ones not yet taken."""
        return {"open": [_stored(row) for row in self._open],
                "full": [_stored(row) for row in self._full]}  # fmt: skip

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Hold what another packer held."""
        self._open = [_restored(row) for row in state["open"]]
        self._full = [_restored(row) for row in state["full"]]


def _used(row: list[tuple[np.ndarray, np.ndarray]]) -> int:
    return sum(len(tokens) for tokens, _ in row)


def _stored(row: list[tuple[np.ndarray, np.ndarray]]) -> list[list[torch.Tensor]]:
    return [[torch.from_numpy(tokens), torch.from_numpy(labels)] for tokens, labels in row]


def _restored(row: list[list[torch.Tensor]]) -> list[tuple[np.ndarray, np.ndarray]]:
    return [(tokens.numpy(), labels.numpy()) for tokens, labels in row]


def positions(documents: np.ndarray) -> np.ndarray:
    """Return (B, T) positions counted from 0 within each document of each row."""
    B, T = documents.shape
    index = np.broadcast_to(np.arange(T), (B, T))
    begins = np.ones((B, T), np.bool_)
    begins[:, 1:] = documents[:, 1:] != documents[:, :-1]
    return index - np.maximum.accumulate(np.where(begins, index, 0), axis=1)


def collate(rows: Sequence[PackedRow], *, document_mask: bool) -> Batch:
    """Stack rows into a `Batch`; boundaries are given only with `document_mask`."""
    documents = np.stack([row.documents for row in rows])
    return Batch(
        input_ids=torch.from_numpy(np.stack([row.input_ids for row in rows])),
        labels=torch.from_numpy(np.stack([row.labels for row in rows])),
        position_ids=torch.from_numpy(positions(documents)) if document_mask else None,
        document_ids=torch.from_numpy(documents) if document_mask else None,
    )


def collate_pairs(
    sides: Sequence[tuple[np.ndarray, np.ndarray]], *, pad_id: int, length: int
) -> Batch:
    """Pad (tokens, labels) of chosen and rejected sides, in turn, to the longest of them.

    Rounded up to a quarter of `length`: torch.compile then meets four shapes, not hundreds.
    """
    quarter = -(-length // 4)
    longest = max(len(tokens) for tokens, _ in sides)
    longest = min(length, -(-longest // quarter) * quarter)
    inputs = np.full((len(sides), longest), pad_id, np.int64)
    labels = np.full((len(sides), longest), IGNORE, np.int64)
    for row, (tokens, learnt) in enumerate(sides):
        inputs[row, : len(tokens)], labels[row, : len(tokens)] = tokens, learnt
    return Batch(input_ids=torch.from_numpy(inputs), labels=torch.from_numpy(labels))
