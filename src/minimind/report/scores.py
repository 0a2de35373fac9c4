"""The section of scores: every share that was measured, with interval, n and chance line."""

from __future__ import annotations

from minimind.eval.results import Measure
from minimind.eval.statistics import against_chance
from minimind.report.blocks import Block, Figure, Folded, Heading, Paragraph, Table
from minimind.report.charts import Interval, IntervalPlot
from minimind.report.writer import Run, Writer, interval

SHOWN_ELSEWHERE = {"bits_per_byte", "answer_loss", "dpo_loss", "preference_margin"}
ORDER = ("start", "pretrain", "sft", "dpo")
GREY = 5
PER_PLOT = 12
CLEAN = "_clean"
"""Ends the name of a figure without items that were found in the training text."""


def is_share(name: str, measure: Measure) -> bool:
    """Tell whether a figure is a share from 0 to 1: what it says is not in eval.json."""
    ends = [end for end in (measure.low, measure.value, measure.high) if end is not None]
    if "bits" in name or "loss" in name:
        return False
    return measure.chance is not None or all(0 <= end <= 1 for end in ends)


def shown(name: str, value: float | None, measure: Measure) -> str:
    """Return a figure as people read it: a share in percent, another with three decimals."""
    if value is None:
        return ""
    return f"{value:.1%}" if is_share(name, measure) else f"{value:,.3f}"


def measured(run: Run) -> list[tuple[str, str, Measure]]:
    """Return (measure, subject, figure) of all that no other section shows, stages in order."""
    places = {stage: number for number, stage in enumerate(ORDER)}
    return sorted(
        (
            (name, subject, measure)
            for subject, measures in run.evaluation.results.items()
            for name, measure in measures.items()
            if name not in SHOWN_ELSEWHERE
        ),
        key=lambda row: (row[0], places.get(row[1], len(places)), row[1]),
    )


def scores(run: Run, say: Writer) -> list[Block]:
    """A picture, a table, the groups folded, and how each was measured."""
    rows = measured(run)
    if not rows:
        return []
    blocks: list[Block] = [Heading(say("scores"))]
    if plots := _plots(rows, say):
        blocks += [Paragraph(say("scores_text")), Figure("scores", plots, say("scores_caption"))]
    if any(name.startswith("choice_") for name, _, _ in rows):
        blocks.append(Paragraph(say("choice_text")))
    if any(name.endswith(CLEAN) for name, _, _ in rows):
        blocks.append(Paragraph(say("clean_text")))
    header = tuple(say(key) for key in ("measure", "subject", "value", "interval", "n", "verdict"))
    table = tuple(
        (
            say.known(name), say.stage(subject), shown(name, measure.value, measure),
            interval(measure, form=".1%" if is_share(name, measure) else ".3f"),
            f"{measure.n:,}",
            say("no_chance") if measure.chance is None
            else against_chance(measure, language=say.language),
        )
        for name, subject, measure in rows
    )  # fmt: skip
    blocks.append(Table(header, table, frozenset({2, 3, 4})))
    if grouped := _groups(rows, say):
        blocks.append(Folded(say("by_group"), (grouped,)))
    if notes := _notes(rows, say):
        blocks.append(Folded(say("notes"), (notes,)))
    return blocks


def _plots(rows: list[tuple[str, str, Measure]], say: Writer) -> tuple[IntervalPlot, ...]:
    intervals = [
        Interval(
            f"{say.known(name)} · {say.stage(subject)}", measure.value, measure.low, measure.high,
            measure.chance, _colour(measure), f"n = {measure.n:,}",
        )
        for name, subject, measure in rows
        if is_share(name, measure) and not name.endswith(CLEAN)
    ]  # fmt: skip
    legend = ((say("apart"), 0), (say("not_apart"), GREY), (say("no_chance"), 2))
    used = {row.colour for row in intervals}
    return tuple(
        IntervalPlot(
            title=say("scores_title"), rows=tuple(intervals[start : start + PER_PLOT]),
            legend=tuple((name, colour) for name, colour in legend if colour in used),
            chance_label=say("chance"),
        )
        for start in range(0, len(intervals), PER_PLOT)
    )  # fmt: skip


def _colour(measure: Measure) -> int:
    if measure.chance is None:
        return 2
    if measure.interval is None:
        return GREY
    low, high = measure.interval
    return GREY if low <= measure.chance <= high else 0


def _groups(rows: list[tuple[str, str, Measure]], say: Writer) -> Table | None:
    found = tuple(
        (
            say.known(name), say.stage(subject), group, shown(name, part.value, measure),
            interval(part, form=".1%" if is_share(name, measure) else ".3f"), f"{part.n:,}",
        )
        for name, subject, measure in rows
        for group, part in measure.groups.items()
    )  # fmt: skip
    header = tuple(say(key) for key in ("measure", "subject", "group", "value", "interval", "n"))
    return Table(header, found, frozenset({3, 4, 5})) if found else None


def _notes(rows: list[tuple[str, str, Measure]], say: Writer) -> Table | None:
    found = {say.known(name): measure.note for name, _, measure in rows if measure.note}
    header = (say("measure"), say("notes"))
    return Table(header, tuple(found.items())) if found else None
