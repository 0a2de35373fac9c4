"""Loss bands: where the loss of a healthy run lies, from several seeds, by tokens.

    presets/bands/NAME.json   identity (model, data, tokenizer, rows), settings, points
    RUN                       its identity from run.toml and ledger.json, its losses from metrics

A band belongs to what a loss depends on: model shape, data files, tokenizer, objective, row length,
tokens a step. It says nothing of learning rates: a wrong one is what a band is there to catch.
A single step's loss is noisy, so both sides are means over the steps of the last `average *
spacing` tokens (`band_curves`). `band_making` makes one.
"""

from __future__ import annotations

import hashlib
import json
import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from minimind.config import ModelConfig
from minimind.errors import ConfigError, DataError
from minimind.settings import PRESETS, load_run_config
from minimind.train.band_curves import Of, Points, curve, smoothed

BANDS = PRESETS / "bands"
SCHEMA = 1
AVERAGE = 3
"""Logged intervals whose mean is judged."""

SCHEDULE = {"schedule", "warmup_share", "decay_share", "final_lr_share"}
SAME_RATE = 0.02
"""Learning rates that differ by less are the same: schedules round to whole steps."""

Where = Literal["inside", "above", "below", "not a number"]


@dataclass(frozen=True, slots=True)
class Point:
    """The band at one number of trained tokens; losses in nats, means over `average` intervals."""

    tokens: float
    low: float
    median: float
    high: float
    lr: float
    grad_norm: float


@dataclass(frozen=True, kw_only=True)
class Band:
    """Where healthy runs lie.

    Attributes:
        name: of the file.
        seeds: of the runs that it was made from.
        identity: what a run must share with it (`identity`).
        settings: of the optimiser and the schedule, to say what differs when a run is outside.
        spacing: tokens between the points of a mean.
        average: points of a mean.
        of: the figure of metrics.jsonl that it is made of.
        points: by tokens, ascending.
        command: how its runs were made.
    """

    name: str
    seeds: tuple[int, ...]
    identity: Mapping[str, Any]
    settings: Mapping[str, Any]
    spacing: float
    points: tuple[Point, ...]
    average: int = AVERAGE
    of: Of = "loss"
    command: str = ""

    def loss(self, points: Points, tokens: float) -> float:
        """Return what is judged of a run's `curve` at `tokens`."""
        return smoothed(points, tokens, spacing=self.spacing, average=self.average, of=self.of)

    def at(self, tokens: float) -> Point | None:
        """Return the band at `tokens` (linear between points), or None outside its reach."""
        places = [point.tokens for point in self.points]
        if not places or not places[0] <= tokens <= places[-1]:
            return None
        right = max(1, bisect_left(places, tokens)) if len(places) > 1 else 0
        a, b = self.points[max(0, right - 1)], self.points[right]
        share = 0.0 if a is b else (tokens - a.tokens) / (b.tokens - a.tokens)
        names = ("low", "median", "high", "lr", "grad_norm")
        mixed = [getattr(a, n) + share * (getattr(b, n) - getattr(a, n)) for n in names]
        return Point(tokens, *mixed)


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Where a run is, beside its band.

    Attributes:
        where: inside, above, below, or the loss is not a number.
        loss: the run's mean; NaN where it is none.
        grad_norm: the run's, at that point.
        point: the band there.
        differs: settings that are not the band's, by name: (the run's, the band's).
    """

    where: Where
    loss: float
    grad_norm: float
    point: Point
    seeds: int
    differs: Mapping[str, tuple[Any, Any]] = field(default_factory=dict)


# ---------------------------------------------------------------- judging


def judge(
    band: Band, lines: Sequence[Mapping[str, Any]], *, settings: Mapping[str, Any] | None = None
) -> Verdict | None:
    """Say where a run is at the last of its lines that the band reaches.

    Args:
        band: of its identity.
        lines: of metrics.jsonl, so far.
        settings: the run's `optim_settings`, to name what differs.

    Returns:
        None where no line that has the band's figure lies within its tokens.
    """
    points = curve(lines, band.of)
    reached = [tokens for tokens, _ in points if band.at(tokens) is not None]
    if not reached:
        return None
    tokens = reached[-1]
    place = band.at(tokens)
    assert place is not None
    loss = band.loss(points, tokens)
    here = [line for line in lines if line.get("tokens") == tokens and "loss" in line]
    norm, lr = (here[-1].get(key) for key in ("grad_norm", "lr"))
    where: Where = (
        "not a number" if math.isnan(loss)
        else "above" if loss > place.high
        else "below" if loss < place.low
        else "inside"
    )  # fmt: skip
    differs = {
        name: (value, band.settings[name])
        for name, value in (settings or {}).items()
        if name in band.settings and value != band.settings[name]
    }
    if lr is not None and not differs and abs(lr - place.lr) > SAME_RATE * place.lr:
        differs = {"lr": (float(f"{lr:.3g}"), float(f"{place.lr:.3g}"))}
    return Verdict(
        where=where, loss=loss, point=place, seeds=len(band.seeds), differs=differs,
        grad_norm=math.nan if norm is None else float(norm),
    )  # fmt: skip


# ---------------------------------------------------------------- whose band


def identity(run: Path) -> dict[str, Any]:
    """Return what a loss at so many tokens depends on, from run.toml and ledger.json.

    Raises:
        DataError: one of the two is missing or is not what a run writes.
        ConfigError: run.toml has settings that are unknown here.
    """
    config = load_run_config([str(run / "run.toml")])
    usual = asdict(ModelConfig())
    try:
        ledger = json.loads((run / "ledger.json").read_text(encoding="utf-8"))
        sums = sorted(entry["sha256"] for entry in ledger["data"])
        tokenizer, checkpoint = ledger["from"]["tokenizer_sha256"], ledger["from"]["checkpoint"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{run / 'ledger.json'} is not the ledger of a run: {error!r}") from error
    shape = {name: value for name, value in asdict(config.model).items() if value != usual[name]}
    plain = {
        "model": shape,
        "data": hashlib.sha256("".join(sums).encode()).hexdigest(),
        "tokenizer": tokenizer,
        "start": checkpoint and checkpoint["sha256"],
        "objective": config.objective.kind,
        "data.kind": config.data.kind,
        "data.sequence_length": config.data.sequence_length,
        "data.weights": config.data.weights,
        "train.batch_rows": config.train.batch_rows,
        "lora": config.lora and asdict(config.lora),
    }
    return json.loads(json.dumps(plain))


def optim_settings(run: Path) -> dict[str, Any]:
    """Return the optimiser's settings, flat: what is looked at when a run leaves its band.

    Without the schedule's: its shares are of a run's length, so what counts is the rate itself.
    """
    config = load_run_config([str(run / "run.toml")])
    plain = {
        f"optim.{name}": value
        for name, value in asdict(config.optim).items()
        if name not in SCHEDULE
    }
    plain |= {"data.document_mask": config.data.document_mask, "data.pack": config.data.pack}
    return json.loads(json.dumps(plain))


def find_band(run: Path, *, wish: str = "auto") -> Band | None:
    """Return the band of a run.

    Args:
        run: its directory, with run.toml and ledger.json.
        wish: `auto` takes the packaged band of the same identity, `none` none; else a file.

    Raises:
        ConfigError: the file is not there, is no band, or belongs to something else.
    """
    if wish == "none":
        return None
    mine = identity(run)
    if wish != "auto":
        band = load_band(Path(wish))
        if wrong := [key for key, value in band.identity.items() if mine.get(key) != value]:
            raise ConfigError(
                f"log.band = {wish}: it belongs to another {', '.join(wrong)}: "
                f"{band.identity[wrong[0]]!r}, not {mine.get(wrong[0])!r}"
            )
        return band
    found = (load_band(path) for path in sorted(BANDS.glob("*.json")))
    return next((band for band in found if band.identity == mine), None)


def load_band(path: Path) -> Band:
    """Read a band.

    Raises:
        ConfigError: the file is not there or is no band.
    """
    try:
        plain = json.loads(path.read_text(encoding="utf-8"))
        if plain.pop("schema") != SCHEMA:
            raise ValueError(f"its schema is not {SCHEMA}")
        points = tuple(Point(**point) for point in plain.pop("points"))
        return Band(points=points, seeds=tuple(plain.pop("seeds")), **plain)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"{path} is not a loss band ({error}); make one: minimind report band RUN RUN RUN"
        ) from error


def save_band(band: Band, path: Path) -> None:
    """Write a band as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    plain = {"schema": SCHEMA, **asdict(band)}
    path.write_text(json.dumps(plain, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def in_words(verdict: Verdict) -> str:
    """Say a verdict in one line, and what to look at where it is not a good one."""
    point = verdict.point
    band = f"the band of {verdict.seeds} seeds at {point.tokens / 1e6:.2f}M tokens"
    figures = f"{verdict.loss:.3f}, band {point.low:.3f}-{point.high:.3f}"
    if verdict.where == "inside":
        return f"inside {band}: {figures}"
    if verdict.where == "not a number":
        return f"the loss is not a number; {band} is {point.low:.3f}-{point.high:.3f}"
    hint = "; ".join(
        f"{name} is {mine} (the band's: {theirs})"
        for name, (mine, theirs) in verdict.differs.items()
    )
    if not hint and verdict.grad_norm > 3 * point.grad_norm:
        hint = f"the gradient norm is {verdict.grad_norm:.2f} (the band's: {point.grad_norm:.2f})"
    usual = {
        "above": "the settings are the band's: at the order of the data, labels and mask, and what "
        "changed in the code",
        "below": "whether held-out text is trained on, labels and mask, the length of the rows",
    }
    return f"{verdict.where} {band}: {figures}; look at: {hint or usual[verdict.where]}"
