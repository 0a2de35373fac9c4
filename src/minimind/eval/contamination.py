"""Was an item trained on? Its 13-grams of characters, looked up in the training documents.

An item counts as found when any 13 characters in a row of it (letters, digits and hanzi; the rest
is passed over) stand in a training document. 13 as in GPT-3's analysis (Brown et al. 2020,
appendix C), there in words: thirteen hanzi are about seven words, so this finds more. It also
finds items that merely quote the same law or name; `Hit.share` tells those from copies.
Stretches that many items share ("下列关于……的说法正确的是") are mere wording and don't count.

Grams are compared as 64-bit hashes, and each hit is then compared as text: no false alarms.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from minimind.eval.tasks.base import Item, Outcome

GRAM = 13
COMMON = 10
"""A gram of this many items of one task is part of how they are worded."""
_PASSED_OVER = re.compile(r"[\W_]+")
_BASE = np.uint64(0x9E3779B97F4A7C15)
"""Odd multiplier of the polynomial hash (2^64 over the golden ratio)."""


@dataclass(frozen=True, slots=True)
class Hit:
    """Where an item was found.

    Attributes:
        gram: the first 13 characters that were found.
        place: file and line of the first training document that has them.
        share: how many of the item's grams are in the training documents, 0 to 1.
    """

    gram: str
    place: str
    share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Contamination:
    """What the check found for one task.

    Attributes:
        hits: by item id.
        checked: items that are long enough to be looked for.
        unchecked: items of fewer than 13 characters, or with common grams only.
        documents: training documents read.
        characters: their letters, digits and hanzi.
    """

    hits: Mapping[str, Hit] = field(default_factory=dict)
    checked: int = 0
    unchecked: int = 0
    documents: int = 0
    characters: int = 0

    def clean(self, outcomes: Sequence[Outcome]) -> list[Outcome]:
        """Return the outcomes of items that were not found."""
        return [outcome for outcome in outcomes if outcome.item not in self.hits]


def normalise(text: str) -> str:
    """Return the letters, digits and hanzi of a text, lower case, full width narrowed."""
    return _PASSED_OVER.sub("", unicodedata.normalize("NFKC", text).lower())


class GramIndex:
    """The grams of the items of several tasks, to be looked for in documents.

    Attributes:
        documents: read so far.
        characters: of them, normalised.
    """

    def __init__(self, tasks: Mapping[str, Sequence[Item]]) -> None:
        """Index items by task name."""
        self._items: list[tuple[str, str, str]] = []  # (task, item id, normalised text)
        self._sizes: list[int] = []  # grams of each that count
        self.documents = self.characters = 0
        self._places: dict[int, str] = {}  # row of the index -> first document with that gram
        parts = [self._grams_of(name, items) for name, items in tasks.items()]
        grams = np.concatenate([part[0] for part in parts] or [np.zeros(0, np.uint64)])
        owners = np.concatenate([part[1] for part in parts] or [np.zeros((0, 2), np.int64)])
        order = np.argsort(grams, kind="stable")
        self._grams, self._owners_G2 = grams[order], owners[order]

    def _grams_of(self, name: str, items: Sequence[Item]) -> tuple[np.ndarray, np.ndarray]:
        """Return the telling grams of a task, (G,), and (G, 2) item number and offset of each."""
        grams, owners = [np.zeros(0, np.uint64)], [np.zeros((0, 2), np.int64)]
        for item in items:
            text = normalise(item.text)
            own, offsets = np.unique(gram_hashes(text), return_index=True)
            grams.append(own)
            owners.append(np.stack([np.full(len(own), len(self._items)), offsets], axis=1))
            self._items.append((name, item.id, text))
        gram_G, owner_G2 = np.concatenate(grams), np.concatenate(owners)
        values, counts = np.unique(gram_G, return_counts=True)
        telling_G = np.isin(gram_G, values[counts < COMMON])
        sizes = np.bincount(owner_G2[telling_G, 0], minlength=len(self._items))
        self._sizes += sizes[len(self._sizes) :].tolist()
        return gram_G[telling_G], owner_G2[telling_G]

    def read(self, documents: Iterable[tuple[str, str]]) -> None:
        """Look for the grams in (text, place) pairs."""
        for text, place in documents:
            plain = normalise(text)
            self.documents += 1
            self.characters += len(plain)
            if len(self._grams):
                self._look(plain, place)

    def _look(self, plain: str, place: str) -> None:
        hashes = gram_hashes(plain)
        at = np.searchsorted(self._grams, hashes)
        at[at == len(self._grams)] = 0
        for i in np.flatnonzero(self._grams[at] == hashes):
            row = int(at[i])
            if row not in self._places and self._gram(row) == plain[i : i + GRAM]:
                self._places[row] = place

    def _gram(self, row: int) -> str:
        item, offset = self._owners_G2[row]
        return self._items[item][2][offset : offset + GRAM]

    def result(self, name: str) -> Contamination:
        """Return what was found of one task's items."""
        counts: dict[int, int] = {}
        first: dict[int, int] = {}
        for row in self._places:
            same = np.searchsorted(self._grams, self._grams[row], side="right")
            for item in self._owners_G2[row:same, 0].tolist():
                counts[item] = counts.get(item, 0) + 1
                first.setdefault(item, row)
        own = [number for number, (task, _, _) in enumerate(self._items) if task == name]
        hits = {
            self._items[number][1]: Hit(
                self._gram(first[number]),
                self._places[first[number]],
                counts[number] / self._sizes[number],
            )
            for number in own
            if number in counts
        }
        checked = sum(self._sizes[number] > 0 for number in own)
        return Contamination(
            hits=hits,
            checked=checked,
            unchecked=len(own) - checked,
            documents=self.documents,
            characters=self.characters,
        )


def gram_hashes(text: str) -> np.ndarray:
    """Return the hash of every 13 characters in a row, (characters - 12,) uint64, modulo 2^64."""
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    codes = codes.astype(np.uint64)
    count = max(0, len(codes) - GRAM + 1)
    hashes = np.zeros(count, dtype=np.uint64)
    for offset in range(GRAM):
        hashes = hashes * _BASE + codes[offset : offset + count]
    return hashes
