"""Encoding repair: text that was read with the wrong decoder, read again with the right one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np

from minimind.data.cleaning import characters as ch
from minimind.data.cleaning.page import Change, Edited, Editor, Page
from minimind.errors import require

_PAIRS = (
    ("utf-8 read as latin-1", "latin-1", "utf-8"),
    ("utf-8 read as cp1252", "cp1252", "utf-8"),
    ("gbk read as latin-1", "latin-1", "gb18030"),
    ("gbk read as cp1252", "cp1252", "gb18030"),
    ("utf-8 read as gbk", "gb18030", "utf-8"),
    ("big5 read as gbk", "gb18030", "big5"),
    ("gbk read as big5", "big5", "gb18030"),
    ("utf-8 read as big5", "big5", "utf-8"),
)
_GAIN, _PLAUSIBLE, _LOST = 0.25, 0.8, 0.1
_STRANGE = (ch.RARE_HANZI, ch.LOST, ch.LETTER, ch.SYMBOL)
_LATIN_END = 0x250
_ORDINARY = ch.codes_of("āáǎàēéěèīíǐìōóǒòūúǔùǖǘǚǜü×÷·°±" + "".join(map(chr, range(0x2500, 0x2580))))
"""Pinyin, signs and boxes: Chinese text has them beside its hanzi, repaired text too."""

_LONGEST = 4_000
"""Characters that are enough to find out which decoder it was."""


@cache
def _simplify() -> Callable[[str], str]:
    from minimind.data.sources.text import simplifier

    return simplifier()


@cache
def _ftfy() -> Callable[[str], str]:
    return require("ftfy", extra="clean").fix_encoding


def plausible(text: str, *, strict: bool = False) -> float:
    """Return the share of ordinary Chinese among what isn't ASCII, 1 for pure ASCII.

    Counted are common hanzi (after conversion to simplified script), Chinese punctuation and kana.
    Signs and Greek say nothing about decoders (`3×4`, `α`) and are left out, unless `strict`: what
    is proposed as a repair must be Chinese through and through.
    """
    text = text.encode("utf-8", "replace").decode()  # half a surrogate pair is nothing to opencc
    codes = ch.codes_of(_simplify()(text))
    codes = codes[codes >= 0x80]
    found = ch.kinds()[codes]
    if strict:
        telling = ~np.isin(codes, _ORDINARY)
    else:
        telling = (found != ch.SYMBOL) & ((found != ch.LETTER) | (codes < _LATIN_END))
    codes, found = codes[telling], found[telling]
    if not len(codes):
        return 1.0
    good = (ch.HANZI, ch.KANA, ch.STOP, ch.PUNCTUATION)
    return float(np.isin(found, good).mean())


def _encoded(text: str, codec: str) -> bytes | None:
    """Return the bytes that the wrong decoder had seen; None if it can't have been that decoder."""
    try:
        if codec == "gb18030":  # Windows decodes the byte 80 to a euro sign, Python doesn't
            return b"\x80".join(part.encode(codec) for part in text.split("€"))
        if codec == "cp1252":  # five bytes have no character there; browsers keep them as C1
            return b"".join(
                bytes((ord(c),)) if 0x80 <= ord(c) < 0xA0 else c.encode(codec) for c in text
            )
        return text.encode(codec)
    except UnicodeEncodeError:
        return None


def _reread(text: str, wrong: str, right: str) -> str | None:
    data = _encoded(text, wrong)
    if data is None:
        return None
    read = data.decode(right, "replace")
    return read if read.count("\ufffd") <= _LOST * len(read) else None


def odd_lines(page: Page) -> list[int]:
    """Return the numbers of the lines whose characters are mostly not ordinary Chinese."""
    if page.counts[list(_STRANGE)].sum() < 4:
        return []
    kinds, foreign = page.kinds, page.codes >= 0x80
    latin = foreign & (page.codes < _LATIN_END) & (kinds == ch.LETTER)
    strange = (kinds == ch.RARE_HANZI) | (kinds == ch.LOST) | latin
    if int(strange.sum()) < 4:
        return []
    ends = np.flatnonzero(page.codes == 0x0A)
    starts = np.concatenate(([0], ends + 1))
    starts = np.minimum(starts, len(kinds) - 1)
    odd = np.add.reduceat(strange, starts, dtype=np.int64)
    count = np.add.reduceat(foreign, starts, dtype=np.int64)
    return np.flatnonzero((odd >= 4) & (odd > 0.3 * count)).tolist()


@dataclass(frozen=True, kw_only=True)
class Encoding(Editor):
    """Read mojibake again: UTF-8, GBK and Big5 that were taken for each other or for Latin-1.

    Lines whose characters are mostly rare ones are tried with each pair of decoders; what gives
    common hanzi is taken. Where no pair fits the whole, ftfy repairs what Latin-1 and its like did.
    """

    def edit(self, page: Page) -> Edited | None:
        """Return the text with its odd lines read again."""
        if not (odd := odd_lines(page)):
            return None
        lines = page.text.split("\n")
        name, reread = _decoder_of("\n".join(lines[i] for i in odd)[:_LONGEST])
        edited = Edited("")
        for i in odd:
            fixed = reread(lines[i])
            if fixed is None or "\n" in fixed or "\r" in fixed:
                continue
            before = plausible(lines[i])
            if plausible(fixed, strict=True) >= max(_PLAUSIBLE, before + _GAIN):
                edited.counts[name] = edited.counts.get(name, 0) + 1
                edited.changes.append(Change(name, lines[i][:80], fixed[:80]))
                lines[i] = fixed
        edited.text = "\n".join(lines)
        return edited if edited.counts else None


def _decoder_of(sample: str) -> tuple[str, Callable[[str], str | None]]:
    """Return the pair of decoders under which most of the sample reads as Chinese."""

    def gain(wrong: str, right: str) -> float:
        parts = [(line, _reread(line, wrong, right)) for line in sample.split("\n")]
        gains = (
            len(line) * (plausible(read, strict=True) - plausible(line))
            for line, read in parts
            if read
        )
        return sum(gains) / max(len(sample), 1)

    best, name, wrong, right = max((gain(w, r), n, w, r) for n, w, r in _PAIRS)
    if best > _GAIN / 2:
        return name, lambda line: _reread(line, wrong, right)
    fix = _ftfy()
    return "mixed (ftfy)", lambda line: fixed if (fixed := fix(line)) != line else None
