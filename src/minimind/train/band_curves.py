"""A run's loss by tokens, as loss bands and comparisons read it from metrics.jsonl.

Two figures stand in a line. `loss` is that of the one step that is logged: a few documents, so half
of how two seeds differ is which documents those were. `mean_loss` is the mean over all steps since
the line before, so a mean over a window of tokens can be had that no step is left out of: with a
line every 10 steps its noise is about a third (the standard error falls with the root of the
number of batches). Runs from before `mean_loss` have only the first.
"""

from __future__ import annotations

import math
import statistics
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Literal

Of = Literal["loss", "mean_loss"]
Points = Sequence[tuple[float, float]]
"""(tokens, loss), ascending."""


def curve(lines: Sequence[Mapping[str, Any]], of: Of = "loss") -> list[tuple[float, float]]:
    """Return (tokens, loss) of the training lines of metrics.jsonl; a null loss is NaN."""
    return [
        (float(line["tokens"]), math.nan if line[of] is None else float(line[of]))
        for line in lines
        if of in line and line.get("tokens")
    ]


def smoothed(points: Points, tokens: float, *, spacing: float, average: int, of: Of) -> float:
    """Return the loss at `tokens` as a band judges it, in nats.

    Args:
        points: of `curve`.
        tokens: where.
        spacing: tokens between the points of the mean.
        average: how many of them.
        of: which figure the points are. Of `loss` the points themselves are averaged, each between
            its neighbours; of `mean_loss` all steps of the last `average * spacing` tokens.
    """
    if of == "mean_loss":
        return window_mean(points, tokens, width=average * spacing)
    return statistics.fmean(at_tokens(points, tokens - i * spacing) for i in range(average))


def window_mean(points: Points, tokens: float, *, width: float) -> float:
    """Return the mean over the `width` tokens before `tokens`, of means that end at their points.

    How often a run logs makes no difference. NaN where one of the means is, or there is none.
    """
    total = weight = 0.0
    for (begin, _), (end, loss) in pairwise([(0.0, 0.0), *points]):
        overlap = min(end, tokens) - max(begin, tokens - width)
        if overlap > 0:
            total += overlap * loss
            weight += overlap
    return total / weight if weight else math.nan


def at_tokens(points: Points, tokens: float) -> float:
    """Return the loss at `tokens`, linear between lines; before the first it is the first."""
    right = bisect_left(points, (tokens, -math.inf))
    if right == len(points):
        return points[-1][1]
    if right == 0 or points[right][0] == tokens:
        return points[right][1]
    (x0, y0), (x1, y1) = points[right - 1], points[right]
    return y0 + (tokens - x0) / (x1 - x0) * (y1 - y0)
