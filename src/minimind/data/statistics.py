"""What a data set is made of: documents, characters, tokens, lengths, kinds of characters, copies.

One pass, bounded memory: lengths in doubling bins, copies by 8-byte hashes of whole documents.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from minimind.data.formats import ChatRow, Kind, PreferenceRow, Row, TextRow
from minimind.data.reader import Origin, read_rows
from minimind.data.rejects import Rejects
from minimind.data.sources.text import count_hanzi
from minimind.errors import MiniMindError
from minimind.tokenizer import Tokenizer

BATCH_ROWS = 512
MOST_HASHES = 50_000_000
"""Documents whose hash is kept for counting copies: about 4 GB; what comes later isn't compared."""

CLASSES: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("hanzi", re.compile(r"[\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")),
    ("Chinese punctuation", re.compile(r"[\u3000-\u303f\uff01-\uff65‘’“”…—·]")),
    ("Latin letters", re.compile(r"[A-Za-z\u00c0-\u024f]")),
    ("digits", re.compile(r"[0-9]")),
    ("white space", re.compile(r"\s")),
    ("ASCII punctuation", re.compile(r"[!-/:-@\[-`{-~]")),
    ("kana", re.compile(r"[\u3041-\u30ff]")),
    ("control, replacement", re.compile(r"[\x00-\x08\x0b\x0e-\x1f\x7f\u200b-\u200f\ufeff\ufffd]")),
)  # fmt: skip
"""The first that fits counts; what fits none is `other`."""


@dataclass(slots=True)
class Histogram:
    """Counts in doubling bins: 0, 1, 2-3, 4-7, 8-15, ..."""

    bins: Counter[int] = field(default_factory=Counter)
    total: int = 0
    count: int = 0
    longest: int = 0

    def add(self, value: int) -> None:
        """Count one value."""
        self.bins[value.bit_length()] += 1
        self.total += value
        self.count += 1
        self.longest = max(self.longest, value)

    @property
    def mean(self) -> float:
        """Return the mean; 0 of nothing."""
        return self.total / self.count if self.count else 0.0

    def rows(self) -> list[tuple[int, int, int]]:
        """Return (from, to, count) of each bin up to the last that has any."""
        if not self.bins:
            return []
        spans = [(1 << (b - 1) if b else 0, (1 << b) - 1) for b in range(max(self.bins) + 1)]
        found = [(low, high, self.bins[b]) for b, (low, high) in enumerate(spans)]
        while found and not found[0][2]:
            found.pop(0)
        return found


@dataclass(slots=True)
class Statistics:
    """What one origin holds.

    Attributes:
        characters: of each document. `tokens` likewise, when a tokenizer counts them.
        copies: documents that had been seen, in this origin or an earlier one.
        repeated: (times, beginning) of the most frequent documents.
        rejected: rows that can't be used, by reason.
    """

    name: str
    kind: Kind
    documents: int = 0
    bytes: int = 0
    hanzi: int = 0
    characters: Histogram = field(default_factory=Histogram)
    tokens: Histogram = field(default_factory=Histogram)
    classes: Counter[str] = field(default_factory=Counter)
    copies: int = 0
    repeated: list[tuple[int, str]] = field(default_factory=list)
    rejected: Counter[str] = field(default_factory=Counter)

    def as_dict(self) -> dict[str, Any]:
        """Return all figures as builtins, for JSON."""
        plain: dict[str, Any] = {
            "name": self.name, "kind": self.kind, "documents": self.documents, "bytes": self.bytes,
            "hanzi": self.hanzi, "classes": dict(self.classes), "copies": self.copies,
            "repeated": self.repeated, "rejected": dict(self.rejected),
        }  # fmt: skip
        for name, histogram in (("characters", self.characters), ("tokens", self.tokens)):
            plain[name] = {"total": histogram.total, "mean": histogram.mean,
                           "longest": histogram.longest, "histogram": histogram.rows()}  # fmt: skip
        return plain


class Gatherer:
    """Gathers statistics of one origin after another.

    Args:
        tokenizer: counts tokens as the model will see them; None: no tokens.
        limit: at most so many rows of each origin.
    """

    def __init__(self, tokenizer: Tokenizer | None, *, limit: int | None = None) -> None:
        self.tokenizer, self.limit = tokenizer, limit
        self._seen: Counter[bytes] = Counter()

    def gather(self, origin: Origin, kind: Kind) -> Statistics:
        """Read one origin to its end (or to the limit)."""
        name = origin.name if isinstance(origin, Path) else str(origin)
        found, rejects = Statistics(name, kind), Rejects()
        starts: dict[bytes, str] = {}
        counted: Counter[bytes] = Counter()
        rows = islice(read_rows(origin, kind, rejects=rejects), self.limit)
        while batch := [row for _, _, row in islice(rows, BATCH_ROWS)]:
            texts = [row_text(row) for row in batch]
            for text in texts:
                self._count(found, text)
                digest = hashlib.blake2b(text.encode(errors="replace"), digest_size=8).digest()
                if digest in self._seen:
                    found.copies += 1
                    counted[digest] += 1
                    starts.setdefault(digest, text[:60])
                if digest in self._seen or len(self._seen) < MOST_HASHES:
                    self._seen[digest] += 1
            for tokens in self._token_counts(batch, texts):
                found.tokens.add(tokens)
        found.repeated = [(self._seen[d], starts[d]) for d, _ in counted.most_common(5)]
        found.rejected = rejects.counts
        return found

    def _count(self, found: Statistics, text: str) -> None:
        found.documents += 1
        found.bytes += len(text.encode(errors="replace"))
        found.characters.add(len(text))
        found.hanzi += count_hanzi(text)
        rest = text
        for name, pattern in CLASSES:
            rest, number = pattern.subn("", rest)
            if number:
                found.classes[name] += number
        if rest:
            found.classes["other"] += len(rest)

    def _token_counts(self, rows: Sequence[Row], texts: Sequence[str]) -> Iterable[int]:
        if self.tokenizer is None:
            return
        if rows and isinstance(rows[0], TextRow):
            yield from (len(ids) + 1 for ids in self.tokenizer.encode_batch(texts))
            return
        for row in rows:
            try:
                yield len(self._ids(row))
            except MiniMindError:
                continue  # training rejects it with its reason

    def _ids(self, row: Row) -> list[int]:
        assert self.tokenizer is not None
        if isinstance(row, ChatRow):
            return list(self.tokenizer.render(row.messages, tools=row.tools).ids)
        assert isinstance(row, PreferenceRow)
        sides = (self.tokenizer.render(side).ids for side in (row.chosen, row.rejected))
        return [token for side in sides for token in side]


def row_text(row: Row) -> str:
    """Return all that a row says, without its markup."""
    if isinstance(row, TextRow):
        return row.text
    messages = row.chosen + row.rejected[-1:] if isinstance(row, PreferenceRow) else row.messages
    return "\n".join(str(message["content"]) for message in messages)
