"""The files that the report reads: `eval.json` (measured) and `stages.json` (done).

    runs/quickstart/
      stages.json      Stages: the machine, and one StageRecord a stage
      eval.json        Evaluation: measures by subject, and samples
      ledger.json      which sources with which licences (written by minimind.data)
      pretrain/metrics.jsonl  sft/metrics.jsonl  dpo/metrics.jsonl

`eval.json`:

    {"schema": 1,
     "results": {"pretrain": {"bits_per_byte": {"value": 2.1, "low": 2.0, "high": 2.2, "n": 300,
                              "unit": "documents", "chance": null, "groups": {"law": {...}},
                              "details": {"bytes": 812345, "tokens": 201234}, "note": "..."}},
                 "unigram": {"bits_per_byte": {...}},
                 "sft": {"answer_loss": {...}}},
     "samples": [{"stage": "pretrain", "prompt": "...", "text": "..."}]}

`stages.json`:

    {"schema": 1, "preset": "nano", "device": "cpu (2 cores)", "torch": "2.13.0", "seed": 42,
     "parameters": 4000000, "started": "2026-11-22T18:00:00", "commands": {},
     "stages": [{"name": "pretrain", "seconds": 300.0, "tokens": 5000000, "steps": 600,
                 "figure": "bits_per_byte", "before": 8.1, "after": 2.1,
                 "summary": "", "details": {}}]}

Both files grow stage by stage: read, add, write. Writing is atomic, so an interrupted run leaves
the previous file whole.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Self, TypeVar

from minimind.errors import DataError, did_you_mean

SCHEMA = 1
T = TypeVar("T")

MANY_PASSES = 4.0
"""Up to about 4 passes cost little beside fresh text, and beyond them each gives less (Muennighoff
et al. 2023, "Scaling Data-Constrained Language Models"); nano pays more (docs/recipe.md)."""


@dataclass(frozen=True, kw_only=True)
class Measure:
    """One measured figure.

    Attributes:
        value: the figure, in the unit that the measure's name says.
        low: lower end of its 95 % interval; None where there is none.
        high: upper end.
        n: how many units were drawn (what the interval is over).
        unit: what `n` counts: `documents`, `conversations`, `pairs`, `problems`, `questions`.
        chance: what guessing would give, where that has a meaning.
        groups: the same figure by source or kind.
        details: further numbers, for example bytes and tokens.
        note: one sentence on how it was measured or how to read it.
    """

    value: float
    low: float | None = None
    high: float | None = None
    n: int = 0
    unit: str = ""
    chance: float | None = None
    groups: Mapping[str, Measure] = field(default_factory=dict)
    details: Mapping[str, float] = field(default_factory=dict)
    note: str = ""

    @property
    def interval(self) -> tuple[float, float] | None:
        """Return the 95 % interval, or None where there is none."""
        return None if self.low is None or self.high is None else (self.low, self.high)

    def to_dict(self) -> dict[str, Any]:
        """Return what goes into eval.json."""
        plain = {f.name: getattr(self, f.name) for f in fields(self)}
        plain["groups"] = {name: group.to_dict() for name, group in self.groups.items()}
        plain["details"] = dict(self.details)
        return plain

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Self:
        """Read what `to_dict` wrote."""
        groups = {name: cls.from_dict(group) for name, group in plain.get("groups", {}).items()}
        return _build(cls, {**plain, "groups": groups})


@dataclass(frozen=True, kw_only=True)
class Sample:
    """What the model of one stage said to one prompt (`start` is the untrained model)."""

    stage: str
    prompt: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """All of `eval.json`.

    Attributes:
        results: measures by subject, then by name. Subjects are stages (`start`, `pretrain`, `sft`,
            `dpo`) and baselines (`unigram`, `zstd`, `xz`); names are those of the measures:
            `bits_per_byte`, `answer_loss`, `preference_accuracy`, `preference_accuracy_raw`,
            `preference_margin`, `dpo_loss`, `solved_share`, `choice_idiom`, `choice_icd`.
        samples: what each stage's model said to the same prompts.
    """

    results: Mapping[str, Mapping[str, Measure]] = field(default_factory=dict)
    samples: tuple[Sample, ...] = ()

    def get(self, subject: str, name: str) -> Measure | None:
        """Return one measure, or None where it was not taken."""
        return self.results.get(subject, {}).get(name)

    def adding(self, subject: str, measures: Mapping[str, Measure]) -> Self:
        """Return a copy with measures of `subject` added; those of the same name are replaced."""
        merged = {**self.results.get(subject, {}), **measures}
        return replace(self, results={**self.results, subject: merged})

    def sampling(self, *samples: Sample) -> Self:
        """Return a copy with samples added; an earlier one of the same stage and prompt goes."""
        new = {(s.stage, s.prompt) for s in samples}
        kept = [s for s in self.samples if (s.stage, s.prompt) not in new]
        return replace(self, samples=(*kept, *samples))

    def to_dict(self) -> dict[str, Any]:
        """Return what goes into eval.json."""
        results = {
            subject: {name: measure.to_dict() for name, measure in measures.items()}
            for subject, measures in self.results.items()
        }
        return {"schema": SCHEMA, "results": results, "samples": [vars(s) for s in self.samples]}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Self:
        """Read what `to_dict` wrote."""
        results = {
            subject: {name: Measure.from_dict(measure) for name, measure in measures.items()}
            for subject, measures in plain.get("results", {}).items()
        }
        samples = tuple(_build(Sample, sample) for sample in plain.get("samples", []))
        return cls(results=results, samples=samples)

    def save(self, path: Path) -> None:
        """Write eval.json atomically."""
        write_json(path, self.to_dict())

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read eval.json; an absent file gives an empty one.

        Raises:
            DataError: the file is there but is not what `save` wrote.
        """
        return cls.from_dict(read_json(path)) if path.exists() else cls()


@dataclass(frozen=True, kw_only=True)
class StageRecord:
    """One stage that was done.

    Attributes:
        name: `data`, `tokenizer`, `pretrain`, `sft`, `preferences`, `dpo` or `evaluation` (another
            name is shown as it is).
        seconds: wall-clock, summed over interruptions.
        tokens: tokens that the model was trained on in this stage.
        steps: optimizer updates.
        figure: what `before` and `after` are: the name of a measure, or words.
        before: the figure before the stage.
        after: the figure after it.
        summary: what it did in one line; the report has its own words for the names above.
        details: further numbers worth a line, for example documents, pairs, vocabulary.
        read: how often it read its text, an entry a path (`minimind.data.passes.Part.read`).
    """

    name: str
    seconds: float
    tokens: int = 0
    steps: int = 0
    figure: str = ""
    before: float | None = None
    after: float | None = None
    summary: str = ""
    details: Mapping[str, float | str] = field(default_factory=dict)
    read: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Stages:
    """All of `stages.json`: where the run was made, and its stages in order.

    Attributes:
        commands: exact commands by purpose, shown at the end of the report. Keys that have words
            of their own: `repeat`, `chat`, `resume`, `bigger`, `report`; others are shown as they
            are.
    """

    preset: str = ""
    device: str = ""
    torch: str = ""
    seed: int | None = None
    parameters: int = 0
    started: str = ""
    commands: Mapping[str, str] = field(default_factory=dict)
    stages: tuple[StageRecord, ...] = ()

    @property
    def seconds(self) -> float:
        """Return the wall-clock of all stages."""
        return sum(stage.seconds for stage in self.stages)

    def get(self, name: str) -> StageRecord | None:
        """Return the record of one stage, or None where it was not done."""
        return next((stage for stage in self.stages if stage.name == name), None)

    def adding(self, record: StageRecord) -> Self:
        """Return a copy with one stage added, in the place of an earlier one of that name."""
        if self.get(record.name) is None:
            return replace(self, stages=(*self.stages, record))
        return replace(
            self, stages=tuple(record if s.name == record.name else s for s in self.stages)
        )

    def to_dict(self) -> dict[str, Any]:
        """Return what goes into stages.json."""
        plain = {f.name: getattr(self, f.name) for f in fields(self)}
        plain["commands"] = dict(self.commands)
        plain["stages"] = [{**vars(s), "details": dict(s.details)} for s in self.stages]
        return {"schema": SCHEMA, **plain}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Self:
        """Read what `to_dict` wrote."""
        stages = tuple(
            _build(StageRecord, {**stage, "read": tuple(stage.get("read", ()))})
            for stage in plain.get("stages", [])
        )
        rest = {key: value for key, value in plain.items() if key != "schema"}
        return _build(cls, {**rest, "stages": stages})

    def save(self, path: Path) -> None:
        """Write stages.json atomically."""
        write_json(path, self.to_dict())

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read stages.json; an absent file gives an empty one.

        Raises:
            DataError: the file is there but is not what `save` wrote.
        """
        return cls.from_dict(read_json(path)) if path.exists() else cls()


def write_json(path: Path, plain: Mapping[str, Any]) -> None:
    """Write JSON under a temporary name, then rename it: what is there is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(plain, ensure_ascii=False, indent=1), encoding="utf-8")
    temporary.replace(path)


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        DataError: the file is not JSON, or not an object.
    """
    try:
        plain = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DataError(
            f"{path}: not readable as JSON ({error}); delete it and run again"
        ) from error
    if not isinstance(plain, dict):
        raise DataError(f"{path}: a JSON object is expected, not {type(plain).__name__}")
    return plain


def _build(kind: type[T], plain: Mapping[str, Any]) -> T:
    """Make a dataclass from JSON; an unknown key is an error that names it."""
    known = {f.name for f in fields(kind)}  # pyright: ignore[reportArgumentType]
    if unknown := sorted(set(plain) - known):
        raise DataError(
            f"{kind.__name__}: unknown key {unknown[0]!r}.{did_you_mean(unknown[0], known)}"
        )
    try:
        return kind(**plain)
    except TypeError as error:
        raise DataError(f"{kind.__name__}: {error}") from error
