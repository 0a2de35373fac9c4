"""What the report is written from (`Run`) and by (`Writer`, one a language)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from minimind.eval.results import Evaluation, Measure, Stages
from minimind.eval.statistics import Language
from minimind.report.wording import STAGE_NAMES, WORDS


@dataclass(frozen=True, kw_only=True)
class Run:
    """What a run left on disk.

    Attributes:
        directory: the run's folder.
        stages: stages.json.
        evaluation: eval.json.
        curves: lines of metrics.jsonl by stage.
        ledger: rows of ledger.json.
        missing: (key of the sentence, what it is about) for each part that isn't there.
        context: tokens that the model sees; 0 where unknown.
    """

    directory: Path
    stages: Stages = field(default_factory=Stages)
    evaluation: Evaluation = field(default_factory=Evaluation)
    curves: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    ledger: Sequence[Mapping[str, Any]] = ()
    missing: tuple[tuple[str, Mapping[str, str]], ...] = ()
    context: int = 0


@dataclass(frozen=True, slots=True)
class Writer:
    """Fills sentences of one language with figures."""

    language: Language

    def __call__(self, key: str, /, **figures: object) -> str:
        """Return the sentence `key` with its figures."""
        return WORDS[self.language][key].format(**figures)

    def stage(self, name: str) -> str:
        """Return a stage's name."""
        return STAGE_NAMES[self.language].get(name, name)

    def duration(self, seconds: float) -> str:
        """Return seconds as a person says them."""
        minutes, rest = divmod(round(seconds), 60)
        return self("minutes", m=minutes, s=rest) if minutes else self("seconds", s=rest)

    def paragraph(self, sentences: Sequence[str]) -> str:
        """Join sentences: Chinese has no space between them."""
        return ("" if self.language == "zh" else " ").join(sentences)

    def listed(self, parts: Sequence[str]) -> str:
        """Join parts of a sentence."""
        return ("；" if self.language == "zh" else "; ").join(parts)


def interval(measure: Measure, *, form: str = ".3f") -> str:
    """Return `low-high`, or a dash where there is no interval."""
    if measure.interval is None:
        return "–"
    low, high = measure.interval
    return f"{low:{form}}–{high:{form}}"
