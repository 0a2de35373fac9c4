"""A document under cleaning: its text, and what the rules ask about it, computed once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from minimind.data.cleaning import characters as ch
from minimind.data.document import Document

_PRIME = np.uint64(0x9E3779B97F4A7C15)


class Page:
    """A document's text with its statistics. Editing makes a new page.

    Attributes:
        document: the text, its id and what is known of it (source, licence).
    """

    def __init__(self, document: Document) -> None:
        self.document = document

    @property
    def text(self) -> str:
        """Return the text as it is now."""
        return self.document.text

    @property
    def meta(self) -> dict[str, str]:
        """Return what the row and the readers know: source, licence, url ..."""
        return self.document.meta

    def with_text(self, text: str) -> Page:
        """Return a page of another text, with the same id and meta."""
        return Page(Document(text, self.document.id, self.document.meta))

    @cached_property
    def codes(self) -> np.ndarray:
        """Return the code points: (characters,) uint32."""
        return ch.codes_of(self.text)

    @cached_property
    def kinds(self) -> np.ndarray:
        """Return the kind of each character: (characters,) uint8."""
        return ch.kinds()[self.codes]

    @cached_property
    def counts(self) -> np.ndarray:
        """Return how many characters there are of each kind: (KINDS,)."""
        return np.bincount(self.kinds, minlength=ch.KINDS)

    @cached_property
    def hanzi(self) -> int:
        """Return the number of Chinese characters."""
        return int(self.counts[ch.HANZI] + self.counts[ch.RARE_HANZI])

    @cached_property
    def letters(self) -> int:
        """Return the number of letters of any script."""
        kinds = (ch.LATIN, ch.HANZI, ch.RARE_HANZI, ch.KANA, ch.HANGUL, ch.LETTER)
        return int(self.counts[list(kinds)].sum())

    @cached_property
    def visible(self) -> int:
        """Return the number of characters that aren't white space."""
        return int(len(self.codes) - self.counts[ch.SPACE] - self.counts[ch.NEWLINE])

    def weighed(self, characters: int) -> float:
        """Return a count of characters in which four Latin letters, about a word, are one."""
        return characters - 0.75 * int(self.counts[ch.LATIN])

    @cached_property
    def lines(self) -> list[str]:
        """Return the lines that aren't empty, stripped."""
        return [line for raw in self.text.split("\n") if (line := raw.strip())]

    @cached_property
    def line_lengths(self) -> np.ndarray:
        """Return the characters of each of `lines`."""
        return np.fromiter(map(len, self.lines), np.int64, len(self.lines))

    @cached_property
    def phrases(self) -> list[tuple[int, int]]:
        """Return (from, to) of the phrases of spam in it, of every kind."""
        from minimind.data.cleaning.phrases import found_spans

        return found_spans(self)

    @cached_property
    def is_content(self) -> np.ndarray:
        """Tell of each character whether it is a letter or a digit: (characters,) bool."""
        return ch.is_content()[self.kinds]

    @cached_property
    def content(self) -> np.ndarray:
        """Return the code points of letters and digits only: what near-duplicates share."""
        return self.codes[self.is_content]


def ngrams(codes: np.ndarray, n: int) -> np.ndarray:
    """Return a 64-bit hash of every run of n characters: (characters - n + 1,) uint64.

    A polynomial that is built by doubling (2, 4, 8 ... characters), finished by a multiply-shift.
    """
    if len(codes) < n:
        return np.zeros(0, np.uint64)
    power, have, hashes = _PRIME, 1, codes.astype(np.uint64) * np.uint64(0xD6E8FEB86659FD93)
    hashes ^= hashes >> np.uint64(29)
    whole, done = None, 0
    with np.errstate(over="ignore"):
        while n >> have.bit_length() - 1:
            if n & have:
                count = len(codes) - (done + have) + 1
                if whole is None:
                    whole = hashes[:count].copy()
                else:
                    whole = whole[:count] * power + hashes[done : done + count]
                done += have
            count = len(codes) - 2 * have + 1
            if have * 2 > n:
                break
            hashes = hashes[:count] * power + hashes[have : have + count]
            power, have = power * power, have * 2
        assert whole is not None
        whole *= np.uint64(0xFF51AFD7ED558CCD)
    whole ^= whole >> np.uint64(32)
    return whole


@dataclass(frozen=True, slots=True)
class Drop:
    """Why a document goes.

    Attributes:
        reason: in words, with the value and the limit.
        spans: (from, to) in the text that the rule saw: what to look at; may be empty.
    """

    reason: str
    spans: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that an editor did: its kind, and the passage before and after.

    Masked personal data has an empty `before`: it must not live on in a log.
    """

    kind: str
    before: str
    after: str


@dataclass(slots=True)
class Edited:
    """The new text, how often it was changed by kind, and a few of the changes."""

    text: str
    counts: dict[str, int] = field(default_factory=dict)
    changes: list[Change] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Filter(ABC):
    """A rule that keeps or drops. Its parameters are its fields; `on = false` leaves it out."""

    on: bool = True

    @abstractmethod
    def check(self, page: Page) -> Drop | None:
        """Return why the document goes, or None."""


@dataclass(frozen=True, kw_only=True)
class Editor(ABC):
    """A rule that changes text. Applied twice it changes nothing more."""

    on: bool = True

    @abstractmethod
    def edit(self, page: Page) -> Edited | None:
        """Return the changed text, or None where there is nothing to change."""
