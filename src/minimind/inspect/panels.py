"""What each part of the page is made of. A new part is one function here and one line in `PANELS`.

Its picture is `web/NAME.js`, which sets `panels.NAME`; its words in `words.py` begin with `NAME_`.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from minimind.errors import DataError
from minimind.inspect.compare import Comparison
from minimind.inspect.experts import experts
from minimind.inspect.odds import logit_lens, token_odds, token_text
from minimind.inspect.reading import Reading
from minimind.inspect.repetition import repetition
from minimind.tokenizer.shown import STEPS

ALTERNATIVES = 8
"""Tokens listed at each position of the page."""

MOST_CELLS = 64 << 20
"""Attention weights in a page: 500 tokens at 64 heads are 8 million, and 3.7 MB of the page."""

LEVELS = 63
"""Steps of a weight's root: 255 would make 6.1 MB of those 3.7, 31 would show bands."""

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Panel:
    """A part of the page.

    Attributes:
        name: of its script in `web/`, and the beginning of its words' keys.
        data: makes from a reading what the script draws; None: this model has nothing of it.
    """

    name: str
    data: Callable[[Reading], Json | None]


def tokens(reading: Reading) -> Json:
    """Return each token's odds."""
    odds = token_odds(reading, top=ALTERNATIVES)
    return {
        "steps": STEPS,
        "bits": _rounded([one.bits for one in odds]),
        "entropy": _rounded([one.entropy for one in odds]),
        "rank": [one.rank for one in odds],
        "alternatives": [
            [[a.text, _short(a.probability), a.id] for a in one.alternatives] for one in odds
        ],
    }


def attention(reading: Reading) -> Json:
    """Return the attention maps, packed (see `pack`)."""
    config = reading.model.config
    T = len(reading.ids)
    return {
        "layers": reading.layers,
        "heads": reading.heads,
        "windows": [_window(config.window_of(layer), T) for layer in reading.layers],
        "levels": LEVELS,
        "maps": pack(reading.attention_LHTS),
    }


def lens(reading: Reading) -> Json:
    """Return what each layer would have said, with a table of the texts that occur."""
    found = logit_lens(reading)
    table: dict[int, int] = {}
    top = [[table.setdefault(i, len(table)) for i in row] for row in found.top_LT.tolist()]
    return {
        "texts": [token_text(reading, i) for i in table],
        "ids": list(table),
        "top": top,
        "top_probability": [_rounded(row) for row in found.top_probability_LT.tolist()],
        "next_probability": [_rounded(row) for row in found.next_probability_LT.tolist()],
        "next_rank": found.next_rank_LT.tolist(),
        "bits": _rounded(found.bits()),
    }


def loops(reading: Reading) -> Json:
    """Return the loop and the heads' scores."""
    found = repetition(reading)
    loop = found.loop
    return {
        "loop": loop and {"start": loop.start, "period": loop.period, "end": loop.end},
        "positions": found.positions,
        "copiers": [[h.layer, h.head] for h in found.copiers()],
        "heads": [
            {
                "layer": h.layer, "head": h.head, "copying": _short(h.copying),
                "chance": _short(h.chance), "copying_in_loop": _short(h.copying_in_loop),
                "previous": _short(h.previous), "first": _short(h.first),
            }
            for h in found.heads
        ],
    }  # fmt: skip


PANELS: tuple[Panel, ...] = (
    Panel("tokens", tokens),
    Panel("attention", attention),
    Panel("lens", lens),
    Panel("loops", loops),
    Panel("experts", experts),
)


def beside(comparison: Comparison) -> Json:
    """Return two readings side by side, as `web/beside.js` draws them."""
    return {
        "names": comparison.names,
        "characters": comparison.characters,
        "bits": _rounded(comparison.bits),
        "bits_per_character": _rounded(comparison.bits_per_character),
        "tokens": comparison.tokens,
        "segments": [
            [s.text, _short(s.bits[0]), _short(s.bits[1]), *s.tokens[0], *s.tokens[1]]
            for s in comparison.segments
        ],
    }


def pack(attention_LHTS: Tensor) -> str:
    """Return maps as base64 of deflate of bytes: of each layer and head the lower triangle by rows.

    A byte is round(63 sqrt(weight)): faint weights keep their differences; a weight of 0.1 is off
    by 0.005 at most, one near 1 by 0.016.

    Raises:
        DataError: too many for a page.
    """
    T = attention_LHTS.shape[-1]
    size = attention_LHTS[..., 0, 0].numel() * T * (T + 1) // 2
    if size > MOST_CELLS:
        raise DataError(
            f"the page would hold {size:,} attention weights, at most {MOST_CELLS:,} fit: choose "
            "some with --layers and --heads, or give a shorter text"
        )
    rows, columns = np.tril_indices(T)
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = b""
    for map_TS in attention_LHTS.flatten(0, 1).numpy():
        levels = np.rint(LEVELS * np.sqrt(map_TS[rows, columns])).astype(np.uint8)
        packed += compressor.compress(levels.tobytes())
    return base64.b64encode(packed + compressor.flush()).decode()


def _window(window: int | None, T: int) -> int | None:
    return window if window is not None and window < T else None


def _short(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.4g}")


def _rounded(values: Sequence[float | None]) -> list[float | None]:
    return [_short(value) for value in values]
