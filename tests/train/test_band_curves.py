"""The losses that bands judge: means over all steps, however often a run logs."""

import math
import random
import statistics

import pytest
from test_bands import write_run

from minimind.train.band_curves import curve, smoothed, window_mean
from minimind.train.band_making import make_band
from minimind.train.bands import judge, load_band, save_band
from minimind.train.metrics import LossMean
from minimind.train.trainer import StepReport

STEP = 100
"""Tokens a step."""


def steps(seed, *, count=200, noise=0.3):
    """Losses of all steps of a run that falls from 8 to 5, with the noise of its batches."""
    draw = random.Random(seed)
    return [5 + 3 / (1 + i / 10) + draw.gauss(0, noise) for i in range(count)]


def lines(losses, *, every):
    """What is logged of them: a line every so many steps, with the mean of all between."""
    return [
        {"step": i, "tokens": i * STEP, "loss": losses[i - 1], "lr": 0.006, "grad_norm": 1.0,
         "mean_loss": statistics.fmean(losses[i - every : i])}
        for i in range(every, len(losses) + 1, every)
    ]  # fmt: skip


@pytest.mark.parametrize("every", [1, 5, 10])
def test_a_window_is_the_mean_of_its_steps_however_often_they_are_logged(every):
    losses = steps(1)
    points = curve(lines(losses, every=every), "mean_loss")
    for end in (30, 60, 200):
        mean = window_mean(points, end * STEP, width=30 * STEP)
        assert mean == pytest.approx(statistics.fmean(losses[end - 30 : end]))
    same = smoothed(points, 60 * STEP, spacing=10 * STEP, average=3, of="mean_loss")
    assert same == pytest.approx(statistics.fmean(losses[30:60]))


def test_a_window_that_holds_a_nan_is_nan_and_later_ones_are_not():
    points = [(100.0, 5.0), (200.0, math.nan), (300.0, 4.0), (400.0, 4.5)]
    assert math.isnan(window_mean(points, 300.0, width=200.0))
    assert window_mean(points, 400.0, width=200.0) == pytest.approx(4.25)
    assert math.isnan(window_mean([], 100.0, width=50.0))


def test_a_mean_begins_anew_when_it_is_taken():
    def report(loss, learnt=8):
        return StepReport(step=1, loss=loss, tokens=8, learnt_tokens=learnt, grad_norm=1.0,
                          lr=0.1, seconds=1.0)  # fmt: skip

    mean = LossMean()
    for loss in (3.0, 5.0):
        mean.add(report(loss))
    mean.add(report(math.nan, learnt=0))  # nothing to learn: no loss
    assert mean.line(regular=True) == pytest.approx(4.0)
    assert math.isnan(mean.line(regular=True))
    mean.add(report(2.0))
    assert mean.line(regular=False) == pytest.approx(2.0)  # a stop's own line takes nothing away
    mean.add(report(4.0))
    assert mean.line(regular=True) == pytest.approx(3.0)
    mean.add(report(math.nan))
    assert math.isnan(mean.line(regular=True))


def test_a_band_of_means_is_a_third_as_wide_and_holds_healthy_runs(tmp_path):
    """The noise is that of batches: 30 of them instead of 3 are worth a factor of sqrt(10)."""
    wide, narrow = [], []
    for seed in range(1, 9):
        logged = lines(steps(seed), every=10)
        single = [{k: v for k, v in line.items() if k != "mean_loss"} for line in logged]
        wide.append(write_run(tmp_path / f"w{seed}", single, seed=seed))
        narrow.append(write_run(tmp_path / f"n{seed}", logged, seed=seed))
    of_steps, of_means = make_band(wide, name="w"), make_band(narrow, name="n")
    assert (of_steps.of, of_means.of) == ("loss", "mean_loss")

    def width(band):
        return statistics.fmean(point.high - point.low for point in band.points)

    assert width(of_means) < 0.45 * width(of_steps)
    inside = sum(
        judge(of_means, lines(steps(seed), every=every)).where == "inside"
        for seed in range(50, 100)
        for every in (5, 10)
    )
    assert inside >= 95
    save_band(of_means, tmp_path / "band.json")
    assert load_band(tmp_path / "band.json") == of_means


def test_a_run_without_means_is_not_judged_by_a_band_of_means(tmp_path):
    runs = [
        write_run(tmp_path / f"{seed}", lines(steps(seed), every=10), seed=seed)
        for seed in (1, 2, 3)
    ]
    band = make_band(runs, name="b")
    old = [
        {k: v for k, v in line.items() if k != "mean_loss"} for line in lines(steps(9), every=10)
    ]
    assert judge(band, old) is None
    assert judge(band, lines(steps(9), every=10)).where == "inside"
    # One old run among them makes a band of single steps, as before.
    mixed = make_band([*runs, write_run(tmp_path / "old", old, seed=9)], name="m")
    assert mixed.of == "loss"
