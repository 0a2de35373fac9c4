"""Spam phrases: advertising, SEO, adult, gambling. Found fast, dropped for density."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import ClassVar

import numpy as np

from minimind.data.cleaning import characters as ch
from minimind.data.cleaning.page import Drop, Filter, Page

_LISTS = Path(__file__).with_name("phrases.toml")
_BITS = 18


class Matcher:
    """Finds any of many phrases.

    The first two characters of every phrase are marked in a bitmap, which is looked up for all
    characters of a text at once; only where it hits is the text compared.
    """

    def __init__(self, phrases: list[str]) -> None:
        if short := [phrase for phrase in phrases if len(phrase) < 2]:
            raise ValueError(f"phrases of one character: {short}")
        longest_first = sorted(phrases, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, longest_first)))
        self._marked = np.zeros(1 << _BITS, bool)
        starts = np.concatenate([ch.codes_of(phrase[:2]) for phrase in phrases]).reshape(-1, 2)
        self._marked[_slots(starts[:, 0], starts[:, 1])] = True

    def find(self, text: str, codes: np.ndarray) -> Iterator[tuple[int, int]]:
        """Yield (from, to) of each phrase in the text, in order, without overlaps."""
        if len(codes) < 2:
            return
        end = 0
        for start in np.flatnonzero(self._marked[_slots(codes[:-1], codes[1:])]).tolist():
            if start >= end and (found := self._pattern.match(text, start)):
                end = found.end()
                yield start, end


def _slots(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        mixed = (first * np.uint32(0x9E3779B1)) ^ (second * np.uint32(0x85EBCA6B))
    return mixed >> np.uint32(32 - _BITS)


@cache
def _lists() -> dict[str, list[str]]:
    return tomllib.loads(_LISTS.read_text(encoding="utf-8"))


@cache
def matcher(kind: str) -> Matcher:
    """Return the matcher of one list of phrases.toml, or of all of them (`all`)."""
    lists = _lists()
    return Matcher(sorted({p for name in lists if kind in (name, "all") for p in lists[name]}))


@cache
def _kinds_of() -> dict[str, str]:
    return {phrase: kind for kind, phrases in _lists().items() for phrase in phrases}


def found_spans(page: Page) -> list[tuple[int, int]]:
    """Return where the page has a phrase of any list; looked for once a page."""
    return list(matcher("all").find(page.text, page.codes))


@dataclass(frozen=True, kw_only=True)
class Spam(Filter):
    """Spam phrases of one kind.

    Dropped are `distinct` different ones that are more than `per_thousand` of a thousand
    characters, or two that cover `cover` of the text.
    """

    distinct: int = 3
    per_thousand: float = 5.0
    cover: float = 0.12

    kind: ClassVar[str]
    """The list of phrases.toml that it reads."""

    def check(self, page: Page) -> Drop | None:
        """Return which phrases stand too close together."""
        spans = [s for s in page.phrases if _kinds_of()[page.text[slice(*s)]] == self.kind]
        if not spans:
            return None
        different = {page.text[slice(*span)] for span in spans}
        size = max(page.visible, 1)
        covered = sum(end - start for start, end in spans) / size
        dense = 1_000 * len(spans) / size >= self.per_thousand
        if not (len(different) >= self.distinct and dense) and not (
            len(different) > 1 and covered >= self.cover
        ):
            return None
        shown = ", ".join(sorted(different)[:6])
        return Drop(f"{len(spans)} {self.kind} phrases: {shown}", tuple(spans))


class Advertising(Spam):
    """Offers, contacts, miracle cures, false papers."""

    kind: ClassVar[str] = "advertising"


class Seo(Spam):
    """Search engine bait and download pages."""

    kind: ClassVar[str] = "seo"


class Adult(Spam):
    """Pornography and prostitution on offer."""

    kind: ClassVar[str] = "adult"


class Gambling(Spam):
    """Casinos, lotteries and betting on offer."""

    kind: ClassVar[str] = "gambling"
