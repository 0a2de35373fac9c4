import math

import numpy as np
import pytest

from minimind.eval.results import Measure
from minimind.eval.statistics import (
    against_chance,
    bootstrap_ratio,
    ratio_measure,
    share_measure,
    wilson,
)


def test_wilson_equals_published_values():
    # Newcombe 1998, table I, method 3 (Wilson score): 81/263, 15/148, 0/20, 1/29.
    for successes, n, low, high in (
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ):
        assert wilson(successes, n) == pytest.approx((low, high), abs=6e-5)


def test_wilson_of_nothing_says_nothing():
    assert wilson(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize("p", [0.05, 0.25, 0.6])
def test_wilson_covers_the_truth_in_about_95_percent(p):
    n, trials = 120, 4000
    hits = np.random.default_rng(0).binomial(n, p, trials)
    covered = [low <= p <= high for low, high in (wilson(int(k), n) for k in hits)]
    assert 0.93 < np.mean(covered) < 0.975


def test_bootstrap_covers_the_truth_of_a_ratio_of_unequal_units():
    # Documents of very unequal length, the long ones cheaper: bits / bytes is a ratio of sums.
    generator = np.random.default_rng(1)
    population_bytes = np.exp(generator.normal(5, 1, 200_000))
    population_bits = population_bytes * generator.gamma(20, 0.1, 200_000) + 20
    truth = population_bits.sum() / population_bytes.sum()
    covered = 0
    for trial in range(200):
        drawn = generator.integers(0, 200_000, 150)
        low, high = bootstrap_ratio(
            population_bits[drawn], population_bytes[drawn], resamples=300, seed=trial
        )
        covered += low <= truth <= high
    assert 0.88 < covered / 200 <= 0.99


def test_bootstrap_is_repeatable_and_of_one_unit_is_its_value():
    assert bootstrap_ratio([3.0], [2.0]) == (1.5, 1.5)
    data = [1.0, 2.0, 5.0], [1.0, 1.0, 2.0]
    assert bootstrap_ratio(*data, seed=4) == bootstrap_ratio(*data, seed=4)


def test_ratio_measure_is_the_ratio_of_sums_by_group_too():
    measure = ratio_measure([1.0, 2.0, 9.0], [1.0, 2.0, 3.0], unit="x", groups=["a", "a", "b"])
    assert measure.value == pytest.approx(2.0)
    assert measure.groups["a"].value == pytest.approx(1.0)
    assert measure.groups["b"].n == 1
    assert measure.n == sum(group.n for group in measure.groups.values())


def test_share_of_nothing_is_not_a_number_but_has_an_interval():
    measure = share_measure([], unit="problems")
    assert math.isnan(measure.value)
    assert measure.interval == (0.0, 1.0)


@pytest.mark.parametrize(
    ("hits", "n", "en", "zh"),
    [
        (60, 100, "better than chance", "高于随机"),
        (27, 100, "not distinguishable", "无法区分"),
        (5, 100, "worse than chance", "低于随机"),
    ],
)
def test_chance_in_words(hits, n, en, zh):
    measure = share_measure([True] * hits + [False] * (n - hits), unit="questions", chance=0.25)
    assert en in against_chance(measure)
    assert zh in against_chance(measure, language="zh")


def test_without_a_chance_level_nothing_is_claimed():
    assert against_chance(Measure(value=0.9)) == "not measured"
