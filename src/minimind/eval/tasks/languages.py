"""Chinese and English kept apart: the script of answers, and the direction of translation.

Everything is asked in Chinese. `languages` generates and counts:

- `wrong_script`: share of answers in the wrong script; an answer whose letters are mostly of the
  other one, or that has none. Groups: `question` (instruction rows of the embedded sources, to be
  answered in Chinese), `to_english` and `to_chinese` (translation of graded sentences).

`translation` scores what is known:

- `translation_nats`: nats per UTF-8 byte of the true translation;
- `translation_direction`: is the true translation likelier, by the byte, than the translation of
  another sentence into the **wrong** language, the source sentence itself excepted? Two choices,
  chance 50 %: a model that confuses the languages falls to it or below.

Sources: hsk-sentences-audio (PyPI, CC-BY-SA-4.0) and the instruction rows of the catalogue's
embedded packages. Rows are held out by the hash of the question, as SFT holds them out at 10 %. The
plain text of pretraining has most of the graded sentences beside their translation (their documents
are held out as wholes, at 1 %), so contamination checks will find them there: `translation` is
about the direction first.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass

from minimind.data.catalogue import GROUPS
from minimind.data.document import is_held_out
from minimind.data.sources.text import count_hanzi
from minimind.eval.bits_per_byte import utf8
from minimind.eval.tasks import sources
from minimind.eval.tasks.base import (
    Generated,
    Generation,
    Item,
    Metric,
    Outcome,
    Outcomes,
    Progress,
    Request,
    Subject,
    Task,
    TaskOptions,
    no_progress,
)
from minimind.eval.tasks.questions import per_item

LIMIT = 500
SEED = 0
BUDGET = 96
TO_ENGLISH, TO_CHINESE = "把这句话翻译成英文：", "把这句话翻译成中文："

WRONG_SCRIPT = Metric(
    name="wrong_script", unit="answers", higher_is_better=False,
    note="mostly the other script, or no letters at all; asked in Chinese",
)  # fmt: skip
NATS = Metric(
    name="translation_nats", unit="sentences", kind="ratio", higher_is_better=False, percent=False,
    note="nats per byte of the true translation",
)  # fmt: skip
DIRECTION = Metric(
    name="translation_direction", unit="sentences", chance=0.5,
    note="the true translation is likelier by the byte than a sentence in the wrong language",
)  # fmt: skip


def script(text: str) -> str:
    """Return `zh`, `en` or "": of which script most letters are (an English word counts as one)."""
    hanzi, words = count_hanzi(text), len(re.findall(r"[A-Za-z]+", text))
    return "" if hanzi == words == 0 else "zh" if hanzi >= words else "en"


def questions() -> list[Item]:
    """Return held-out questions of the embedded sources, half of them translations.

    Raises:
        FetchError: a package can't be had.
    """
    draw = random.Random(SEED)
    asked = [
        _item(question, answer, "question")
        for source in GROUPS["embedded"]
        if source not in {"hsk", "chalkbase"}  # sums have few letters
        for question, answer in sources.instruction_rows(source)
        if is_held_out(question, sources.QUESTIONS_SHARE) and script(answer) == "zh"
    ]
    translated = translations()
    draw.shuffle(asked)
    return [*asked[: LIMIT // 2], *translated[: LIMIT // 2]]


def translations() -> list[Item]:
    """Return held-out rows of the graded sentences in both directions, shuffled."""
    found = []
    for question, answer in sources.instruction_rows("hsk"):
        if is_held_out(question, sources.QUESTIONS_SHARE):
            found.append(_item(question, answer, "to_english" if TO_ENGLISH in question else
                               "to_chinese"))  # fmt: skip
    random.Random(SEED).shuffle(found)
    return found


def _item(question: str, answer: str, group: str) -> Item:
    text = question.partition("：")[2] + "\n" + answer  # without the words that ask
    return Item(id=question, text=text, group=group, reference=answer,
                context=[{"role": "user", "content": question}])  # fmt: skip


def _prompt(item: Item, subject: Subject) -> str | Sequence[dict[str, str]]:
    """Return the messages, or plain text for a model without a chat template."""
    return item.context if subject.has_chat_template else f"{item.id}\n"


@dataclass(frozen=True, kw_only=True)
class LanguagesTask:
    """Questions whose answer has a script."""

    name: str = "languages"
    metrics: tuple[Metric, ...] = (WRONG_SCRIPT,)

    def items(self) -> Sequence[Item]:
        """Return questions and translations."""
        return questions()

    def run(
        self, subject: Subject, items: Sequence[Item], *, progress: Progress = no_progress
    ) -> Outcomes:
        """Let the subject answer."""
        prompts = [_prompt(item, subject) for item in items]
        answers = subject.generate(prompts, Generation(max_new_tokens=BUDGET), progress=progress)
        pairs = zip(items, answers, strict=True)
        return {WRONG_SCRIPT.name: [_script_outcome(item, answer) for item, answer in pairs]}


def _script_outcome(item: Item, answer: Generated) -> Outcome:
    found = script(answer.text)
    wanted = "en" if item.group == "to_english" else "zh"
    return Outcome(item=item.id, value=float(found != wanted), group=item.group,
                   output=answer.text, details={"no_letters": float(not found)})  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class TranslationTask:
    """Translations to be scored."""

    name: str = "translation"
    metrics: tuple[Metric, ...] = (NATS, DIRECTION)

    def items(self) -> Sequence[Item]:
        """Return translations; `extra` has another sentence in the wrong language."""
        items = translations()[:LIMIT]
        by_group = {
            group: [item.reference for item in items if item.group == group]
            for group in ("to_english", "to_chinese")
        }
        draw = random.Random(SEED)
        return [_with_wrong(item, by_group, draw) for item in items]

    def run(
        self, subject: Subject, items: Sequence[Item], *, progress: Progress = no_progress
    ) -> Outcomes:
        """Score the true translation and the sentence in the wrong language."""
        requests = [
            Request(context=_prompt(item, subject), continuation=text)
            for item in items
            for text in (item.reference, item.extra["wrong"])
        ]
        scores = subject.score(requests, progress=per_item(progress, 2))
        nats, direction = [], []
        for number, item in enumerate(items):
            right, wrong = scores[2 * number].log_prob, scores[2 * number + 1].log_prob
            size, other = len(utf8(item.reference)), len(utf8(item.extra["wrong"]))
            nats.append(Outcome(item=item.id, value=-right, weight=float(size), group=item.group))
            direction.append(
                Outcome(item=item.id, value=float(right / size > wrong / other), group=item.group)
            )
        return {NATS.name: nats, DIRECTION.name: direction}


def _with_wrong(item: Item, by_group: dict[str, list[str]], draw: random.Random) -> Item:
    wrong_group = "to_chinese" if item.group == "to_english" else "to_english"
    own = item.id.partition("：")[2]
    wrong = draw.choice([text for text in by_group[wrong_group] if text != own])
    return Item(id=item.id, text=item.text, group=item.group, context=item.context,
                reference=item.reference, extra={"wrong": wrong})  # fmt: skip


def make_languages(_: TaskOptions) -> Task:
    """Answers in the script that was asked for."""
    return LanguagesTask()


def make_translation(_: TaskOptions) -> Task:
    """Translations into the language that was asked for."""
    return TranslationTask()
