"""Held-out questions of a domain: is the right answer told from three others, and how likely is it.

The questions are the rows of the domain's files that training held out by the hash of the question.
The three wrong answers are right ones of other held-out questions of the same source and about the
same length. Nothing is asked by letter: each answer is read as the assistant's.

The main figure chooses by pointwise mutual information, log P(answer | question) - log P(answer |
the domain): a plain likelihood prefers what is short and general whatever was asked (Holtzman et
al. 2021, "Surface form competition"). P(answer | the domain) is the mean over a few other questions
of the same source. Beside it stand the same with an empty question in their place, which knows
nothing of the form of answers and so favours long ones, and the likelihood per character.
Chance is 25 %, but a wrong answer is about something else, so that following the question's words
gets far: read it beside the base's figure, not as knowledge of the domain.

One held-out question in five is for development: who tries rates and shares looks at those, and the
page is made of the others (`Part`).
"""

from __future__ import annotations

import math
import random
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from minimind.data.document import is_held_out
from minimind.data.formats import ChatRow, RowError, parse_row
from minimind.data.reader import Cursor, Rejects, expand_paths, read_records
from minimind.errors import DataError
from minimind.eval.tasks.base import (
    Item,
    Likelihood,
    Metric,
    Outcome,
    Outcomes,
    Progress,
    Request,
    Subject,
    no_progress,
)
from minimind.eval.tasks.questions import CHOICES, NEAREST, per_item

Part = Literal["test", "development"]
"""What the page is made of, and what settings are chosen by."""

DEVELOPMENT_SHARE = 0.2
PREMISES = 3
"""Questions of the other part by which it is judged how likely an answer is in its source."""

SEED = 0
LONGEST = 300
"""Longer answers aren't asked for: they would not fit a short context beside their question."""


@dataclass(frozen=True, slots=True)
class Question:
    """One held-out row: what the user asks, the answer, and where it came from."""

    asked: str
    answer: str
    source: str


def part_of(question: str) -> Part:
    """Return the part of a held-out question, by another hash than the one that holds it out."""
    return "development" if is_held_out(f"part: {question}", DEVELOPMENT_SHARE) else "test"


def held_out_questions(
    files: Sequence[str], *, share: float, part: Part = "test"
) -> list[Question]:
    """Return the held-out single questions of chat files, each asked once.

    Args:
        files: as in `data.train`.
        share: `data.validation_share` of the training run.
        part: which of them.

    Raises:
        DataError: a file is missing, or nothing is held out.
    """
    found: dict[str, Question] = {}
    for path in expand_paths(files):
        for _, _, record in read_records(path, Cursor(), Rejects()):
            try:
                row = parse_row(record, "chat")
            except RowError:
                continue  # the training run has reported it
            assert isinstance(row, ChatRow)
            messages = [message for message in row.messages if message["role"] != "system"]
            roles = [message["role"] for message in messages]
            key = row.held_out_key
            if roles != ["user", "assistant"] or not is_held_out(key, share):
                continue
            if part_of(key) != part:
                continue
            answer = str(messages[1]["content"]).strip()
            if 0 < len(answer) <= LONGEST:
                source = str(record.get("source") or path.name.partition(".")[0])
                found.setdefault(key, Question(key, answer, source))
    if not found:
        raise DataError(
            f"{', '.join(files)}: no {part} question is held out at data.validation_share = {share}"
        )
    return list(found.values())


@dataclass(frozen=True, kw_only=True)
class KitQuestions:
    """Held-out questions as a task.

    Attributes:
        kit: the kit's name.
        files: of the domain's rows.
        share: held out of training.
        part: which of the held-out questions.
    """

    kit: str
    files: tuple[str, ...]
    share: float
    part: Part = "test"

    @property
    def name(self) -> str:
        """As in eval.json."""
        return f"{self.kit}_questions"

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """The share of right choices in three ways, and the loss on the right answers."""
        return (
            Metric(name=f"{self.kit}_choice", chance=1 / CHOICES,
                   note="held-out questions: of four answers the right one becomes likelier by its "
                        "question than by others of the source, the most (PMI)"),
            Metric(name=f"{self.kit}_choice_empty", chance=1 / CHOICES,
                   note="the same questions: likelier than by an empty question, the most"),
            Metric(name=f"{self.kit}_choice_likeliest", chance=1 / CHOICES,
                   note="the same questions: the right one is likeliest per character"),
            Metric(name=f"{self.kit}_answer_loss", kind="ratio", higher_is_better=False,
                   percent=False, note="nats a token of the right answer, its end not counted"),
        )  # fmt: skip

    def items(self) -> Sequence[Item]:
        """Return the questions of every source that has at least four."""
        by_source = self._by_source(self.part)
        try:
            others = self._by_source("development" if self.part == "test" else "test")
        except DataError:  # few rows: a source without questions there takes its own as premises
            others = {}
        generator = random.Random(SEED)
        items = []
        for source, questions in sorted(by_source.items()):
            ranked = sorted({q.answer for q in questions}, key=lambda text: (len(text), text))
            place = {answer: i for i, answer in enumerate(ranked)}
            if len(ranked) < CHOICES:
                continue
            asked = [q.asked for q in others.get(source, questions)]
            premises = tuple(random.Random(SEED).sample(asked, min(PREMISES, len(asked))))
            for number, question in enumerate(questions):
                start = max(0, min(place[question.answer] - NEAREST // 2, len(ranked) - NEAREST))
                near = [a for a in ranked[start : start + NEAREST] if a != question.answer]
                answers = [question.answer, *generator.sample(near, CHOICES - 1)]
                generator.shuffle(answers)
                items.append(_item(question, answers, f"{source}/{number}", premises))
        return items

    def _by_source(self, part: Part) -> dict[str, list[Question]]:
        found: dict[str, list[Question]] = defaultdict(list)
        for question in held_out_questions(self.files, share=self.share, part=part):
            found[question.source].append(question)
        return found

    def run(
        self, subject: Subject, items: Sequence[Item], *, progress: Progress = no_progress
    ) -> Outcomes:
        """Read the four answers of every question, and every answer without its question."""
        asked = [_request(item.context, choice) for item in items for choice in item.choices]
        scores = subject.score(asked, progress=per_item(progress, CHOICES))
        fours = [scores[at : at + CHOICES] for at in range(0, len(scores), CHOICES)]
        pairs = list(zip(items, fours, strict=True))
        domain = _priors(subject, items, lambda item: item.extra["premises"])
        empty = _priors(subject, items, lambda _: ("",))
        choice, by_empty, likeliest, loss = self.metrics
        return {
            choice.name: [_by_information(item, four, domain) for item, four in pairs],
            by_empty.name: [_by_information(item, four, empty) for item, four in pairs],
            likeliest.name: [_by_likelihood(item, four) for item, four in pairs],
            loss.name: [_loss(item, four) for item, four in pairs],
        }


Priors = Mapping[tuple[str, str], float]
"""log P(answer | the domain) by (source, answer)."""


def _priors(
    subject: Subject, items: Sequence[Item], premises: Callable[[Item], Sequence[str]]
) -> Priors:
    """Read every answer after each of the premises of its source: the logarithm of the mean."""
    answers = {(item.group, answer): premises(item) for item in items for answer in item.choices}
    requests = [_request(q, answer) for (_, answer), asked in answers.items() for q in asked]
    scores = iter(subject.score(requests))
    return {
        key: _log_mean([next(scores).log_prob for _ in asked]) for key, asked in answers.items()
    }


def _log_mean(logs: Sequence[float]) -> float:
    most = max(logs)
    return most + math.log(sum(math.exp(value - most) for value in logs) / len(logs))


def _request(question: Any, answer: str) -> Request:
    return Request(context=[{"role": "user", "content": question}], continuation=answer)


def _by_information(item: Item, four: Sequence[Likelihood], priors: Priors) -> Outcome:
    rows = zip(four, item.choices, strict=True)
    return _chosen(
        item, four, [score.log_prob - priors[item.group, answer] for score, answer in rows]
    )


def _by_likelihood(item: Item, four: Sequence[Likelihood]) -> Outcome:
    rows = zip(four, item.choices, strict=True)
    return _chosen(item, four, [score.log_prob / len(answer) for score, answer in rows])


def _chosen(item: Item, four: Sequence[Likelihood], points: Sequence[float]) -> Outcome:
    best = max(range(CHOICES), key=points.__getitem__)
    assert item.answer is not None
    return Outcome(
        item=item.id, value=float(best == item.answer), group=item.group,
        output=item.choices[best], details={"cut": float(four[item.answer].cut)},
    )  # fmt: skip


def _loss(item: Item, four: Sequence[Likelihood]) -> Outcome:
    assert item.answer is not None
    right = four[item.answer]
    return Outcome(
        item=item.id, value=-right.log_prob, weight=float(right.tokens), group=item.group
    )


def _item(question: Question, answers: Sequence[str], name: str, premises: tuple[str, ...]) -> Item:
    return Item(
        id=name, text=f"{question.asked}\n{question.answer}", group=question.source,
        context=question.asked, choices=tuple(answers), answer=list(answers).index(question.answer),
        reference=question.answer, extra={"premises": premises},
    )  # fmt: skip
