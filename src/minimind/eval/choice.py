"""Four-choice questions made from held-out documents, answered by likelihood.

The model isn't asked to write A, B, C or D, which is a skill of larger models: each of the four
answers is put in its place, and the one whose text is the most likely per character wins. Guessing
gives 25 %. Questions are drawn with a seed; wrong answers are the right ones of other held-out
entries of about the same length, so that neither length nor having been seen gives it away.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from minimind.data.batch import IGNORE
from minimind.data.document import Document
from minimind.eval.bits_per_byte import utf8
from minimind.eval.results import Measure
from minimind.eval.scoring import Precision, label_log_probs, next_token_row
from minimind.eval.statistics import share_measure
from minimind.model import CausalLM
from minimind.tokenizer import Tokenizer

CHOICES = 4
NEAREST = 24
"""Wrong answers are drawn among this many entries whose right answer is nearest in length."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What a question is made of: `before` + `answer` + `after` is text as in the documents.

    An entry whose `key` occurs in any text that was trained on is not asked about.
    """

    before: str
    answer: str
    after: str = ""
    key: str = ""


@dataclass(frozen=True, kw_only=True)
class ChoiceItem:
    """One question.

    Attributes:
        context: what every choice follows.
        choices: four texts in random order, each with what comes after the gap.
        lengths: characters of the answer itself in each choice, for normalising.
        answer: the number of the right one.
    """

    context: str
    choices: tuple[str, ...]
    lengths: tuple[int, ...]
    answer: int


def idiom_cloze(document: Document) -> list[Entry]:
    """Read an idiom's example sentence: which idiom fills the gap?"""
    word, _, _ = document.text.partition("（")
    example = re.search(r"^例句：(.+)", document.text, re.MULTILINE)
    if document.meta.get("source") != "idioms" or example is None or len(word) != 4:
        return []
    sentence = re.sub(r"（[^（）]*）$", "", example[1])
    before, found, after = sentence.partition(word)
    return (
        [Entry(before=before, answer=word, after=after, key=word)]
        if found and before + after
        else []
    )


def idiom_meaning(document: Document) -> list[Entry]:
    """Read an idiom's meaning: which one belongs to it?"""
    entry = re.match(r"(\w{3,}（[^（）\n]+）：)([^\n]{4,80})", document.text)
    if document.meta.get("source") != "idioms" or entry is None:
        return []
    return [Entry(before=entry[1], answer=entry[2], key=entry[1].partition("（")[0])]


def icd_term(document: Document) -> list[Entry]:
    """Read ICD-10 lines: which Chinese term has this English one and this code?"""
    if document.meta.get("source") != "icd10":
        return []
    lines = re.findall(r"^([A-Z]\d\S*) ([^\n（]+)(（[^\n]+）)$", document.text, re.MULTILINE)
    return [Entry(before=f"{code} ", answer=zh, after=en, key=zh) for code, zh, en in lines]


KINDS: Mapping[str, Callable[[Document], list[Entry]]] = {
    "choice_idiom_cloze": idiom_cloze,
    "choice_idiom_meaning": idiom_meaning,
    "choice_icd": icd_term,
}
"""Question kinds by the name of their measure; a new kind is a function and a line here."""


def unseen_entries(
    documents: Iterable[Document],
    read: Callable[[Document], list[Entry]],
    *,
    training: str = "",
) -> list[Entry]:
    """Read entries of held-out documents; those whose key occurs in `training` are left out.

    Holding the document out isn't enough: an instruction may ask for the very same idiom.
    """
    entries = (entry for document in documents for entry in read(document))
    return [entry for entry in entries if entry.key not in training]


def make_items(entries: Sequence[Entry], *, limit: int = 500, seed: int = 0) -> list[ChoiceItem]:
    """Make at most `limit` questions; none when there are too few entries to choose among."""
    generator = random.Random(seed)
    entries = list(entries)
    by_length = sorted({entry.answer for entry in entries}, key=lambda text: (len(text), text))
    rank = {answer: i for i, answer in enumerate(by_length)}
    if len(by_length) < CHOICES:
        return []
    generator.shuffle(entries)
    items = []
    for entry in entries[:limit]:
        start = max(0, min(rank[entry.answer] - NEAREST // 2, len(by_length) - NEAREST))
        near = [a for a in by_length[start : start + NEAREST] if a != entry.answer]
        answers = [entry.answer, *generator.sample(near, CHOICES - 1)]
        generator.shuffle(answers)
        items.append(
            ChoiceItem(
                context=entry.before,
                choices=tuple(answer + entry.after for answer in answers),
                lengths=tuple(map(len, answers)),
                answer=answers.index(entry.answer),
            )
        )
    return items


def choice_items(
    documents: Sequence[Document],
    *,
    training: Iterable[str] = (),
    limit: int = 500,
    seed: int = 0,
) -> dict[str, list[ChoiceItem]]:
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
                unseen_entries(documents, read, training=joined), limit=limit, seed=seed
            )
        )
    }


def choice_accuracy(
    model: CausalLM,
    tokenizer: Tokenizer,
    items: Sequence[ChoiceItem],
    *,
    precision: Precision = "fp32",
    batch_tokens: int = 8192,
) -> Measure:
    """Return the share of questions answered right, with its Wilson interval.

    The score of a choice is the log-probability of everything after the context, divided by the
    characters of the answer. The whole text is encoded at once, as in training; a token that
    straddles the end of the context is scored. Texts longer than the context are cut at their end.
    """
    context = model.config.max_position_embeddings
    rows = []
    for item in items:
        prefix = len(utf8(item.context))
        for choice in item.choices:
            ids = tokenizer.encode(item.context + choice)
            sizes = [len(tokenizer.token_bytes(token)) for token in ids]
            # Below 0 where a foreign vocabulary puts a space before the first word.
            position = len(utf8(item.context + choice)) - sum(sizes)
            ends = []
            for size in sizes[:context]:
                position += size
                ends.append(position > prefix)
            start = tokenizer.document_start_id
            rows.append(next_token_row([start, *ids[:context]], [False, *ends]))
    scores = label_log_probs(model, rows, precision=precision, batch_tokens=batch_tokens)
    hits = []
    for number, item in enumerate(items):
        own = scores[number * CHOICES : (number + 1) * CHOICES]
        means = [
            float(log_probs.sum(dtype="float64")) / length
            for log_probs, length in zip(own, item.lengths, strict=True)
        ]
        hits.append(max(range(CHOICES), key=means.__getitem__) == item.answer)
    return share_measure(
        hits,
        unit="questions",
        chance=1 / CHOICES,
        details={"scored_tokens": sum(label != IGNORE for _, row in rows for label in row)},
        note="most likely answer per character out of four; made from held-out documents",
    )


def choice_measures(
    model: CausalLM,
    tokenizer: Tokenizer,
    items: Mapping[str, Sequence[ChoiceItem]],
    *,
    precision: Precision = "fp32",
) -> dict[str, Measure]:
    """Return the accuracy of every kind of question, by name."""
    return {
        name: choice_accuracy(model, tokenizer, questions, precision=precision)
        for name, questions in items.items()
    }
