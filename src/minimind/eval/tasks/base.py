"""The contract of an evaluation: items, what a subject does with each, and the figures of it.

    Task.items()                -> Items        what is asked; contamination reads their text
    Task.run(subject, items)    -> Outcomes     one value an item and metric
    measure_of(metric, outcomes) -> Measure     value, 95 % interval, n, chance

Everything else (intervals, contamination, paired comparison of two checkpoints, tables) works on
outcomes item by item, so a task says only what it asks and what it counts. A `Subject` is whatever
is measured: our checkpoints, any model of transformers (`eval.subject`), or a double in a test.

To add a task: a module here with a function `(TaskOptions) -> Task`, one line in
`eval/tasks/__init__.py`, one test with a case whose answer is known.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from minimind.eval.results import Measure
from minimind.eval.statistics import ratio_measure, share_measure

if TYPE_CHECKING:
    from minimind.tokenizer import Message

Progress = Callable[[int], object]
"""Called with how many more units (requests, prompts, texts) are done."""

Kind = Literal["share", "mean", "ratio"]
"""How values become a figure: share of ones (Wilson), mean, or sum of values over sum of weights
(both bootstrapped over items)."""


def no_progress(_: int, /) -> None:
    """Show nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A continuation whose likelihood is asked for.

    Attributes:
        context: what comes before. Text opens a document (the model's own start token is put
            before it); messages are rendered up to the start of the answer.
        continuation: what is scored. A token that straddles the end of the context is scored.
    """

    context: str | Sequence[Message]
    continuation: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Likelihood:
    """What a model thinks of a text.

    Attributes:
        log_prob: natural logarithm, summed over the scored tokens.
        greedy: whether greedy decoding gives exactly these tokens.
        tokens: how many tokens were scored.
        cut: tokens that did not fit the context and were dropped: from the beginning of a
            request's context. 0 means that all was read.
    """

    log_prob: float
    greedy: bool
    tokens: int
    cut: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """How answers are generated; greedy unless a temperature is given.

    Attributes:
        max_new_tokens: at most so many tokens.
        stop: texts that end an answer; they are not part of it. The model's own end always does.
        temperature: 0 takes the likeliest token.
        top_p: as in `SamplingParams`; only with a temperature.
        repetition_penalty: as in `SamplingParams`; 1 is off.
        seed: of the draws; prompt i draws from `seed + i`.
    """

    max_new_tokens: int = 128
    stop: tuple[str, ...] = ()
    temperature: float = 0.0
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Generated:
    """One answer.

    Attributes:
        text: without the stop and control tokens.
        tokens: how many tokens were made.
        finished: "stop" (its own end or a stop text), "length" (max_new_tokens) or "context".
        cut: tokens of the prompt's beginning that did not fit.
    """

    text: str
    tokens: int
    finished: str
    cut: int = 0


class Subject(Protocol):
    """What is measured. Batching, caches and devices are its own affair.

    Attributes:
        name: how tables call it.
        context_length: tokens that it sees, prompt and answer together.
        has_chat_template: whether messages can be contexts.
    """

    name: str
    context_length: int
    has_chat_template: bool

    def count_tokens(self, context: str | Sequence[Message], continuation: str = "") -> int:
        """Return the tokens of a context as it would be read, start token and markup included."""
        ...

    def score(
        self, requests: Sequence[Request], *, progress: Progress = no_progress
    ) -> list[Likelihood]:
        """Return the likelihood of each continuation, in order.

        Contexts that begin alike are read once: ask for all of a task at once.

        Raises:
            TokenizerError: messages were given and there is no chat template.
        """
        ...

    def rolling(
        self, texts: Sequence[str], *, progress: Progress = no_progress
    ) -> list[Likelihood]:
        """Return the likelihood of each whole text as a document (its end is not scored).

        Texts longer than the context are read in windows; every token is scored once.
        """
        ...

    def generate(
        self,
        prompts: Sequence[str | Sequence[Message]],
        generation: Generation,
        *,
        progress: Progress = no_progress,
    ) -> list[Generated]:
        """Return the answer to each prompt, in order.

        Raises:
            TokenizerError: messages were given and there is no chat template.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One thing that is asked.

    Attributes:
        id: unique within its task and stable between runs (paired comparison joins on it).
        text: what must not have been trained on: question and answers, without instructions.
        group: subject, domain or kind, for the figure by group.
        context: what a model is given, where the task has one form of it.
        choices: the answers to choose among, if any.
        answer: the number of the right one among `choices`; None where there are none.
        reference: the right answer as text, where it is one.
        extra: whatever else the task needs to ask and to judge.
    """

    id: str
    text: str
    group: str = ""
    context: str | Sequence[Message] = ""
    choices: tuple[str, ...] = ()
    answer: int | None = None
    reference: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of one item under one metric.

    Attributes:
        item: `Item.id`.
        value: 0 or 1 for a share; the item's number for a mean; the numerator for a ratio.
        weight: the denominator for a ratio (bytes, tokens), else 1.
        group: `Item.group`.
        output: what the subject chose or wrote, for people who look at single items.
        details: numbers that are summed over items into `Measure.details` (`cut_shots`, `cut`...).
    """

    item: str
    value: float
    weight: float = 1.0
    group: str = ""
    output: str = ""
    details: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """A figure that a task gives.

    Attributes:
        name: of the measure in eval.json: unique over all tasks, for example `cmmlu_letter`.
        unit: what is counted, in the plural: `questions`, `documents`, `answers`.
        kind: how outcomes become the figure.
        chance: what guessing would give; None where that has no meaning.
        higher_is_better: the direction.
        percent: shown as a percentage.
        note: one sentence on how to read it.
    """

    name: str
    unit: str = "questions"
    kind: Kind = "share"
    chance: float | None = None
    higher_is_better: bool = True
    percent: bool = True
    note: str = ""


Outcomes = Mapping[str, Sequence[Outcome]]
"""Outcomes by the name of their metric; a metric may leave out items (and then says so)."""


class Task(Protocol):
    """A set of items and how they are judged."""

    @property
    def name(self) -> str:
        """As in `--tasks`."""
        ...

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """The figures it gives, the main one first."""
        ...

    def items(self) -> Sequence[Item]:
        """Return all items, always in the same order (a limit draws among them with a seed).

        Raises:
            DataError: the data is missing or malformed; says which file to put where.
        """
        ...

    def run(
        self, subject: Subject, items: Sequence[Item], *, progress: Progress = no_progress
    ) -> Outcomes:
        """Ask the subject. `progress` counts items: call it with numbers that add up to theirs."""
        ...


@dataclass(frozen=True, kw_only=True)
class TaskOptions:
    """What the command line says to every task; each reads what concerns it.

    Attributes:
        data: files or folders with the task's data (`--data`); empty: where it finds its own.
        shots: worked examples before a question.
        chat: ask through the chat template instead of as plain text.
        seed: of whatever is drawn.
        training: files that the checkpoint was trained on, where they are known: a task that makes
            its items from sources leaves out what is in them (`data.train` of run.toml).
        validation_share: `data.validation_share` of that run.
        language: of instructions and shots, `zh` or `en`.
    """

    data: tuple[Path, ...] = ()
    shots: int = 0
    chat: bool = False
    seed: int = 0
    training: tuple[Path, ...] = ()
    validation_share: float = 0.0
    language: Literal["zh", "en"] = "zh"


MakeTask = Callable[[TaskOptions], Task]


def measure_of(metric: Metric, outcomes: Sequence[Outcome], *, groups: bool = True) -> Measure:
    """Make the figure of a metric with its 95 % interval, by group as well.

    Args:
        metric: says how.
        outcomes: one an item.
        groups: also by `Outcome.group`.
    """
    names = [outcome.group for outcome in outcomes]
    by_group = names if groups and any(names) else None
    details: dict[str, float] = {}
    for outcome in outcomes:
        for name, number in outcome.details.items():
            details[name] = details.get(name, 0) + number
    values = [outcome.value for outcome in outcomes]
    if metric.kind == "share":
        return share_measure(
            [value > 0.5 for value in values], unit=metric.unit, chance=metric.chance,
            groups=by_group, details=details, note=metric.note,
        )  # fmt: skip
    weights = [outcome.weight if metric.kind == "ratio" else 1.0 for outcome in outcomes]
    measure = ratio_measure(
        values, weights, unit=metric.unit, groups=by_group, details=details, note=metric.note
    )
    grouped = {name: replace(group, chance=metric.chance) for name, group in measure.groups.items()}
    return replace(measure, chance=metric.chance, groups=grouped)
