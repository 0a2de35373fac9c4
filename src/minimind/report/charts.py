"""What is drawn, as data; `svg` draws it. The same plots go into the page and beside Markdown.

Colours are numbers of a palette with a light and a dark form: 0 and 1 are the two that a plot needs
most (training and held-out, run A and run B).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

Style = Literal["line", "faint", "dots", "dashed"]
Unit = Literal["", "tokens", "seconds", "percent"]
Points = Sequence[tuple[float, float]]

SHOWN = 600
"""Points of a line that are drawn: a plot is less wide than that in pixels."""


@dataclass(frozen=True, slots=True)
class Series:
    """A line through points (x, y); `faint` is behind its own mean, `dots` are single figures."""

    name: str
    points: Points
    colour: int = 0
    style: Style = "line"


@dataclass(frozen=True, slots=True)
class Area:
    """A shaded band: (x, low, high)."""

    name: str
    points: Sequence[tuple[float, float, float]]
    colour: int = 2


@dataclass(frozen=True, slots=True)
class LinePlot:
    """Curves over one x; `levels` are horizontal lines with their names."""

    title: str
    x_label: str
    y_label: str
    series: tuple[Series, ...]
    areas: tuple[Area, ...] = ()
    levels: tuple[tuple[str, float], ...] = ()
    x_unit: Unit = "tokens"
    y_unit: Unit = ""
    zero: bool = False


@dataclass(frozen=True, slots=True)
class BarPlot:
    """Groups of bars side by side; None leaves a gap."""

    title: str
    groups: tuple[str, ...]
    bars: tuple[tuple[str, tuple[float | None, ...], int], ...]


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure with its interval and what guessing gives, as one line of an `IntervalPlot`."""

    label: str
    value: float
    low: float | None = None
    high: float | None = None
    chance: float | None = None
    colour: int = 0
    note: str = ""


@dataclass(frozen=True, slots=True)
class IntervalPlot:
    """Shares from 0 to 1 with intervals; a dashed tick is the chance line."""

    title: str
    rows: tuple[Interval, ...]
    legend: tuple[tuple[str, int], ...] = ()
    chance_label: str = ""


Plot = LinePlot | BarPlot | IntervalPlot


def running_mean(values: Sequence[float], *, window: int) -> list[float]:
    """Return the mean of each value and those before it, at most `window` of them."""
    return [
        sum(part) / len(part)
        for i in range(len(values))
        if (part := values[max(0, i + 1 - window) : i + 1])
    ]


def thinned(points: Sequence[Any], *, limit: int = SHOWN) -> list[Any]:
    """Return at most about `limit` of the points, evenly, the first and the last among them."""
    if len(points) <= limit:
        return list(points)
    step = (len(points) - 1) / (limit - 1)
    return [points[round(i * step)] for i in range(limit)]
