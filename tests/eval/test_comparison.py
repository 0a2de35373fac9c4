"""Paired comparison, against scipy's binomial test where it is there and by hand where not."""

import random

import pytest

from minimind.errors import DataError
from minimind.eval.comparison import compare, mcnemar
from minimind.eval.tasks.base import Metric, Outcome


def outcomes(values, weights=None):
    weights = weights or [1.0] * len(values)
    return [
        Outcome(item=str(i), value=float(value), weight=weight)
        for i, (value, weight) in enumerate(zip(values, weights, strict=True))
    ]


def test_mcnemar_is_the_exact_binomial_test():
    assert mcnemar(0, 0) == 1.0
    assert mcnemar(5, 5) == 1.0
    assert mcnemar(0, 6) == pytest.approx(2 / 2**6)
    assert mcnemar(1, 9) == pytest.approx(2 * (1 + 10) / 2**10)
    stats = pytest.importorskip("scipy.stats")
    for a, b in ((3, 17), (120, 90), (1000, 1100)):
        assert mcnemar(a, b) == pytest.approx(stats.binomtest(a, a + b).pvalue, rel=1e-9)


def test_a_real_difference_is_told_from_luck():
    draw = random.Random(0)
    base = [draw.random() < 0.4 for _ in range(600)]
    better = [one or draw.random() < 0.15 for one in base]
    shuffled = base[::-1]
    metric = Metric(name="share")
    real = compare(metric, outcomes(better), outcomes(base))
    assert real.p < 1e-6
    assert real.low > 0
    assert real.only_theirs == 0
    assert "a real difference" in real.in_words()
    luck = compare(metric, outcomes(shuffled), outcomes(base))
    assert luck.value == 0
    assert "no difference" in luck.in_words()


def test_ratios_are_compared_by_their_weights_on_common_items_only():
    metric = Metric(name="bits", kind="ratio", percent=False)
    ours = outcomes([10.0, 30.0, 5.0] * 30, [10.0, 10.0, 5.0] * 30)
    theirs = outcomes([20.0, 40.0, 7.0] * 30, [10.0, 10.0, 5.0] * 30)
    difference = compare(metric, ours, theirs[:-1])
    assert difference.n == 89
    assert difference.value == pytest.approx(45 / 25 - 67 / 25, abs=0.02)
    assert difference.high < 0
    assert difference.p <= 0.001
    assert difference.test == "paired bootstrap"
    with pytest.raises(DataError, match="no item in common"):
        compare(metric, ours, [])
