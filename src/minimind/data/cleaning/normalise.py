"""One form for each character: width, spaces, entities, control characters, script."""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Literal

from minimind.data.cleaning import characters as ch
from minimind.data.cleaning.page import Change, Edited, Editor, Page

_ENTITY = re.compile(r"&(?:#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[a-zA-Z]{2,24}[0-9]{0,2});")
_INDENT = re.compile(r"^\u3000+", re.MULTILINE)
_HALF = re.compile(r"[,;:?!.](?=[\u4e00-\u9fff\n]|\Z)")
_FULL = dict(zip(",;:?!.", "，；：？！。", strict=True))
_GAP = re.compile(r"([，。！？；：、”》）]) +(?=[\u4e00-\u9fff“《（])")
_TRAILING = re.compile(r"[ \t]+(?=\n|\Z)")
_BLANK = re.compile(r"\n{3,}")


@cache
def _simplify() -> Callable[[str], str]:
    from minimind.data.sources.text import simplifier

    return simplifier()


def one_form(text: str) -> str:
    """Return the text with each character in one form (see `characters.normal_forms`)."""
    if "\u3000" in text:
        text = _INDENT.sub("", text)
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    if text.isascii() and text.isprintable():
        return text
    codes = ch.codes_of(text)
    mapped = ch.normal_forms()[codes]
    if (mapped != codes).any():
        text = ch.text_of(mapped[mapped != 0])
    return unicodedata.normalize("NFC", text)


def without_entities(text: str) -> str:
    """Return the text with HTML entities as characters, each in one form; `&amp;lt;` too."""
    text = one_form(text)
    while "&" in text:
        plain = one_form(_ENTITY.sub(lambda found: html.unescape(found[0]), text))
        if plain == text:
            return text
        text = plain
    return text


@dataclass(frozen=True, kw_only=True)
class Characters(Editor):
    """One form for each character.

    Full-width letters and digits become ASCII, odd spaces a space, entities characters; control
    and invisible characters go; canonical composition (NFC).
    """

    def edit(self, page: Page) -> Edited | None:
        """Return the text in its normal form."""
        text = without_entities(page.text)
        if text == page.text:
            return None
        return Edited(text, {"characters": 1}, [_first_difference("characters", page.text, text)])


@dataclass(frozen=True, kw_only=True)
class Script(Editor):
    """Traditional to simplified script (opencc t2s), where a share of the hanzi is traditional.

    A single traditional character in modern text is often a name; below `share` nothing is changed.
    """

    share: float = 0.02

    def edit(self, page: Page) -> Edited | None:
        """Return the text in simplified script."""
        old = int(ch.traditional()[page.codes].sum())
        if not old or old < self.share * page.hanzi:
            return None
        text = _simplify()(page.text)
        if text == page.text:
            return None
        return Edited(text, {"hanzi": old}, [_first_difference("script", page.text, text)])


@dataclass(frozen=True, kw_only=True)
class Spacing(Editor):
    """Spaces at line ends, more than one empty line, spaces after Chinese punctuation.

    With `punctuation = "full"`, a half-width `,;:?!.` after a hanzi, before a hanzi or at a line's
    end, is the Chinese one.
    """

    punctuation: Literal["full", "keep"] = "full"

    def edit(self, page: Page) -> Edited | None:
        """Return the text with Chinese spacing."""
        text = _TRAILING.sub("", page.text.strip())
        if self.punctuation == "full":
            text = _HALF.sub(_widened, text)
        text = _BLANK.sub("\n\n", _GAP.sub(r"\1", text))
        if text == page.text:
            return None
        return Edited(text, {"spacing": 1})


def _widened(found: re.Match[str]) -> str:
    before = found.string[found.start() - 1 : found.start()]
    return _FULL[found[0]] if "\u4e00" <= before <= "\u9fff" else found[0]


def _first_difference(kind: str, before: str, after: str) -> Change:
    shortest = min(len(before), len(after))
    at = next((i for i in range(shortest) if before[i] != after[i]), shortest)
    start = max(at - 20, 0)
    return Change(kind, before[start : at + 40], after[start : at + 40])
