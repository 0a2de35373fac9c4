"""How tokens are shown to people: as text that hides nothing, and as a colour for the surprise."""

from __future__ import annotations

import codecs
import math
from collections.abc import Iterable

STEPS = (0.5, 0.25, 0.0625, 1 / 64)
"""The colours change where the surprise is 1, 2, 4 and 6 bits."""


def band(logprob: float) -> int:
    """Return the colour of a token, 0 (expected) to 4 (a surprise)."""
    probability = math.exp(min(0.0, logprob))
    return sum(probability < step for step in STEPS)


def percent(probability: float) -> str:
    """Return a probability as people read it."""
    value = 100 * probability
    if value >= 99.95:
        return "100 %"
    if value < 0.01:
        return "< 0.01 %"
    return f"{value:.{1 if value >= 1 else 2}f} %"


def visible(raw: bytes) -> str:
    """Return a token as text: white space that would be lost has a sign, half characters hex."""
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        return _hex(raw)
    return _marked(text)


def texts(tokens: Iterable[bytes]) -> list[str]:
    """Return how each token of a text is shown: a character stands where its last byte comes."""
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    shown = []
    for raw in tokens:
        text = decoder.decode(raw)
        begun, _ = decoder.getstate()  # bytes of a character that the next token goes on with
        shown.append(_marked(text) + (_hex(begun) if begun else ""))
    return shown


def _hex(raw: bytes) -> str:
    return "‹" + " ".join(f"{byte:02X}" for byte in raw) + "›"


def _marked(text: str) -> str:
    marked = text.replace("\n", "↵").replace("\t", "⇥").replace("\r", "␍")
    return "␣" * len(marked) if marked and not marked.strip(" ") else marked
