"""C-Eval, CMMLU, AGIEval and LawBench: four answers, chosen in two ways.

**Letter**: question and answers are shown, and the likeliest of the letters A to D wins. It is
what published tables count, and a skill of its own: a model that hasn't learnt to point at an
answer by its letter guesses, whatever it knows.

**Cloze**: the answers aren't shown; each is put behind the question, and the one whose text is the
likeliest per character wins. It asks for the same knowledge without the letters.

There is no space between `答案：` and the answer, as Chinese has none there
(lm-evaluation-harness's `target_delimiter` is "" here; its default is a space).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from minimind.errors import DataError
from minimind.eval.tasks.base import (
    Item,
    Metric,
    Outcome,
    Progress,
    Request,
    Subject,
    TaskOptions,
    no_progress,
)
from minimind.eval.tasks.exam_files import (
    BENCHMARKS,
    LETTERS,
    Benchmark,
    ExamRow,
    from_hub,
    read_exam,
    where,
)

INSTRUCTION = "以下是单项选择题，请选出其中的正确答案。\n\n"
DEFAULT_FOLDER = Path("data/eval")
"""Looked into when no --data is given, before the hub is asked."""


def make_ceval(options: TaskOptions) -> ExamTask:
    """C-Eval's validation questions, 52 subjects."""
    return ExamTask(BENCHMARKS["ceval"], options)


def make_cmmlu(options: TaskOptions) -> ExamTask:
    """CMMLU's test questions, 67 subjects."""
    return ExamTask(BENCHMARKS["cmmlu"], options)


def make_agieval(options: TaskOptions) -> ExamTask:
    """AGIEval's Chinese questions with one right answer."""
    return ExamTask(BENCHMARKS["agieval"], options)


def make_lawbench(options: TaskOptions) -> ExamTask:
    """LawBench's questions of the judicial exam."""
    return ExamTask(BENCHMARKS["lawbench"], options)


@dataclass(frozen=True, slots=True)
class Form:
    """One way of asking: how a row becomes text, and its choices continuations."""

    cloze: bool

    def question(self, row: ExamRow) -> str:
        """Return the text up to the answer."""
        if self.cloze:
            return f"问题：{row.question}\n答案："
        lines = [f"{letter}. {text}" for letter, text in zip(LETTERS, row.choices, strict=False)]
        return "\n".join([row.question, *lines, "答案："])

    def answers(self, row: ExamRow) -> tuple[str, ...]:
        """Return what may follow."""
        return row.choices if self.cloze else tuple(LETTERS[: len(row.choices)])

    def instruction(self) -> str:
        """Return what opens the prompt."""
        return "" if self.cloze else INSTRUCTION

    def prompt(
        self, row: ExamRow, shots: Sequence[ExamRow], *, chat: bool
    ) -> str | list[dict[str, str]]:
        """Return the whole context: text, or turns of a conversation."""
        asked = [(self.question(shot), self.answers(shot)[shot.answer]) for shot in shots]
        last = self.question(row)
        if not chat:
            solved = "".join(f"{question}{answer}\n\n" for question, answer in asked)
            return self.instruction() + solved + last
        questions = [*(question for question, _ in asked), last]
        questions[0] = self.instruction() + questions[0]
        turns = [{"role": "user", "content": questions[0]}]
        for (_, answer), question in zip(asked, questions[1:], strict=True):
            turns.append({"role": "assistant", "content": answer})
            turns.append({"role": "user", "content": question})
        return turns


LETTER, CLOZE = Form(cloze=False), Form(cloze=True)


@dataclass
class ExamTask:
    """A benchmark under both ways of asking (see the module).

    Attributes:
        benchmark: which.
        options: shots, chat, data.
    """

    benchmark: Benchmark
    options: TaskOptions
    name: str = ""
    metrics: tuple[Metric, ...] = ()
    _shots: dict[str, list[ExamRow]] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        """Name the metrics by what is asked."""
        self.name = self.benchmark.name
        shots = f"_{self.options.shots}shot" if self.options.shots else ""
        stem = f"{self.name}{shots}{'_chat' if self.options.chat else ''}"
        how = f"{self.options.shots} shots" if self.options.shots else "0 shots"
        how += ", chat template" if self.options.chat else ", plain text"
        self.metrics = (
            Metric(name=f"{stem}_letter", chance=0.25, note=f"likeliest letter; {how}"),
            Metric(
                name=f"{stem}_cloze", chance=0.25,
                note=f"likeliest answer text per character; {how}",
            ),
        )  # fmt: skip

    def items(self) -> list[Item]:
        """Return the questions of the asked split."""
        rows = self._rows()
        self._shots = {}
        for row in rows:
            if row.split == "dev":
                self._shots.setdefault(row.subject, []).append(row)
        asked = [row for row in rows if row.split == self.benchmark.asked]
        if not asked:
            raise DataError(
                f"{self.benchmark.title}: no row has split {self.benchmark.asked!r}. "
                f"{where(self.benchmark)}"
            )
        self._check_shots(asked)
        numbers: dict[str, int] = {}
        return [self._item(row, numbers) for row in asked]

    def run(
        self, subject: Subject, items: Sequence[Item], *, progress: Progress = no_progress
    ) -> Mapping[str, Sequence[Outcome]]:
        """Ask in both ways."""
        results = {}
        # Two ways of asking for one item: each counts for half of it.
        halves = _Halves(progress)
        for form, metric in zip((LETTER, CLOZE), self.metrics, strict=True):
            results[metric.name] = self._ask(subject, items, form, halves)
        return results

    def _rows(self) -> list[ExamRow]:
        if self.options.data:
            return read_exam(self.benchmark, self.options.data)
        if DEFAULT_FOLDER.is_dir():
            return read_exam(self.benchmark, [DEFAULT_FOLDER])
        return from_hub(self.benchmark)

    def _check_shots(self, asked: Sequence[ExamRow]) -> None:
        wanted = self.options.shots
        fewest = min(len(self._shots.get(row.subject, ())) for row in asked)
        if wanted > fewest:
            raise DataError(
                f"--shots {wanted}: {self.benchmark.title} has a subject with {fewest} worked "
                f"examples (split dev) in this data: ask for --shots {fewest}, or add dev rows"
            )

    def _item(self, row: ExamRow, numbers: dict[str, int]) -> Item:
        number = numbers[row.subject] = numbers.get(row.subject, -1) + 1
        return Item(
            id=f"{row.subject}/{number}",
            text="\n".join([row.question, *row.choices]),
            group=row.subject,
            context=LETTER.question(row),
            choices=row.choices,
            answer=row.answer,
            reference=row.choices[row.answer],
            extra={"row": row},
        )

    def _ask(
        self, subject: Subject, items: Sequence[Item], form: Form, halves: _Halves
    ) -> list[Outcome]:
        requests: list[Request] = []
        kept: list[int] = []
        for item in items:
            row: ExamRow = item.extra["row"]
            context, shots = self.fit(subject, row, form)
            kept.append(shots)
            requests += [
                Request(context=context, continuation=answer) for answer in form.answers(row)
            ]
        scores = subject.score(requests, progress=halves.of(len(requests), len(items)))
        outcomes = []
        at = 0
        for item, shots in zip(items, kept, strict=True):
            own = scores[at : at + len(item.choices)]
            at += len(own)
            lengths = [len(text) for text in item.choices] if form.cloze else [1] * len(own)
            rates = [score.log_prob / length for score, length in zip(own, lengths, strict=True)]
            chosen = max(range(len(rates)), key=rates.__getitem__)
            cut = self.options.shots - shots
            outcomes.append(
                Outcome(
                    item=item.id,
                    value=float(chosen == item.answer),
                    group=item.group,
                    output=LETTERS[chosen],
                    details={
                        "shots_cut": cut,
                        "questions_with_fewer_shots": float(cut > 0),
                        "questions_too_long": float(any(score.cut for score in own)),
                        **{f"chose_{LETTERS[chosen]}": 1.0},
                    },
                )
            )
        return outcomes

    def fit(
        self, subject: Subject, row: ExamRow, form: Form
    ) -> tuple[str | list[dict[str, str]], int]:
        """Return the prompt with as many whole shots as fit, and how many those are."""
        longest = max(form.answers(row), key=len)
        chat = self.options.chat
        for count in range(self.options.shots, -1, -1):
            shots = self._shots.get(row.subject, [])[:count]
            prompt = form.prompt(row, shots, chat=chat)
            # The last token is predicted and never read.
            if not count or subject.count_tokens(prompt, longest) <= subject.context_length + 1:
                return prompt, count
        raise AssertionError("the loop ends at no shots")


class _Halves:
    """Turns requests of either way of asking into items: progress counts whole items."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.done = 0.0
        self.shown = 0

    def of(self, requests: int, items: int) -> Progress:
        """Return the progress of one way of asking."""

        def advance(count: int) -> None:
            self.done += count * items / (2 * requests)
            whole = int(self.done + 1e-6)
            self.progress(whole - self.shown)
            self.shown = whole

        return advance
