"""Repetition: how much of what a model writes it has written before, and whether it stops.

Held-out texts are begun (their first 24 characters) and continued greedily for 192 tokens, the
setting in which small models loop; with `--chat`, held-out questions are answered instead. Over the
characters of each continuation, spaces and line ends left out:

- `repetition`: share of 4-grams that occurred before in it (seq-rep-4, Welleck et al. 2019); 0 is
  none;
- `distinct_2`: different bigrams per bigram (distinct-n, Li et al. 2016); 1 is all different;
- `never_stops`: share of answers that reach neither the end of the text nor of the turn. Of texts
  longer than the budget by nature this is no fault, so compare it with `text_never_stops` in
  `details`: how many of the true continuations don't fit 192 characters.

People repeat themselves too: the true continuations' figures are summed in `details`
(`text_repetition`, `text_distinct_2`; divide by n). Source: the eight embedded packages, documents
held out of training by their hash; the questions are the instruction rows held out the same way.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from minimind.data.catalogue import GROUPS
from minimind.data.document import is_held_out
from minimind.eval.tasks import sources
from minimind.eval.tasks.base import (
    Generated,
    Generation,
    Item,
    Metric,
    Outcome,
    Outcomes,
    Progress,
    Subject,
    Task,
    TaskOptions,
    no_progress,
)

LIMIT = 200
SEED = 0
BEGINNING = 24
BUDGET = 192
SHORTEST = 80
"""Characters of the texts that are begun: shorter ones end before a loop could begin."""

REPETITION = Metric(
    name="repetition", unit="answers", kind="mean", higher_is_better=False,
    note="share of character 4-grams that occurred before in the answer",
)  # fmt: skip
DISTINCT = Metric(
    name="distinct_2", unit="answers", kind="mean", note="different character bigrams per bigram"
)
NEVER_STOPS = Metric(
    name="never_stops", unit="answers", higher_is_better=False,
    note=f"neither the text nor the turn ends within {BUDGET} tokens",
)  # fmt: skip


def grams(text: str, n: int) -> list[str]:
    """Return the n-grams of the characters, without spaces and line ends."""
    text = "".join(text.split())
    return [text[i : i + n] for i in range(len(text) - n + 1)]


def repeated_share(text: str, n: int) -> float:
    """Return the share of n-grams that occurred before in the text; 0 where there are none."""
    found = grams(text, n)
    return 1 - len(set(found)) / len(found) if found else 0.0


def distinct_share(text: str, n: int) -> float:
    """Return different n-grams per n-gram; 1 where there are none."""
    return 1 - repeated_share(text, n)


@dataclass(frozen=True, kw_only=True)
class LoopsTask:
    """Texts to be continued, or questions to be answered.

    Attributes:
        chat: questions through the chat template.
        name: as in `--tasks`.
        metrics: see the module.
    """

    chat: bool = False
    name: str = "repetition"
    metrics: tuple[Metric, ...] = (REPETITION, DISTINCT, NEVER_STOPS)

    def items(self) -> Sequence[Item]:
        """Return the beginnings, or the questions.

        Raises:
            FetchError: a package can't be had.
        """
        found = [
            item
            for source in GROUPS["embedded"]
            for item in (self._questions(source) if self.chat else self._texts(source))
        ]
        random.Random(SEED).shuffle(found)
        return found[:LIMIT]

    def _texts(self, source: str) -> list[Item]:
        return [
            Item(id=document.id, text=document.text, group=source,
                 context=document.text[:BEGINNING], reference=document.text[BEGINNING:])
            for document in sources.documents(source).held_out
            if len(document.text) >= SHORTEST
        ]  # fmt: skip

    def _questions(self, source: str) -> list[Item]:
        return [
            Item(id=question, text=answer, group=source, reference=answer,
                 context=[{"role": "user", "content": question}])
            for question, answer in sources.instruction_rows(source)
            if is_held_out(question, sources.QUESTIONS_SHARE)
        ]  # fmt: skip

    def run(
        self, subject: Subject, items: Sequence[Item], *, progress: Progress = no_progress
    ) -> Outcomes:
        """Let the subject write on."""
        written = subject.generate(
            [item.context for item in items], Generation(max_new_tokens=BUDGET), progress=progress
        )
        outcomes: dict[str, list[Outcome]] = {metric.name: [] for metric in self.metrics}
        for item, answer in zip(items, written, strict=True):
            for outcome, found in zip(_outcomes(item, answer), outcomes.values(), strict=True):
                found.append(outcome)
        return outcomes


def _outcomes(item: Item, answer: Generated) -> tuple[Outcome, Outcome, Outcome]:
    """Return the outcomes under the three metrics, in their order."""
    truth = item.reference[:BUDGET]

    def outcome(value: float, name: str, of_text: float) -> Outcome:
        return Outcome(item=item.id, value=value, group=item.group, output=answer.text,
                       details={name: of_text})  # fmt: skip

    return (
        outcome(repeated_share(answer.text, 4), "text_repetition", repeated_share(truth, 4)),
        outcome(distinct_share(answer.text, 2), "text_distinct_2", distinct_share(truth, 2)),
        outcome(
            float(answer.finished != "stop"),
            "text_never_stops",
            float(len(item.reference) > BUDGET),
        ),
    )


def make_repetition(options: TaskOptions) -> Task:
    """Repetition and endless answers."""
    return LoopsTask(chat=options.chat)
