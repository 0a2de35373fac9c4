"""Tasks asked of subjects: items drawn once, outcomes kept, figures with and without what was seen.

    prepare(names, options)        -> Asked     items, the same for every subject
    find_contamination(asked, ...)              which of them stand in the training documents
    ask(subject, asked)            -> Scored    outcomes and figures by metric
    save(...)                                   eval.json, and the outcomes item by item

`eval.json` is `results.Evaluation`: results by subject, then by the metric's name. A figure without
the items that were found in the training documents is called NAME_clean.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from minimind.checkpoint.files import write_atomically
from minimind.errors import DataError, UserError
from minimind.eval.contamination import Contamination, GramIndex
from minimind.eval.contamination_sources import TrainingData
from minimind.eval.held_out import draw
from minimind.eval.results import Evaluation, Measure
from minimind.eval.tasks import maker_of
from minimind.eval.tasks.base import (
    Item,
    Metric,
    Outcome,
    Progress,
    Subject,
    Task,
    TaskOptions,
    measure_of,
    no_progress,
)

CLEAN = "_clean"


@dataclass
class Asked:
    """A task and the items that are asked of every subject.

    Attributes:
        task: how to ask.
        items: what.
        total: how many items the task has; more than `items` where a limit drew among them.
        found: items in the training documents, by the subject's name.
    """

    task: Task
    items: Sequence[Item]
    total: int
    found: dict[str, Contamination] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Scored:
    """One figure of one subject.

    Attributes:
        metric: what it is.
        outcomes: item by item.
        measure: the figure.
        clean: the same without items found in the training documents; None where none was found or
            nothing was looked for.
        seconds: wall-clock of the whole task (shared by its metrics).
    """

    metric: Metric
    outcomes: Sequence[Outcome]
    measure: Measure
    clean: Measure | None = None
    seconds: float = 0.0


def prepare(names: Sequence[str], options: TaskOptions, *, limit: int | None = None) -> list[Asked]:
    """Make the tasks and draw their items.

    Args:
        names: as in `--tasks`.
        options: for all of them.
        limit: at most so many items a task, drawn with `options.seed`.

    Raises:
        UserError: an unknown task, or a limit below 1.
        DataError: a task's data is missing or malformed.
    """
    if limit is not None and limit < 1:
        raise UserError(f"--limit {limit}: must be at least 1")
    makers = [maker_of(name) for name in dict.fromkeys(names)]  # all names before any data
    prepared = []
    for make in makers:
        task = make(options)
        items = task.items()
        if not items:
            raise DataError(f"{task.name}: there is no item in its data")
        prepared.append(Asked(task, draw(items, limit=limit, seed=options.seed), total=len(items)))
    return prepared


def find_contamination(asked: Sequence[Asked], name: str, data: TrainingData) -> None:
    """Look for the items in the training documents of the subject `name`, once for all tasks."""
    index = GramIndex({one.task.name: one.items for one in asked})
    index.read(data.texts())
    for one in asked:
        one.found[name] = index.result(one.task.name)


def ask(subject: Subject, asked: Asked, *, progress: Progress = no_progress) -> list[Scored]:
    """Ask a subject everything of one task."""
    started = time.perf_counter()
    results = asked.task.run(subject, asked.items, progress=progress)
    seconds = time.perf_counter() - started
    found = asked.found.get(subject.name)
    scored = []
    for metric in asked.task.metrics:
        outcomes = results.get(metric.name, ())
        if not outcomes:
            continue
        measure = _with(measure_of(metric, outcomes), _numbers(asked, found, seconds))
        one = Scored(metric=metric, outcomes=outcomes, measure=measure, seconds=seconds)
        scored.append(replace(one, clean=_clean(metric, outcomes, found)))
    return scored


def _numbers(asked: Asked, found: Contamination | None, seconds: float) -> dict[str, float]:
    numbers: dict[str, float] = {"seconds": seconds, "items_of_task": asked.total}
    if found is not None:
        numbers |= {
            "contaminated": len(found.hits), "contamination_checked": found.checked,
            "training_documents": found.documents,
        }  # fmt: skip
    return numbers


def _with(measure: Measure, numbers: Mapping[str, float]) -> Measure:
    return replace(measure, details={**measure.details, **numbers})


def _clean(
    metric: Metric, outcomes: Sequence[Outcome], found: Contamination | None
) -> Measure | None:
    if found is None or not found.hits:
        return None
    kept = found.clean(outcomes)
    if not kept:
        return None
    note = f"{metric.note}; without {len(outcomes) - len(kept)} items found in the training text"
    return replace(measure_of(metric, kept, groups=False), note=note)


def save(path: Path, name: str, scored: Sequence[Scored]) -> None:
    """Add a subject's figures to an eval.json, and its outcomes to the folder beside it.

    Args:
        path: of eval.json; what is in it stays.
        name: the subject's key.
        scored: of any tasks.

    Raises:
        DataError: the file is there and isn't an eval.json.
    """
    measures = {one.metric.name: one.measure for one in scored}
    measures |= {one.metric.name + CLEAN: one.clean for one in scored if one.clean is not None}
    path.parent.mkdir(parents=True, exist_ok=True)
    Evaluation.load(path).adding(name, measures).save(path)
    for one in scored:
        lines = [_line(outcome) for outcome in one.outcomes]
        target = path.parent / "eval" / name.replace("/", "-") / f"{one.metric.name}.jsonl"
        target.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(target, "".join(lines))


def _line(outcome: Outcome) -> str:
    row = {"item": outcome.item, "value": outcome.value}
    if outcome.weight != 1:
        row["weight"] = outcome.weight
    row |= {"group": outcome.group, "output": outcome.output}
    return json.dumps(row, ensure_ascii=False) + "\n"
