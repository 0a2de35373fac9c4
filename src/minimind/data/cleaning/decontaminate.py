"""Decontamination: documents that hold a question of an evaluation set."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from minimind.data.cleaning import characters as ch
from minimind.data.cleaning.page import Drop, Filter, Page, ngrams
from minimind.data.document import Document
from minimind.data.reader import Cursor, Rejects, expand_paths, read_lines
from minimind.errors import DataError

_SPARSE = 16
"""Slots of the bitmap for each n-gram: one in sixteen characters is looked up for nothing."""
_FIELDS = ("question", "query", "prompt", "instruction", "problem", "text", "context", "passage",
           "sentence", "content", "input")  # fmt: skip


@dataclass(frozen=True)
class Index:
    """The n-grams of evaluation items.

    Attributes:
        hashes: (n-grams,) uint64, sorted.
        items: (n-grams,) int64: the number of the item that the n-gram is from.
        sizes: (items,) int64: different n-grams of each item.
        texts: the items.
        marked: (slots,) bool: low bits of the hashes, which most documents miss altogether.
        too_short: items shorter than n characters, which can't be looked for.
    """

    hashes: np.ndarray
    items: np.ndarray
    sizes: np.ndarray
    texts: list[str]
    marked: np.ndarray
    too_short: int


@lru_cache(maxsize=4)
def build_index(paths: tuple[str, ...], n: int) -> Index:
    """Return the index of JSONL evaluation files: every field of a row that asks something.

    Raises:
        DataError: a file isn't there, or none has anything to look for.
    """
    texts = list(dict.fromkeys(text for path in expand_paths(paths) for text in _items(path)))
    page = Page(Document("\n".join(text.replace("\n", " ") for text in texts), ""))
    number = np.cumsum(page.kinds == ch.NEWLINE)[page.is_content]  # the item of each letter
    hashes = ngrams(page.content, n)
    if not len(hashes):
        raise DataError(
            f"rules.decontaminate.against: nothing to look for in {', '.join(paths)}: expected "
            f"JSONL rows with one of {', '.join(_FIELDS)}"
        )
    whole = number[: len(hashes)] == number[n - 1 :]  # n-grams that lie in one item
    hashes, items = hashes[whole], number[: len(whole)][whole]
    order = np.lexsort((items, hashes))
    hashes, items = hashes[order], items[order]
    first = np.concatenate(([True], (np.diff(hashes) != 0) | (np.diff(items) != 0)))[: len(hashes)]
    hashes, items = hashes[first], items[first]
    sizes = np.bincount(items, minlength=len(texts))
    marked = np.zeros(1 << (_SPARSE * max(len(hashes), 1)).bit_length(), bool)
    marked[_slots(hashes, marked)] = True
    return Index(hashes, items, sizes, texts, marked, int((sizes == 0).sum()))


def _items(path: Path) -> Iterator[str]:
    for _, line in read_lines(path, Cursor(), Rejects()):
        try:
            row: Any = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict):
            for field in _FIELDS:
                if isinstance(value := row.get(field), str) and value.strip():
                    yield value


@dataclass(frozen=True, kw_only=True)
class Decontaminate(Filter):
    """A document that holds an evaluation item, looked for by runs of `n` letters and digits.

    Punctuation and spaces don't count. At least `cover` of an item's n-grams must be in the
    document: a phrase that any statute may have in common with a question is not enough.
    """

    against: tuple[str, ...] = ()
    n: int = 13
    cover: float = 0.5

    def check(self, page: Page) -> Drop | None:
        """Return the item that the document holds."""
        if not self.against or len(page.content) < self.n:
            return None
        index = build_index(self.against, self.n)
        hashes = ngrams(page.content, self.n)
        near = index.marked[_slots(hashes, index.marked)]
        if not near.any():
            return None
        hashes = np.unique(hashes[near])
        first = np.searchsorted(index.hashes, hashes, "left")
        last = np.searchsorted(index.hashes, hashes, "right")
        places = [np.arange(a, b) for a, b in zip(first, last, strict=True) if b > a]
        if not places:
            return None
        items, counts = np.unique(index.items[np.concatenate(places)], return_counts=True)
        shares = counts / index.sizes[items]
        best = int(shares.argmax())
        if shares[best] < self.cover:
            return None
        text = index.texts[int(items[best])]
        return Drop(f"{shares[best]:.0%} of the evaluation item {text[:40]!r}", _span(page, text))


def _slots(hashes: np.ndarray, marked: np.ndarray) -> np.ndarray:
    return (hashes & np.uint64(len(marked) - 1)).astype(np.int64)


def _span(page: Page, item: str) -> tuple[tuple[int, int], ...]:
    """Return where the document has most of the item, found by its longest whole line."""
    for size in (len(item), 60, 30, 13):
        for start in range(0, max(len(item) - size, 0) + 1, max(size // 2, 1)):
            piece = item[start : start + size]
            if (at := page.text.find(piece)) >= 0:
                return ((at, at + len(piece)),)
    return ()
