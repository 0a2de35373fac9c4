"""Tables over all of Unicode: what kind of character each is, and what it becomes.

A text is looked at as an array of code points, so that a table look-up classifies or maps all of it
at once: some nanoseconds a character, where a Python loop takes fifty.
"""

from __future__ import annotations

import sys
import unicodedata
from functools import cache
from typing import Final

import numpy as np

(SYMBOL, SPACE, NEWLINE, DIGIT, LATIN, HANZI, RARE_HANZI, KANA, HANGUL, STOP, PUNCTUATION, LOST,
 LETTER) = range(13)  # fmt: skip
KINDS: Final = 13
"""HANZI are the 3,755 of GB 2312 level 1, which make up 97 to 99.9 % of modern simplified prose;
STOP ends a sentence or clause group; LOST is what a wrong decoder leaves behind."""

STOPS: Final = "。！？!?…；;"
_PUNCTUATION: Final = "，、：“”‘’《》〈〉（）【】「」『』〔〕—～·" + ",.:'\"()[]{}<>-_/"
_SIZE: Final = sys.maxunicode + 1


def codes_of(text: str) -> np.ndarray:
    """Return the code points: (characters,) uint32."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)


def text_of(codes: np.ndarray) -> str:
    """Return the text of code points; the array must hold no surrogates."""
    return codes.astype("<u4", copy=False).tobytes().decode("utf-32-le")


def level_one() -> str:
    """Return the characters of GB 2312 level 1 (rows 16 to 55): the common ones."""
    pairs = (bytes((row, cell)) for row in range(0xB0, 0xD8) for cell in range(0xA1, 0xFF))
    return "".join(pair.decode("gb2312", "ignore") for pair in pairs)


@cache
def kinds() -> np.ndarray:
    """Return (all code points,) uint8: the kind of each."""
    table = np.full(_SIZE, SYMBOL, np.uint8)
    for code in range(0x80, 0x10000):
        category = unicodedata.category(chr(code))
        if category[0] == "L":
            table[code] = LETTER
        elif category == "Nd":
            table[code] = DIGIT
        elif category == "Zs":
            table[code] = SPACE
    for first, last, kind in (
        (0x30, 0x3A, DIGIT), (0x41, 0x5B, LATIN), (0x61, 0x7B, LATIN), (0x3400, 0xA000, RARE_HANZI),
        (0xF900, 0xFB00, RARE_HANZI), (0x20000, 0x33480, RARE_HANZI), (0x3041, 0x3100, KANA),
        (0x31F0, 0x3200, KANA), (0xFF66, 0xFFA0, KANA), (0xAC00, 0xD7B0, HANGUL),
        (0x1100, 0x1200, HANGUL), (0x3130, 0x3190, HANGUL), (0xE000, 0xF900, LOST),
        (0xD800, 0xE000, LOST), (0x80, 0xA0, LOST), (0xFF21, 0xFF3B, LATIN),
        (0xFF41, 0xFF5B, LATIN),
    ):  # fmt: skip
        table[first:last] = kind
    for characters, kind in ((level_one() + "〇", HANZI), (STOPS, STOP), (" \t", SPACE),
                             (_PUNCTUATION, PUNCTUATION), ("\n", NEWLINE),
                             ("\ufffd", LOST)):  # fmt: skip
        table[[ord(character) for character in characters]] = kind
    table.setflags(write=False)
    return table


@cache
def is_content() -> np.ndarray:
    """Return (KINDS,) bool: letters and digits."""
    return np.isin(np.arange(KINDS), (DIGIT, LATIN, HANZI, RARE_HANZI, KANA, HANGUL, LETTER))


@cache
def normal_forms() -> np.ndarray:
    """Return (all code points,) uint32: what each becomes, 0 for what is deleted.

    Full-width letters, digits and technical signs become ASCII; Chinese punctuation stays as it is.
    Every kind of space becomes one, every kind of line end a newline; what can't be seen goes.
    """
    table = np.arange(_SIZE, dtype=np.uint32)
    table[[code for code in (*range(0x20), 0x7F) if code not in (0x09, 0x0A)]] = 0
    for first, last in ((0xFF10, 0xFF1A), (0xFF21, 0xFF3B), (0xFF41, 0xFF5B)):
        table[first:last] -= 0xFEE0
    for sign in "％＋－＝＆＠＃＊／＼＿＄":
        table[ord(sign)] -= 0xFEE0
    for source, target in zip("｡｢｣､", "。「」、", strict=True):
        table[ord(source)] = ord(target)
    for code in (*range(0x2F00, 0x2FD6), *range(0xF900, 0xFB00)):  # radicals, compatibility forms
        form = unicodedata.normalize("NFKC", chr(code))
        if len(form) == 1:
            table[code] = ord(form)
    spaces = (0xA0, 0x1680, *range(0x2000, 0x200B), 0x202F, 0x205F, 0x3000)
    ends = (0x0B, 0x0C, 0x85, 0x2028, 0x2029)
    # Not the joiner U+200D: emoji are made with it.
    unseen = (0xAD, 0x200B, 0x200C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2060, 0x2070),
              0xFEFF, *range(0xFFF9, 0xFFFD), 0xFFFE, 0xFFFF, *range(0xFDD0, 0xFDF0))  # fmt: skip
    table[list(spaces)], table[list(ends)], table[list(unseen)] = 0x20, 0x0A, 0
    table[0xD800:0xE000] = 0xFFFD
    table.setflags(write=False)
    return table


@cache
def traditional() -> np.ndarray:
    """Return (all code points,) bool: the hanzi that opencc writes otherwise in simplified script.

    Raises:
        MissingExtraError: opencc is not installed.
    """
    from minimind.data.sources.text import simplifier

    table = np.zeros(_SIZE, bool)
    everything = "\n".join(map(chr, range(0x3400, 0xA000)))
    for code, simple in enumerate(simplifier()(everything).split("\n"), start=0x3400):
        table[code] = simple != chr(code)
    table.setflags(write=False)
    return table
