"""Which language it is, and how much of it is Chinese."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

from minimind.data.cleaning import characters as ch
from minimind.data.cleaning.page import Drop, Filter, Page
from minimind.errors import require

_SAMPLE = 600


@cache
def _detector() -> Any:
    lingua = require("lingua", extra="clean")
    names = ("CHINESE", "ENGLISH", "JAPANESE", "KOREAN")
    languages = [getattr(lingua.Language, name) for name in names]
    return lingua.LanguageDetectorBuilder.from_languages(*languages).build()


@dataclass(frozen=True, kw_only=True)
class Language(Filter):
    """Not Chinese.

    Where at least `clear` of hanzi and foreign words are hanzi (four Latin letters count as one: a
    sentence with its translation is Chinese) and almost none kana or hangul, it is Chinese without
    asking; the rest goes to lingua, restricted to Chinese, English, Japanese and
    Korean (restricted so, it was right on 2,000 of 2,000 Chinese lines).
    """

    clear: float = 0.4

    def check(self, page: Page) -> Drop | None:
        """Return which language it is instead."""
        letters = page.letters
        if not letters:
            return Drop("no letters at all")
        other = int(page.counts[ch.KANA] + page.counts[ch.HANGUL])
        if page.hanzi >= self.clear * page.weighed(letters) and other <= 0.02 * letters:
            return None
        found = _detector().detect_language_of(page.text[:_SAMPLE])
        if found is None or found.name == "CHINESE":
            return None
        return Drop(f"the language is {found.name.lower()} (lingua)")


@dataclass(frozen=True, kw_only=True)
class HanRatio(Filter):
    """Too few hanzi among the visible characters: tables, code. Four Latin letters are one."""

    minimum: float = 0.15

    def check(self, page: Page) -> Drop | None:
        """Return the share where it is too low."""
        share = page.hanzi / max(page.weighed(page.visible), 1)
        if share >= self.minimum:
            return None
        return Drop(f"{share:.0%} of the characters are hanzi, at least {self.minimum:.0%} wanted")
