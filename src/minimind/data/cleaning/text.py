"""Filters on the shape of a text: length, lines, punctuation, repetition, broken characters."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

import numpy as np

from minimind.data.cleaning import characters as ch
from minimind.data.cleaning.page import Drop, Filter, Page, ngrams

_BROKEN = re.compile(r"锟斤拷|烫烫烫|屯屯屯|\ufffd+|[\ue000-\uf8ff]+|[\x80-\x9f]+")
_LINK = re.compile(r"https?://[^\s\u4e00-\u9fff，。）)]+|www\.[^\s\u4e00-\u9fff，。）)]+")
_BULLET = re.compile(
    r"[-*•·●○■□▪◆▶►»>+]|[0-9]{1,3}[.、)）]|[（(][0-9一二三四五六七八九十]{1,3}[)）]"
)
_UNFINISHED = re.compile(r"(?:…|\.\.\.|。。。)\s*$")
_ENDINGS = tuple("。！？!?…；;：:”』」》）)—.~～")


@dataclass(frozen=True, kw_only=True)
class Unreadable(Filter):
    """What a wrong decoder left that can't be repaired: lost characters, or mostly rare hanzi.

    The latter is asked of `hanzi` characters and more: classical verse and dictionaries are rare.
    """

    lost: float = 0.005
    rare: float = 0.45
    hanzi: int = 60

    def check(self, page: Page) -> Drop | None:
        """Return what is broken."""
        visible = max(page.visible, 1)
        if page.counts[ch.LOST] or "锟斤拷" in page.text or "烫烫烫" in page.text:
            spans = tuple(found.span() for found in _BROKEN.finditer(page.text))
            share = sum(end - start for start, end in spans) / visible
            if share > self.lost:
                return Drop(f"{share:.1%} of the characters are lost", spans)
        rare = int(page.counts[ch.RARE_HANZI]) / max(page.hanzi, 1)
        if page.hanzi >= self.hanzi and rare > self.rare:
            return Drop(f"{rare:.0%} of the hanzi are rare: read with the wrong decoder?")
        return None


@dataclass(frozen=True, kw_only=True)
class Length(Filter):
    """Too few letters and digits, or too many characters."""

    minimum: int = 6
    maximum: int = 5_000_000

    def check(self, page: Page) -> Drop | None:
        """Return the length where it is out of bounds."""
        size = len(page.content)
        if size < self.minimum:
            return Drop(f"{size} letters and digits, at least {self.minimum} wanted")
        if len(page.codes) > self.maximum:
            return Drop(f"{len(page.codes):,} characters, at most {self.maximum:,} wanted")
        return None


@dataclass(frozen=True, kw_only=True)
class Listing(Filter):
    """Lists and navigation: many short lines without punctuation, links, bullets, cut-off lines.

    Asked of documents of at least `lines` lines. A line counts as navigation if it has at most
    `short` characters and no punctuation that ends a clause.
    """

    lines: int = 8
    short: int = 10
    navigation: float = 0.8
    bullets: float = 0.95
    unfinished: float = 0.3
    links: float = 0.25

    def check(self, page: Page) -> Drop | None:
        """Return which kind of listing it is."""
        if "http" in page.text or "www." in page.text:
            spans = tuple(found.span() for found in _LINK.finditer(page.text))
            share = sum(end - start for start, end in spans) / max(page.visible, 1)
            if share > self.links:
                return Drop(f"{share:.0%} of the characters are links", spans)
        count = len(page.lines)
        if count < self.lines:
            return None
        mean = page.visible / count
        if mean > 4 * self.short:
            return self._unfinished(page) if "…" in page.text or "..." in page.text else None
        short = sum(len(line) <= self.short and not line.endswith(_ENDINGS) for line in page.lines)
        if short > self.navigation * count and page.counts[ch.STOP] < 0.3 * count:
            return Drop(f"{short} of {count} lines are short and end in nothing: navigation")
        bullets = sum(_BULLET.match(line) is not None for line in page.lines)
        if bullets > self.bullets * count and mean < 2 * self.short:
            return Drop(f"{bullets} of {count} lines are bullets")
        return self._unfinished(page)

    def _unfinished(self, page: Page) -> Drop | None:
        cut = sum(_UNFINISHED.search(line) is not None for line in page.lines)
        if cut <= self.unfinished * len(page.lines):
            return None
        return Drop(f"{cut} of {len(page.lines)} lines are cut off (…)")


@dataclass(frozen=True, kw_only=True)
class Punctuation(Filter):
    """Text without sentences, or of signs only.

    Asked of documents of at least `characters` visible characters: fewer than one mark of
    punctuation in `every` letters is a heap of words; more than `most` of all are signs.
    """

    characters: int = 100
    every: int = 80
    most: float = 0.6

    def check(self, page: Page) -> Drop | None:
        """Return the share that is out of bounds."""
        if page.visible < self.characters:
            return None
        counts = page.counts
        marks = int(counts[ch.STOP] + counts[ch.PUNCTUATION])
        if marks * self.every < page.letters:
            return Drop(f"{marks} marks of punctuation in {page.letters} letters: no sentences")
        share = (marks + int(counts[ch.SYMBOL])) / page.visible
        if share > self.most:
            return Drop(f"{share:.0%} of the characters are signs")
        return None


@dataclass(frozen=True, kw_only=True)
class Repetition(Filter):
    """The rules of Gopher (Rae et al. 2021, table A1) restated for characters.

    A Chinese word is about one and a half characters. Their most frequent 2- to 4-word phrase is
    one of `top_n` characters here, and may cover `top_share` of the text; their repeated phrases of
    5 to 10 words are runs of `long_n` characters, of which `long_share` may have been there before.
    Duplicate lines may be `line_share` of the lines and `line_characters` of the text.
    """

    line_share: float = 0.4
    line_characters: float = 0.3
    top_n: int = 4
    top_share: float = 0.3
    long_n: int = 10
    long_share: float = 0.4
    characters: int = 100

    def check(self, page: Page) -> Drop | None:
        """Return what is repeated, with all its places."""
        return self._lines(page) or (
            self._ngrams(page) if page.visible >= self.characters else None
        )

    def _lines(self, page: Page) -> Drop | None:
        lines = page.lines
        if len(lines) < 4 or len(different := set(lines)) == len(lines):
            return None
        repeated = len(lines) - len(different)
        characters = int(page.line_lengths.sum()) - sum(map(len, different))
        if repeated <= self.line_share * len(lines) and characters <= self.line_characters * max(
            int(page.line_lengths.sum()), 1
        ):
            return None
        worst, times = Counter(lines).most_common(1)[0]
        found = tuple(m.span() for m in re.finditer(re.escape(worst), page.text))
        return Drop(
            f"{repeated} of {len(lines)} lines are repeated ({times} x {worst[:20]!r})", found
        )

    def _ngrams(self, page: Page) -> Drop | None:
        codes = page.content
        if len(codes) <= self.long_n:
            return None
        short = np.sort(ngrams(codes, self.top_n))
        edges = np.flatnonzero(np.diff(short)) + 1
        runs = np.diff(np.concatenate(([0], edges, [len(short)])))
        top = int(runs.max())
        if top > 2 and top * self.top_n > self.top_share * len(codes):
            return self._top(page, int(short[np.concatenate(([0], edges))[runs.argmax()]]), top)
        hashes = np.sort(ngrams(codes, self.long_n))
        share = 1 - (1 + int(np.count_nonzero(np.diff(hashes)))) / len(hashes)
        if share > self.long_share:
            return Drop(f"{share:.0%} of the runs of {self.long_n} characters were there before")
        return None

    def _top(self, page: Page, value: int, times: int) -> Drop:
        at = int(np.flatnonzero(ngrams(page.content, self.top_n) == np.uint64(value))[0])
        phrase = ch.text_of(page.content[at : at + self.top_n])
        spans = tuple(m.span() for m in re.finditer(re.escape(phrase), page.text))
        share = times * self.top_n / len(page.content)
        return Drop(f"{phrase!r} {times} times: {share:.0%} of the text", spans)
