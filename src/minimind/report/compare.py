"""Two runs side by side: curves at equal tokens and equal time, settings, scores."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from minimind.eval.results import Measure
from minimind.eval.statistics import Language
from minimind.report.blocks import Block, Bullets, Figure, Heading, Paragraph, Table, quoted
from minimind.report.charts import LinePlot, Series
from minimind.report.paired import paired
from minimind.report.scores import is_share, shown
from minimind.report.training import axis, over, smooth
from minimind.report.writer import Run, Training, Writer, interval
from minimind.train.band_curves import at_tokens

AVERAGED = 5
"""Logged points behind a loss that is compared: one step's is noise."""

NOT_COMPARED = {"name", "out"}
"""Settings that always differ and mean nothing."""

Pair = tuple[Training, Training]


def compare_blocks(a: Run, b: Run, *, language: Language) -> list[Block]:
    """Return the comparison of two runs.

    Args:
        a: from `read_run`.
        b: another one.
        language: of every sentence.
    """
    say = Writer(language)
    names = (a.directory.resolve().name, b.directory.resolve().name)
    pairs = _pairs(a, b)
    where = {"a": quoted(str(a.directory)), "b": quoted(str(b.directory))}
    blocks: list[Block] = [
        Heading(say("compare_title", a=names[0], b=names[1]), level=1),
        Paragraph(say("compare_intro", **where)),
        *_facts(a, b, say),
        Heading(say("compare_curves")),
    ]
    if not pairs:
        blocks.append(Paragraph(say("compare_none")))
    for pair in pairs:
        blocks += _curves(pair, say, titled=len(pairs) > 1)
    blocks += _settings(pairs, say)
    blocks += _scores(a, b, say)
    return blocks


def _pairs(a: Run, b: Run) -> list[Pair]:
    """Pair the training runs: by name, or the only one of each."""
    if len(a.trainings) == len(b.trainings) == 1:
        return [(next(iter(a.trainings.values())), next(iter(b.trainings.values())))]
    return [(one, b.trainings[name]) for name, one in a.trainings.items() if name in b.trainings]


def _facts(a: Run, b: Run, say: Writer) -> list[Block]:
    def row(key: str, of: Any) -> tuple[str, str, str]:
        return (say(key), of(a), of(b))

    rows = (
        row("card_parameters", lambda run: f"{run.parameters:,}" if run.parameters else "–"),
        row("card_tokens", lambda run: f"{run.tokens:,}"),
        row("card_time", lambda run: say.duration(run.total_seconds)),
        row("card_loss", lambda run: _held_out(run, "validation_loss")),
        row("card_bpb", lambda run: _held_out(run, "validation_bits_per_byte")),
    )
    header = (say("fact"), say("run_a"), say("run_b"))
    return [Heading(say("compare_facts")), Table(header, rows, frozenset({1, 2}))]


def _held_out(run: Run, key: str) -> str:
    found = (training.last(key) for training in run.trainings.values())
    values = [f"{value:.3f}" for value in found if value is not None]
    return " · ".join(values) or "–"


# ---------------------------------------------------------------- curves


def _curves(pair: Pair, say: Writer, *, titled: bool) -> list[Block]:
    stage = say.stage(pair[0].name)
    blocks: list[Block] = [Heading(stage, level=3)] if titled else []
    if not all(training.steps for training in pair):
        return [*blocks, Paragraph(say("missing_measure", what=say("what_metrics", stage=stage)))]
    sentences = [
        sentence
        for sentence in (_at_equal_tokens(pair, say), _at_equal_time(pair, say))
        if sentence
    ]
    if sentences:
        blocks.append(Bullets(tuple(sentences)))
    plots = [_overlay(pair, say, "loss", "compare_loss", faint=True)]
    if any(over(training, "seconds") for training in pair):
        plots.append(_overlay(pair, say, "loss", "compare_time", by="seconds", faint=True))
    for key, title in (
        ("validation_loss", "compare_held_out"), ("lr", "lr_title"), ("grad_norm", "norm_title"),
        ("tokens_per_second", "rate_title"),
    ):  # fmt: skip
        if any(over(training, key) for training in pair):
            plots.append(_overlay(pair, say, key, title))
    name = f"curves-{pair[0].name}"
    return [*blocks, Figure(name, tuple(plots), say("compare_caption", stage=stage))]


def _overlay(
    pair: Pair, say: Writer, key: str, title: str, *, by: str = "tokens", faint: bool = False
) -> LinePlot:
    series = []
    for number, (training, name) in enumerate(zip(pair, ("A", "B"), strict=True)):
        points = over(training, key, by=by)
        if faint:
            series += [Series("", points, number, "faint"), Series(name, smooth(points), number)]
        else:
            series.append(Series(name, points, number))
    label, unit = axis(pair[0], say)
    if by == "seconds":
        label, unit = say("x_time"), "seconds"
    return LinePlot(say(title), label, "", tuple(series), x_unit=unit)


def _at_equal_tokens(pair: Pair, say: Writer) -> str:
    found = _means(pair, "tokens")
    if found is None:
        return ""
    tokens, a, b = found
    return say(
        "equal_tokens", tokens=tokens, a=a, b=b, gap=abs(a - b), points=AVERAGED,
        winner=_lower(a, b, say),
    )  # fmt: skip


def _at_equal_time(pair: Pair, say: Writer) -> str:
    found = _means(pair, "seconds")
    if found is None:
        return ""
    seconds, a, b = found
    return say(
        "equal_time", time=say.duration(seconds), a=a, b=b, gap=abs(a - b),
        winner=_lower(a, b, say),
    )  # fmt: skip


def _means(pair: Pair, by: str) -> tuple[float, float, float] | None:
    """Return the furthest x that both reached, and each mean loss over the points before it."""
    curves = [over(training, "loss", by=by) for training in pair]
    if any(not any(line.get(by) for line in training.steps) for training in pair):
        return None
    end = min(points[-1][0] for points in curves)
    return end, _mean_before(curves[0], end), _mean_before(curves[1], end)


def _mean_before(points: Sequence[tuple[float, float]], end: float) -> float:
    until = [y for x, y in points if x < end][-(AVERAGED - 1) :]
    return statistics.fmean([*until, at_tokens(points, end)])


def _lower(a: float, b: float, say: Writer) -> str:
    return say("level") if a == b else "A" if a < b else "B"


# ---------------------------------------------------------------- settings


def flat(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (dotted name, value) of a TOML table's settings."""
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _settings(pairs: Sequence[Pair], say: Writer) -> list[Block]:
    blocks: list[Block] = []
    for pair in pairs:
        a, b = (dict(flat(training.settings)) for training in pair)
        rows = tuple(
            (f"`{name}`", *(_value(side.get(name), say) for side in (a, b)))
            for name in sorted({*a, *b} - NOT_COMPARED)
            if a.get(name) != b.get(name)
        )
        stage = say.stage(pair[0].name)
        if len(pairs) > 1:
            blocks.append(Heading(stage, level=3))
        header = (say("setting"), say("run_a"), say("run_b"))
        same = Paragraph(say("same_settings", stage=stage))
        blocks.append(Table(header, rows) if rows else same)
    return [Heading(say("compare_settings")), *blocks] if blocks else []


def _value(value: Any, say: Writer) -> str:
    return say("absent") if value is None else quoted(str(value))


# ---------------------------------------------------------------- scores


def _scores(a: Run, b: Run, say: Writer) -> list[Block]:
    rows = []
    for (mine, yours), name, one, other in _common(a, b):
        form = ".1%" if is_share(name, one) else ".3f"
        gap = other.value - one.value
        found = paired((a.directory, mine), (b.directory, yours), name)
        subjects = mine if mine == yours else f"{mine} / {yours}"
        rows.append((
            say.known(name) if name != "bits_per_byte" else say("card_bpb"), say.stage(subjects),
            *(f"{shown(name, m.value, m)} ({interval(m, form=form)})" for m in (one, other)),
            f"{gap:+.1%}" if form == ".1%" else f"{gap:+.3f}",
            say("no_items") if found is None
            else say("p_value", p=found.p, n=found.n, test=found.test),
        ))  # fmt: skip
    if not rows:
        return [Heading(say("compare_scores")), Paragraph(say("no_scores"))]
    header = tuple(
        say(key) for key in ("measure", "subject", "run_a", "run_b", "difference", "paired")
    )
    table = Table(header, tuple(rows), frozenset({2, 3, 4}))
    return [Heading(say("compare_scores")), Paragraph(say("compare_scores_text")), table]


def _common(a: Run, b: Run) -> Iterator[tuple[tuple[str, str], str, Measure, Measure]]:
    """Yield (A's subject and B's, measure, A's figure, B's): the same, or the only one of each."""
    left, right = a.evaluation.results, b.evaluation.results
    alone = len(left) == len(right) == 1
    for subject, measures in left.items():
        yours = next(iter(right)) if alone else subject
        for name, one in measures.items():
            if (other := right.get(yours, {}).get(name)) is not None:
                yield (subject, yours), name, one, other
