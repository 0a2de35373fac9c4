"""Two checkpoints on the same items: is the difference more than luck?

Paired, because most items are easy for both or hard for both: comparing two intervals throws that
away. Shares by McNemar's exact test on the items where only one is right; other figures by a
bootstrap over items.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from minimind.errors import DataError
from minimind.eval.tasks.base import Metric, Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """`ours - theirs` on the items that both answered.

    Attributes:
        value: the difference of the two figures.
        low: lower end of its 95 % interval (paired bootstrap).
        high: upper end.
        p: probability of a difference at least as large if there were none; two-sided.
        n: items compared.
        only_ours: items that only the first got right (shares only).
        only_theirs: items that only the second got right.
        test: `McNemar exact` or `paired bootstrap`.
    """

    value: float
    low: float
    high: float
    p: float
    n: int
    only_ours: int = 0
    only_theirs: int = 0
    test: str = "McNemar exact"

    def in_words(self) -> str:
        """Say whether the difference is more than luck."""
        if self.p >= 0.05:
            return f"no difference that {self.n:,} items could show (p = {self.p:.2g})"
        return f"a real difference (p = {self.p:.2g})"


def compare(
    metric: Metric, ours: Sequence[Outcome], theirs: Sequence[Outcome], *, seed: int = 0
) -> Difference:
    """Compare two subjects' outcomes under one metric.

    Raises:
        DataError: they have no item in common.
    """
    other = {outcome.item: outcome for outcome in theirs}
    pairs = [(mine, other[mine.item]) for mine in ours if mine.item in other]
    if not pairs:
        raise DataError(f"{metric.name}: the two have no item in common: nothing to compare")
    a_N2 = np.array([(mine.value, mine.weight) for mine, _ in pairs])
    b_N2 = np.array([(yours.value, yours.weight) for _, yours in pairs])
    differences = _resampled(a_N2, b_N2, metric, seed=seed)
    low, high = np.quantile(differences, (0.025, 0.975))
    value = _figure(a_N2, metric) - _figure(b_N2, metric)
    only_ours = only_theirs = 0
    if metric.kind == "share":
        a, b = a_N2[:, 0] > 0.5, b_N2[:, 0] > 0.5
        only_ours, only_theirs = int((a & ~b).sum()), int((b & ~a).sum())
        p, test = mcnemar(only_ours, only_theirs), "McNemar exact"
    else:
        # Twice the smaller tail, never below what so many resamples can tell.
        tail = min((differences <= 0).mean(), (differences >= 0).mean())
        p, test = float(min(1.0, max(2 * tail, 2 / len(differences)))), "paired bootstrap"
    return Difference(
        value=float(value), low=float(low), high=float(high), p=p, n=len(pairs),
        only_ours=only_ours, only_theirs=only_theirs, test=test,
    )  # fmt: skip


def mcnemar(only_a: int, only_b: int) -> float:
    """Return the exact two-sided p of McNemar's test (McNemar 1947; binomial, not chi-squared)."""
    n, k = only_a + only_b, min(only_a, only_b)
    if n == 0:
        return 1.0
    logs = [
        math.lgamma(n + 1) - math.lgamma(i + 1) - math.lgamma(n - i + 1) - n * math.log(2)
        for i in range(k + 1)
    ]
    return min(1.0, 2 * math.fsum(map(math.exp, logs)))


def _figure(values_N2: np.ndarray, metric: Metric) -> float:
    weight = values_N2[:, 1].sum() if metric.kind == "ratio" else len(values_N2)
    return float(values_N2[:, 0].sum() / weight) if weight else math.nan


def _resampled(
    a_N2: np.ndarray, b_N2: np.ndarray, metric: Metric, *, seed: int, resamples: int = 2000
) -> np.ndarray:
    generator = np.random.default_rng(seed)
    n = len(a_N2)
    drawn = (generator.integers(0, n, n) for _ in range(resamples))
    return np.array([_figure(a_N2[i], metric) - _figure(b_N2[i], metric) for i in drawn])
