"""How sure a figure is: intervals for shares and ratios of sums, and what they say in words."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import numpy as np

from minimind.eval.results import Measure

Z_95 = 1.959963984540054
"""97.5 % quantile of the standard normal distribution."""

Language = Literal["en", "zh"]


def wilson(successes: int, n: int, *, z: float = Z_95) -> tuple[float, float]:
    """Return the interval of a share (Wilson 1927); (0, 1) where nothing was drawn.

    Unlike `p ± z·sqrt(p(1-p)/n)` it stays inside 0..1 and holds for small n and extreme shares.
    """
    if n == 0:
        return 0.0, 1.0
    p = successes / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def bootstrap_ratio(
    numerators: Sequence[float],
    denominators: Sequence[float],
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> tuple[float, float]:
    """Return the 95 % percentile-bootstrap interval of sum(numerators) / sum(denominators).

    Whole units (documents, conversations) are drawn with replacement, because the tokens of one
    document are not independent. A unit's numerator and denominator stay together. With one unit
    nothing is known about the spread: the interval is the value itself. With fewer than about 20
    units the interval is too narrow (percentile bootstrap).
    """
    top, bottom = np.asarray(numerators, float), np.asarray(denominators, float)
    n = len(top)
    if n == 0 or bottom.sum() == 0:
        return math.nan, math.nan
    generator = np.random.default_rng(seed)
    ratios = np.empty(resamples)
    for i in range(resamples):
        drawn = generator.integers(0, n, n)
        ratios[i] = top[drawn].sum() / max(bottom[drawn].sum(), 1e-12)
    low, high = np.quantile(ratios, (0.025, 0.975))
    return float(low), float(high)


def ratio_measure(
    numerators: Sequence[float],
    denominators: Sequence[float],
    *,
    unit: str,
    groups: Sequence[str] | None = None,
    details: Mapping[str, float] | None = None,
    note: str = "",
    seed: int = 0,
) -> Measure:
    """Make the measure sum(numerators) / sum(denominators), bootstrapped over its units.

    Args:
        numerators: one a unit, for example bits a document.
        denominators: one a unit, for example bytes a document.
        unit: what a unit is, in the plural.
        groups: the group of each unit; each gets a measure of its own.
        details: further numbers of the whole.
        note: how it was measured.
        seed: of the bootstrap.
    """

    def measure(members: Sequence[int]) -> Measure:
        top = [numerators[i] for i in members]
        bottom = [denominators[i] for i in members]
        low, high = bootstrap_ratio(top, bottom, seed=seed)
        total = sum(bottom)
        return Measure(
            value=sum(top) / total if total else math.nan,
            low=low,
            high=high,
            n=len(members),
            unit=unit,
        )

    return _with_groups(measure, len(numerators), groups, details, note)


def share_measure(
    hits: Sequence[bool],
    *,
    unit: str,
    chance: float | None = None,
    groups: Sequence[str] | None = None,
    details: Mapping[str, float] | None = None,
    note: str = "",
) -> Measure:
    """Make the measure "share of hits" with its Wilson interval."""

    def measure(members: Sequence[int]) -> Measure:
        k, n = sum(bool(hits[i]) for i in members), len(members)
        low, high = wilson(k, n)
        value = k / n if n else math.nan
        return Measure(value=value, low=low, high=high, n=n, unit=unit, chance=chance)

    return _with_groups(measure, len(hits), groups, details, note)


def _with_groups(
    measure: Callable[[Sequence[int]], Measure],
    n: int,
    groups: Sequence[str] | None,
    details: Mapping[str, float] | None,
    note: str,
) -> Measure:
    members: dict[str, list[int]] = {}
    for i, group in enumerate(groups or ()):
        members.setdefault(group, []).append(i)
    whole = measure(range(n))
    return Measure(
        value=whole.value,
        low=whole.low,
        high=whole.high,
        n=whole.n,
        unit=whole.unit,
        chance=whole.chance,
        groups={group: measure(rows) for group, rows in sorted(members.items())},
        details=details or {},
        note=note,
    )


def against_chance(measure: Measure, *, language: Language = "en") -> str:
    """Say in words whether a share differs from chance, judged by its 95 % interval."""
    words = _AGAINST_CHANCE[language]
    if measure.chance is None or measure.interval is None or measure.n == 0:
        return words["unknown"]
    low, high = measure.interval
    key = "above" if low > measure.chance else "below" if high < measure.chance else "same"
    return words[key].format(chance=f"{measure.chance:.0%}", low=f"{low:.0%}", high=f"{high:.0%}")


_AGAINST_CHANCE: dict[Language, dict[str, str]] = {
    "en": {
        "above": "better than chance ({chance})",
        "below": "worse than chance ({chance})",
        "same": "not distinguishable from chance ({chance} lies within {low}-{high})",
        "unknown": "not measured",
    },
    "zh": {
        "above": "高于随机水平（{chance}）",
        "below": "低于随机水平（{chance}）",
        "same": "与随机猜测无法区分（{chance} 落在区间 {low}-{high} 内）",
        "unknown": "未测量",
    },
}
