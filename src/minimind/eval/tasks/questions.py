"""Four-choice questions: what they are made of, how they are drawn and how a model answers them.

The model isn't asked to write A, B, C or D, which is a skill of larger models: each of the four
answers is put in its place, and the one that makes the likeliest text is the model's answer.
Guessing gives 25 %. Questions are drawn with a seed; wrong answers are the right ones of other
entries of about the same length, so that neither length nor having been seen gives it away.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

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

CHOICES = 4
NEAREST = 24
"""Wrong answers are drawn among this many entries whose right answer is nearest in length."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What a question is made of: `before` + `answer` + `after` is text as in the documents.

    Attributes:
        before: what the answer follows.
        answer: the right answer.
        after: what follows the answer.
        key: an entry whose key occurs in any text that was trained on is not asked about.
        id: of the item; unique and stable.
        scored: if given, this is scored after `before` + answer + `after`, instead of the answer:
            four contexts, one continuation ("under which law is this article likeliest?").
    """

    before: str
    answer: str
    after: str = ""
    key: str = ""
    id: str = ""
    scored: str = ""


def make_items(entries: Sequence[Entry], *, limit: int = 500, seed: int = 0) -> list[Item]:
    """Make at most `limit` questions; none when there are too few entries to choose among.

    `Item.extra` has `requests`: the four (context, continuation), and `weights`: by what each
    log-probability is divided (the characters of the answer; 1 where all continuations are alike).
    """
    generator = random.Random(seed)
    entries = list(entries)
    by_length = sorted({entry.answer for entry in entries}, key=lambda text: (len(text), text))
    rank = {answer: i for i, answer in enumerate(by_length)}
    if len(by_length) < CHOICES:
        return []
    generator.shuffle(entries)
    items = []
    for number, entry in enumerate(entries[:limit]):
        start = max(0, min(rank[entry.answer] - NEAREST // 2, len(by_length) - NEAREST))
        near = [a for a in by_length[start : start + NEAREST] if a != entry.answer]
        answers = [entry.answer, *generator.sample(near, CHOICES - 1)]
        generator.shuffle(answers)
        items.append(_item(entry, answers, entry.id or str(number)))
    return items


def _item(entry: Entry, answers: Sequence[str], name: str) -> Item:
    if entry.scored:
        requests = [(entry.before + answer + entry.after, entry.scored) for answer in answers]
        weights = [1.0] * len(answers)
    else:
        requests = [(entry.before, answer + entry.after) for answer in answers]
        weights = [float(len(answer)) for answer in answers]
    return Item(
        id=name,
        text=entry.scored or entry.before + entry.answer + entry.after,
        context=entry.before,
        choices=tuple(answers),
        answer=list(answers).index(entry.answer),
        reference=entry.answer,
        extra={"requests": tuple(requests), "weights": tuple(weights)},
    )


def per_item(progress: Progress, requests: int) -> Progress:
    """Turn progress counted in requests, `requests` an item, into progress counted in items."""
    waiting = 0

    def count(more: int) -> None:
        nonlocal waiting
        items, waiting = divmod(waiting + more, requests)
        if items:
            progress(items)

    return count


@dataclass(frozen=True, kw_only=True)
class ChoiceTask:
    """Four-choice questions as a task.

    Attributes:
        name: as in `--tasks`.
        metric: of the share of right answers.
        make: makes the items, of the documents that `minimind.eval.tasks.sources` holds out.
    """

    name: str
    metric: Metric
    make: Callable[[], Sequence[Item]]

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """The share of right answers."""
        return (self.metric,)

    def items(self) -> Sequence[Item]:
        """Return the questions.

        Raises:
            FetchError: the package that they are made from can't be had.
        """
        return self.make()

    def run(
        self, subject: Subject, items: Sequence[Item], *, progress: Progress = no_progress
    ) -> Outcomes:
        """Score the four answers of every question."""
        requests = [
            Request(context=context, continuation=continuation)
            for item in items
            for context, continuation in item.extra["requests"]
        ]
        likelihoods = subject.score(requests, progress=per_item(progress, CHOICES))
        pairs = zip(items, _fours(likelihoods), strict=True)
        return {self.metric.name: [_outcome(item, four) for item, four in pairs]}


def _fours(likelihoods: Sequence[Likelihood]) -> Iterator[Sequence[Likelihood]]:
    return (likelihoods[i : i + CHOICES] for i in range(0, len(likelihoods), CHOICES))


def _outcome(item: Item, four: Sequence[Likelihood]) -> Outcome:
    means = [
        likelihood.log_prob / weight
        for likelihood, weight in zip(four, item.extra["weights"], strict=True)
    ]
    chosen = max(range(CHOICES), key=means.__getitem__)
    return Outcome(
        item=item.id,
        value=float(chosen == item.answer),
        group=item.group,
        output=item.choices[chosen],
        details={"cut_tokens": float(sum(likelihood.cut for likelihood in four))},
    )


def unmentioned(entries: Iterable[Entry], text: str) -> list[Entry]:
    """Leave out entries whose key occurs in the text.

    Holding the document out isn't enough: an instruction may ask for the very same idiom.
    """
    return [entry for entry in entries if entry.key not in text]
