"""Where a text begins to go round in circles: one rule for chat page, inspector and probes."""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

LONGEST, COPIES, LEAST = 64, 3, 8


@dataclass(frozen=True, kw_only=True)
class Loop:
    """A stretch that repeats what stands before it.

    Attributes:
        start: index of the first token of the second copy.
        period: tokens of one copy.
        end: index behind the last token that repeats.
    """

    start: int
    period: int
    end: int


def find_loop(tokens: Sequence[Hashable]) -> Loop | None:
    """Return the earliest loop.

    The rule: the same 1 to `LONGEST` tokens at least `COPIES` times in a row, `LEAST` tokens or
    more in all. Of two that begin at one place the shorter period is it.
    """
    best: Loop | None = None
    for period in range(1, min(LONGEST, len(tokens) // COPIES) + 1):
        needed = max(period * COPIES, LEAST) - period  # tokens that equal the one a period earlier
        run = 0
        for at in range(period, len(tokens) + 1):
            same = at < len(tokens) and tokens[at] == tokens[at - period]
            if same:
                run += 1
                continue
            if run >= needed and (best is None or at - run < best.start):
                best = Loop(start=at - run, period=period, end=at)
                break
            run = 0
    return best


def is_loop(text: str) -> bool:
    """Tell whether a text has a loop, by the rule of `find_loop` on its characters.

    Spaces don't count, and a number of up to 15 digits is one character: 1000000000 is no loop.
    """
    return find_loop(re.findall(r"(?<!\d)\d{1,15}(?!\d)|\S", text)) is not None
