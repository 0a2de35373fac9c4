"""What a kit asks of its sources: facts as questions that the answer doesn't repeat.

`data.instructions` makes the rows of the general mix: a few of every source, for a model that shall
answer in whole sentences. A kit wants more of fewer sources, and its held-out questions are scored:
an answer that says its question again could be told from three others by that alone. So where this
module has recipes for a source, they stand in for those of the general mix:

    icd10-terms      an English term -> the Chinese one
    icd10-chapters   a Chinese term -> the chapter of ICD-10 it belongs to
    laws-articles    a law and a number -> the article
    laws-names       an article -> the law it stands in

A question that the general mix asks too is worded as it is there, so that replayed rows and the
kit's are held out by the same hash; terms whose code and name the general mix tells in one breath
are left out. What the tasks of `minimind eval` ask about (the documents that pretraining holds out)
is left out as well: `icd_term` and `which_law` of a kit's page must not have been learnt by heart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from minimind.data.instructions import RECIPES, Pair, law_articles, medical_terms, pick
from minimind.data.sources import laws, medical
from minimind.eval.tasks import sources

NAMES_IN = 3
"""One article in so many asks for its law's name; the others are asked for by number."""

LONGEST_ARTICLE = 160

CHAPTERS = (
    ("A00", "B99", "某些传染病和寄生虫病"),
    ("C00", "D48", "肿瘤"),
    ("D50", "D89", "血液及造血器官疾病和涉及免疫机制的某些疾患"),
    ("E00", "E90", "内分泌、营养和代谢疾病"),
    ("F00", "F99", "精神和行为障碍"),
    ("G00", "G99", "神经系统疾病"),
    ("H00", "H59", "眼和附器疾病"),
    ("H60", "H95", "耳和乳突疾病"),
    ("I00", "I99", "循环系统疾病"),
    ("J00", "J99", "呼吸系统疾病"),
    ("K00", "K93", "消化系统疾病"),
    ("L00", "L99", "皮肤和皮下组织疾病"),
    ("M00", "M99", "肌肉骨骼系统和结缔组织疾病"),
    ("N00", "N99", "泌尿生殖系统疾病"),
    ("O00", "O99", "妊娠、分娩和产褥期"),
    ("P00", "P96", "起源于围生期的某些情况"),
    ("Q00", "Q99", "先天性畸形、变形和染色体异常"),
    ("R00", "R99", "症状、体征和临床与实验室异常所见"),
    ("S00", "T98", "损伤、中毒和外因的某些其他后果"),
    ("Z00", "Z99", "影响健康状态和与保健机构接触的因素"),
)
"""First and last category of the chapters (WHO); what comes from outside (V to Y) is no disease."""


@dataclass(frozen=True, slots=True)
class Fact:
    """One row, and the text that must not stand in a document that an evaluation asks about."""

    question: str
    answer: str
    key: str


@dataclass(frozen=True, slots=True)
class KitRecipe:
    """Which facts a source gives; `name` is the row's source and its group on the kit's page."""

    source: str
    name: str
    facts: Callable[[Path], Iterator[Fact]]


def icd_terms(archive: Path) -> Iterator[Fact]:
    """The Chinese name of an English term, asked as the general mix asks it."""
    chinese = {english: zh for _, english, zh in medical.read_terms(archive)}
    asked = dict(medical_terms(archive))
    for english, zh in chinese.items():
        question = f"“{english}”的中文医学名称是什么？"
        if question in asked:
            yield Fact(question, asked[question], f" {zh}（{english}）")


def icd_chapters(archive: Path) -> Iterator[Fact]:
    """The chapter of a term; terms that stand in several are not asked about."""
    chapters: dict[str, set[str]] = {}
    english: dict[str, str] = {}
    for code, name, zh in medical.read_terms(archive):
        chapters.setdefault(zh, set()).add(chapter_of(code))
        if pick(name, 2):
            english[zh] = name
    for zh, name in english.items():
        if len(chapters[zh]) == 1 and (chapter := next(iter(chapters[zh]))):
            question = f"按ICD-10分类，“{zh}”属于哪一章？"
            yield Fact(question, f"{chapter}。", f" {zh}（{name}）")


def chapter_of(code: str) -> str:
    """Return the chapter's name of a code as `A010`; "" for a code outside `CHAPTERS`."""
    category = code[:3]
    return next((name for first, last, name in CHAPTERS if first <= category <= last), "")


def articles_by_number(archive: Path) -> Iterator[Fact]:
    """An article's text for its law and number."""
    short = {article.text: article for article in laws.read_articles(archive)}
    for question, answer in law_articles(archive):
        text = answer.partition("规定：")[2]
        if text in short and pick(f"name:{text}", NAMES_IN):
            yield Fact(question, text, text)


def names_of_articles(archive: Path) -> Iterator[Fact]:
    """The law in which an article stands; articles that name it, or stand in two, are left out."""
    found: dict[str, set[str]] = {}
    for article in laws.read_articles(archive):
        found.setdefault(article.text, set()).add(article.law)
    for text, names in found.items():
        (name, *others) = names
        told = name.removeprefix("中华人民共和国") in text
        if others or told or len(text) > LONGEST_ARTICLE or pick(f"name:{text}", NAMES_IN):
            continue
        yield Fact(f"下面的条文出自哪部法律？\n{text}", f"《{name}》。", text)


KIT_RECIPES = (
    KitRecipe("icd10", "icd10-terms", icd_terms),
    KitRecipe("icd10", "icd10-chapters", icd_chapters),
    KitRecipe("laws", "laws-articles", articles_by_number),
    KitRecipe("laws", "laws-names", names_of_articles),
)


def pairs_of(source: str, archive: Path) -> dict[str, Sequence[Pair]]:
    """Return the rows of a source by the name of their recipe; none for a source without recipes.

    Args:
        source: as in the catalogue.
        archive: its package.
    """
    own = [recipe for recipe in KIT_RECIPES if recipe.source == source]
    if not own:
        general = [recipe for recipe in RECIPES if recipe.source == source]
        return {source: [pair for recipe in general for pair in recipe.pairs(archive)]}
    asked = "\n".join(document.text for document in sources.documents(source).held_out)
    return {
        recipe.name: [
            (fact.question, fact.answer)
            for fact in recipe.facts(archive)
            if fact.key not in asked
        ]
        for recipe in own
    }  # fmt: skip
