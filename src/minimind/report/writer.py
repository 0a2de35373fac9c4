"""What the report is written from (`Run`) and by (`Writer`, one a language)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from minimind.eval.results import Evaluation, Measure, Stages
from minimind.eval.statistics import Language
from minimind.report.wording import STAGE_NAMES, WORDS
from minimind.report.wording_measures import measure_words
from minimind.report.wording_training import TRAINING_WORDS
from minimind.train.bands import Band, Verdict

Kind = Literal["quickstart", "run", "runs"]


@dataclass(frozen=True, kw_only=True)
class Training:
    """One training run, as its directory has it.

    Attributes:
        name: of the directory, or of the quickstart's stage.
        directory: with metrics.jsonl, run.toml, ledger.json, samples.txt, checkpoints/.
        lines: of metrics.jsonl.
        settings: of run.toml, table in table.
        toml: the text of run.toml.
        ledger: of ledger.json: data files with checksums and licences, what it began from.
        said: (step, prompt, text) of samples.txt.
        parameters: of its newest checkpoint; 0 where there is none.
        band: the loss band of its model and data, if there is one.
        verdict: where it is beside that band.
    """

    name: str
    directory: Path
    lines: Sequence[Mapping[str, Any]] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    toml: str = ""
    ledger: Mapping[str, Any] = field(default_factory=dict)
    said: tuple[tuple[int, str, str], ...] = ()
    parameters: int = 0
    band: Band | None = None
    verdict: Verdict | None = None

    @property
    def steps(self) -> Sequence[Mapping[str, Any]]:
        """Return the lines of training steps (the others are validations)."""
        return [line for line in self.lines if "loss" in line]

    def last(self, key: str) -> float | None:
        """Return the newest value of a figure, or None."""
        return next((line[key] for line in reversed(self.lines) if line.get(key) is not None), None)


@dataclass(frozen=True, kw_only=True)
class Run:
    """What a run left on disk.

    Attributes:
        directory: the run's folder.
        kind: a quickstart with its stages, one training run, or a folder of several.
        stages: stages.json.
        evaluation: eval.json, of the folder and of the runs in it.
        trainings: the training runs by name.
        ledger: rows of the data set's ledger.json.
        missing: (key of the sentence, what it is about) for each part that isn't there.
        context: tokens that the model sees; 0 where unknown.
        price: of an hour of the machine; None where it wasn't said.
        currency: of the price.
    """

    directory: Path
    kind: Kind = "quickstart"
    stages: Stages = field(default_factory=Stages)
    evaluation: Evaluation = field(default_factory=Evaluation)
    trainings: Mapping[str, Training] = field(default_factory=dict)
    ledger: Sequence[Mapping[str, Any]] = ()
    missing: tuple[tuple[str, Mapping[str, str]], ...] = ()
    context: int = 0
    price: float | None = None
    currency: str = ""

    @property
    def parameters(self) -> int:
        """Return the parameters of the model, from stages.json or a checkpoint; 0 if unknown."""
        counts = [training.parameters for training in self.trainings.values()]
        return self.stages.parameters or max(counts, default=0)

    @property
    def tokens(self) -> int:
        """Return the tokens that were trained on, in all runs together."""
        return sum(int(training.last("tokens") or 0) for training in self.trainings.values())

    def seconds(self, name: str) -> float:
        """Return the wall-clock of a stage: with set-up where stages.json has it."""
        if record := self.stages.get(name):
            return record.seconds
        training = self.trainings.get(name)
        return float((training and training.last("seconds")) or 0.0)

    @property
    def total_seconds(self) -> float:
        """Return the wall-clock of everything."""
        if self.stages.stages:
            return self.stages.seconds
        return sum(self.seconds(name) for name in self.trainings)


@dataclass(frozen=True, slots=True)
class Writer:
    """Fills sentences of one language with figures."""

    language: Language

    def __call__(self, key: str, /, **figures: object) -> str:
        """Return the sentence `key` with its figures."""
        words = WORDS[self.language]
        sentence = words[key] if key in words else TRAINING_WORDS[self.language][key]
        return sentence.format(**figures)

    def known(self, key: str) -> str:
        """Return the words for a figure, or `key` where there are none."""
        known = key in WORDS[self.language] or key in TRAINING_WORDS[self.language]
        return self(key) if known else measure_words(key, self.language)

    def stage(self, name: str) -> str:
        """Return a stage's name."""
        return STAGE_NAMES[self.language].get(name, name)

    def duration(self, seconds: float) -> str:
        """Return seconds as a person says them."""
        minutes, rest = divmod(round(seconds), 60)
        if minutes >= 60:
            return self("hours", h=minutes // 60, m=minutes % 60)
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
