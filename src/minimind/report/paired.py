"""Two runs item by item: what `minimind eval` left in RUN/eval/SUBJECT/MEASURE.jsonl."""

from __future__ import annotations

import json
from pathlib import Path

from minimind.errors import DataError
from minimind.eval.comparison import Difference, compare
from minimind.eval.tasks.base import Kind, Metric, Outcome


def paired(
    a: tuple[Path, str], b: tuple[Path, str], measure: str, *, seed: int = 0
) -> Difference | None:
    """Compare B with A on the items that both answered.

    Args:
        a: a run's folder, and the subject in its eval.json.
        b: another's.
        measure: the figure's name.
        seed: of the bootstrap.

    Returns:
        B - A; None where one of the two has no answers on disk, or they have none in common.
    """
    ours, theirs = (_outcomes(*side, measure) for side in (b, a))
    if not ours or not theirs:
        return None
    both = [*ours, *theirs]
    kind: Kind = "mean"
    if any(outcome.weight != 1 for outcome in both):
        kind = "ratio"
    elif all(outcome.value in {0, 1} for outcome in both):
        kind = "share"
    try:
        return compare(Metric(name=measure, kind=kind), ours, theirs, seed=seed)
    except DataError:
        return None


def _outcomes(run: Path, subject: str, measure: str) -> list[Outcome]:
    name = subject.replace("/", "-")
    found = [run / "eval" / name, *sorted(run.glob(f"*/eval/{name}"))]
    path = next((f for one in found if (f := one / f"{measure}.jsonl").is_file()), None)
    if path is None:
        return []
    outcomes = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            row = json.loads(line)
            value, weight = float(row["value"]), float(row.get("weight", 1))
            outcomes.append(Outcome(item=str(row["item"]), value=value, weight=weight))
        except (ValueError, KeyError, TypeError):
            continue
    return outcomes
