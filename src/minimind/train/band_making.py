"""Making a loss band from runs that differ in their seed: `minimind report band RUN RUN RUN`.

Around the mean of the seeds a 99 % prediction interval for one further run is laid (Student's t;
Hahn, "Factors for Calculating Two-Sided Prediction Intervals", JASA 64, 1969; the variance is
pooled over neighbouring points), widened to the seeds themselves. It is made of `mean_loss` where
all runs have it (`band_curves`), else of `loss`.
"""

from __future__ import annotations

import math
import statistics
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from minimind.errors import DataError, UserError
from minimind.train.band_curves import Of, at_tokens, curve, smoothed
from minimind.train.bands import (
    AVERAGE,
    SAME_RATE,
    Band,
    Point,
    identity,
    optim_settings,
)
from minimind.train.metrics import read_metrics

POOLED = 5
"""Points on either side whose variance is pooled."""
T_995 = ((1, 63.66), (2, 9.92), (3, 5.84), (4, 4.60), (5, 4.03), (6, 3.71), (7, 3.50), (8, 3.36),
         (10, 3.17), (15, 2.95), (20, 2.85), (30, 2.75), (60, 2.66), (math.inf, 2.58))  # fmt: skip
"""99.5 % quantiles of Student's t by degrees of freedom."""


def make_band(runs: Sequence[Path], *, name: str, command: str = "") -> Band:
    """Make a band from runs that differ in their seed only.

    Raises:
        DataError: fewer than two runs, equal seeds, other data or models, or too few lines.
    """
    if len(runs) < 2:
        raise DataError(f"a band needs at least two runs of different seeds, not {len(runs)}")
    about = [_described(run) for run in runs]
    identity_, settings = about[0][0], about[0][1]
    for run, (other, others, _) in zip(runs, about, strict=True):
        for one, two in ((identity_, other), (settings, others)):
            if wrong := [key for key in one if one[key] != two.get(key)]:
                raise DataError(
                    f"{run}: {wrong[0]} = {two.get(wrong[0])!r}, but {one[wrong[0]]!r} in "
                    f"{runs[0]}: runs of a band differ in their seed only"
                )
    seeds = [seed for _, _, seed in about]
    if len(set(seeds)) < len(seeds):
        raise DataError(f"seeds {', '.join(map(str, seeds))}: each run needs its own")
    logs = [[line for line in read_metrics(run / "metrics.jsonl") if "lr" in line] for run in runs]
    spacing, grid = _grid(runs, logs)
    everywhere = all("mean_loss" in line for lines in logs for line in lines)
    of: Of = "mean_loss" if everywhere else "loss"
    curves = [curve(lines, of) for lines in logs]
    values = [
        [smoothed(points, tokens, spacing=spacing, average=AVERAGE, of=of) for points in curves]
        for tokens in grid
    ]
    return Band(
        name=name, seeds=tuple(seeds), identity=identity_, settings=settings, spacing=spacing,
        command=command, of=of,
        points=tuple(
            Point(tokens, *_interval(values, i), _median(logs, "lr", tokens),
                  _median(logs, "grad_norm", tokens))
            for i, tokens in enumerate(grid)
        ),
    )  # fmt: skip


def left_out(runs: Sequence[Path]) -> float:
    """Return the share of points at which a run lies inside the band of the others (3 or more)."""
    inside = total = 0
    for run in runs:
        band = make_band([other for other in runs if other != run], name="")
        points = curve(read_metrics(run / "metrics.jsonl"), band.of)
        for point in band.points:
            inside += point.low <= band.loss(points, point.tokens) <= point.high
            total += 1
    return inside / total


def _interval(values: Sequence[Sequence[float]], i: int) -> tuple[float, float, float]:
    """Return low, median, high at point `i` from the seeds' values at all points."""
    here = values[i]
    near = values[max(0, i - POOLED) : i + POOLED + 1]
    variance = statistics.fmean(statistics.variance(row) for row in near)
    # Neighbours share all but one of the `AVERAGE` intervals: as many of them are one observation.
    freedom = (len(here) - 1) * max(1.0, len(near) / AVERAGE)
    quantile = next(t for df, t in reversed(T_995) if df <= max(1.0, freedom))
    half = quantile * math.sqrt(variance * (1 + 1 / len(here)))
    mean = statistics.fmean(here)
    return min(mean - half, *here), statistics.median(here), max(mean + half, *here)


def _grid(
    runs: Sequence[Path], logs: Sequence[Sequence[Mapping[str, Any]]]
) -> tuple[float, list[float]]:
    """Return the spacing of the first run's lines and the tokens that all runs reached."""
    for run, lines in zip(runs, logs, strict=True):
        if any(line["loss"] is None for line in lines):
            raise DataError(f"{run}: a loss is not a number: no band can be made of such a run")
        if len(lines) < 2 * AVERAGE:
            raise DataError(
                f"{run}: {len(lines)} logged steps; a band needs {2 * AVERAGE}. Train longer, or "
                "log more often with --log.every"
            )
    tokens = [float(line["tokens"]) for line in logs[0]]
    spacing = tokens[1] - tokens[0]
    last = min(float(lines[-1]["tokens"]) for lines in logs)
    first = max(float(lines[0]["tokens"]) for lines in logs) + (AVERAGE - 1) * spacing
    grid = []
    for place in tokens:
        rates = [at_tokens(_values(lines, "lr"), place) for lines in logs]
        if place >= first and max(rates) - min(rates) > SAME_RATE * max(rates):
            break  # the schedules part here: one run decays, or warms up longer
        if first <= place <= last:
            grid.append(place)
    if not grid:
        raise DataError(
            f"{', '.join(map(str, runs))}: their learning rates differ from {first:,.0f} tokens "
            "on, where a band would begin: runs of a band have the same schedule"
        )
    return spacing, grid


def _values(lines: Sequence[Mapping[str, Any]], key: str) -> list[tuple[float, float]]:
    return [(float(line["tokens"]), float(line[key] or 0)) for line in lines]


def _median(logs: Sequence[Sequence[Mapping[str, Any]]], key: str, tokens: float) -> float:
    return statistics.median(at_tokens(_values(lines, key), tokens) for lines in logs)


def _described(run: Path) -> tuple[Mapping[str, Any], Mapping[str, Any], int]:
    try:
        seed = int(tomllib.loads((run / "run.toml").read_text(encoding="utf-8")).get("seed", 42))
        return identity(run), optim_settings(run), seed
    except (OSError, ValueError, UserError) as error:
        raise DataError(f"{run} can't be part of a band: {error}") from error
