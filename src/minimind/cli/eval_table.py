"""What `minimind eval` shows to people: a table a task, and what the numbers say in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from rich import box
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from minimind.eval.cited import cited_for
from minimind.eval.comparison import Difference
from minimind.eval.harness import Asked, Scored
from minimind.eval.results import Measure
from minimind.eval.tasks.base import Metric


def progress_bars(console: Console) -> Progress:
    """Return bars with counts and the time that is left."""
    return Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
        TextColumn("left"), TimeRemainingColumn(), console=console, transient=True,
    )  # fmt: skip


def show(
    asked: Sequence[Asked],
    results: Mapping[str, Sequence[Scored]],
    differences: Mapping[str, Mapping[str, Difference]],
    *,
    cited_tasks: Sequence[str],
    parameters: Mapping[str, int],
) -> None:
    """Print one table a metric, then what was cut, found, compared."""
    console = Console(highlight=False)
    first = next(iter(results))
    for one in asked:
        for metric in one.task.metrics:
            rows = [
                (name, scored)
                for name, own in results.items()
                for scored in own
                if scored.metric.name == metric.name
            ]
            if rows:
                console.print(_table(one, metric, rows, cited_tasks, parameters))
                for line in _remarks(metric, rows, differences, first):
                    console.print(f"  {line}", markup=False)
                console.print()


def _table(
    asked: Asked,
    metric: Metric,
    rows: Sequence[tuple[str, Scored]],
    cited_tasks: Sequence[str],
    parameters: Mapping[str, int],
) -> Table:
    drawn = "" if len(asked.items) == asked.total else f", {len(asked.items):,} of {asked.total:,}"
    table = Table(
        title=f"{metric.name}: {metric.note}{drawn}", title_justify="left",
        box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, collapse_padding=True,
    )  # fmt: skip
    table.add_column("model", overflow="fold", min_width=8)
    for heading in ("size", "value", "95 % interval", "n", "chance"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("verdict", min_width=len("distinguishable"))
    for name, scored in rows:
        table.add_row(name, short_count(parameters[name]), *_cells(metric, scored.measure))
        if scored.clean is not None:
            table.add_row(f"{name}, unseen only", "", *_cells(metric, scored.clean), style="dim")
    if metric.name.endswith("_letter"):
        for one in cited_for(name for name in cited_tasks if name == asked.task.name):
            table.add_row(
                f"{one.model} (cited)", "", *_cells(metric, one.measure()), style="italic"
            )
    return table


def _cells(metric: Metric, measure: Measure) -> tuple[str, ...]:
    interval = measure.interval
    shown = _range(metric, *interval) if interval else "-"
    chance = "-" if measure.chance is None else number(metric, measure.chance)
    verdict = "" if measure.chance is None else verdict_of(metric, measure)
    return number(metric, measure.value), shown, f"{measure.n:,}", chance, verdict


def _range(metric: Metric, low: float, high: float) -> str:
    if metric.percent:
        return f"{100 * low:.1f}-{100 * high:.1f} %"
    return f"{low:.3f}-{high:.3f}"


def number(metric: Metric, value: float) -> str:
    """Return a figure as its metric is read: a percentage or a number."""
    return f"{100 * value:.1f} %" if metric.percent else f"{value:.3f}"


def verdict_of(metric: Metric, measure: Measure) -> str:
    """Say in a few words how a figure stands to chance, judged by its interval."""
    if measure.interval is None or measure.chance is None:
        return ""
    low, high = measure.interval
    if low <= measure.chance <= high:
        return "not distinguishable from chance"
    better = (low > measure.chance) == metric.higher_is_better
    return "better than chance" if better else "worse than chance"


def short_count(parameters: int) -> str:
    """Return 4.7M, 135M, 1.1B."""
    scale, letter = (1e9, "B") if parameters >= 1e9 else (1e6, "M")
    value = parameters / scale
    return f"{value:.1f}{letter}" if value < 100 else f"{value:.0f}{letter}"


def _remarks(
    metric: Metric,
    rows: Sequence[tuple[str, Scored]],
    differences: Mapping[str, Mapping[str, Difference]],
    first: str,
) -> list[str]:
    lines = []
    for name, scored in rows:
        lines += [f"{name}: {remark}" for remark in _asked(metric, scored.measure)]
        if metric.name in (own := differences.get(name, {})):
            lines.append(f"{name} - {first}: {_difference(metric, own[metric.name])}")
    return lines


def _asked(metric: Metric, measure: Measure) -> Iterator[str]:
    """Yield what happened while one subject was asked."""
    details = measure.details
    if fewer := int(details.get("questions_with_fewer_shots", 0)):
        yield (
            f"{fewer:,} of {measure.n:,} prompts did not fit the context and "
            f"lost {int(details['shots_cut']):,} whole shots in all"
        )
    if long := int(details.get("questions_too_long", 0)):
        yield f"{long:,} questions are longer than the context; cut at the left"
    chosen = [f"{x} {int(details[f'chose_{x}']):,}" for x in "ABCD" if f"chose_{x}" in details]
    if chosen:
        yield f"chose {', '.join(chosen)}"
    if found := int(details.get("contaminated", 0)):
        yield (
            f"{found:,} of {int(details['contamination_checked']):,} items share 13 characters in "
            f"a row with {int(details['training_documents']):,} training documents"
        )
    elif "contaminated" in details:
        yield "none of the items was found in the training documents"
    if seconds := details.get("seconds"):
        yield f"{measure.n / seconds:,.1f} {metric.unit}/s"


def _difference(metric: Metric, difference: Difference) -> str:
    signed = [difference.value, difference.low, difference.high]
    if metric.percent:
        value, low, high = (f"{100 * one:+.1f}" for one in signed)
        value += " points"
    else:
        value, low, high = (f"{one:+.3f}" for one in signed)
    counts = (
        f"; {difference.only_ours:,} and {difference.only_theirs:,} right alone"
        if metric.kind == "share"
        else ""
    )
    return (
        f"{value} ({low} to {high}), {difference.in_words()}, {difference.test}, "
        f"{difference.n:,} {metric.unit}{counts}"
    )
