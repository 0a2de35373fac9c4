"""Four-choice questions from a run's own held-out documents, as the quickstart asks them.

What questions are made of and how they are answered is `eval.tasks`' (`questions`, `readers`); here
they are made from the documents and training texts that are at hand, instead of the packages.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from minimind.data.document import Document
from minimind.eval.results import Measure
from minimind.eval.subject import ModelSubject, Options
from minimind.eval.tasks.base import Item, Metric, measure_of
from minimind.eval.tasks.questions import CHOICES, ChoiceTask, make_items, unmentioned
from minimind.eval.tasks.readers import Read, icd_term, idiom_cloze, idiom_meaning
from minimind.inference.scoring import Precision
from minimind.model import CausalLM
from minimind.tokenizer import Tokenizer

KINDS: Mapping[str, Read] = {
    "choice_idiom_cloze": idiom_cloze,
    "choice_idiom_meaning": idiom_meaning,
    "choice_icd": icd_term,
}
"""Question kinds of the quickstart by the name of their measure."""


def choice_items(
    documents: Sequence[Document],
    *,
    training: Iterable[str] = (),
    limit: int = 500,
    seed: int = 0,
) -> dict[str, list[Item]]:
    """Make the questions of every kind in `KINDS`, by the name of their measure.

    Args:
        documents: held-out ones of the embedded sources.
        training: every text that any stage was trained on.
        limit: questions a kind.
        seed: of the draw.
    """
    joined = "\n".join(training)
    return {
        name: items
        for name, read in KINDS.items()
        if (
            items := make_items(
                unmentioned((entry for document in documents for entry in read(document)), joined),
                limit=limit,
                seed=seed,
            )
        )
    }


def choice_measures(
    model: CausalLM,
    tokenizer: Tokenizer,
    items: Mapping[str, Sequence[Item]],
    *,
    precision: Precision = "fp32",
) -> dict[str, Measure]:
    """Return the share of questions of every kind answered right, with its Wilson interval."""
    subject = ModelSubject("", model, tokenizer, options=Options(precision=precision))
    measures = {}
    for name, questions in items.items():
        metric = Metric(
            name=name, unit="questions", chance=1 / CHOICES,
            note="most likely answer per character out of four; made from held-out documents",
        )  # fmt: skip
        task = ChoiceTask(name=name, metric=metric, make=lambda: ())
        measures[name] = measure_of(metric, task.run(subject, questions)[name])
    return measures
