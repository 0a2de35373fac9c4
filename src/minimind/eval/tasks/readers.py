"""What questions are read from documents, as `minimind data build` writes them."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from minimind.data.document import Document
from minimind.eval.tasks.questions import Entry

Read = Callable[[Document], list[Entry]]


def idiom_cloze(document: Document) -> list[Entry]:
    """Read an idiom's example sentence: which idiom fills the gap?"""
    word, _, _ = document.text.partition("（")
    example = re.search(r"^例句：(.+)", document.text, re.MULTILINE)
    if document.meta.get("source") != "idioms" or example is None or len(word) != 4:
        return []
    sentence = re.sub(r"（[^（）]*）$", "", example[1])
    before, found, after = sentence.partition(word)
    if not found or not before + after:
        return []
    # The idiom itself may be known from elsewhere, and so may the wrong ones: its use is asked for.
    return [Entry(before=before, answer=word, after=after, key=sentence, id=document.id)]


def idiom_meaning(document: Document) -> list[Entry]:
    """Read an idiom's meaning: which one belongs to it?"""
    entry = re.match(r"(\w{3,}（[^（）\n]+）：)([^\n]{4,80})", document.text)
    if document.meta.get("source") != "idioms" or entry is None:
        return []
    word = entry[1].partition("（")[0]
    return [Entry(before=entry[1], answer=entry[2], key=word, id=document.id)]


def icd_term(document: Document) -> list[Entry]:
    """Read ICD-10 lines: which Chinese term has this English one and this code?"""
    if document.meta.get("source") != "icd10":
        return []
    lines = re.findall(r"^([A-Z]\d\S*) ([^\n（]+)(（[^\n]+）)$", document.text, re.MULTILINE)
    return [
        Entry(before=f"{code} ", answer=zh, after=en, key=zh, id=f"{document.id}:{code}")
        for code, zh, en in lines
    ]


def law_article(document: Document) -> list[Entry]:
    """Read the articles of a chapter: under which law's name is the article likeliest?

    Articles that name the law themselves are not asked about.
    """
    heading = re.match(r"《([^《》\n]+)》[^\n]*\n", document.text)
    if document.meta.get("source") != "laws" or heading is None:
        return []
    law, short = heading[1], heading[1].removeprefix("中华人民共和国")
    articles = re.findall(
        r"^(第[一二三四五六七八九十百千]+条(?:之[一二三四五六七八九十]+)?) (.{20,400})$",
        document.text,
        re.MULTILINE,
    )
    return [
        Entry(before="《", answer=law, after="》\n", scored=f"{number} {text}", key=text,
              id=f"{document.id}:{number}")
        for number, text in articles
        if short not in text
    ]  # fmt: skip


def couplets(text: str) -> tuple[str, Sequence[str]]:
    """Part a poem into its heading and its couplets; ("", ()) where it isn't written so.

    A couplet is a line of two halves of five or of seven characters, alike in the whole poem.
    """
    heading, _, body = text.partition("\n")
    lines = body.split("\n")
    for length in (5, 7):
        shape = re.compile(rf"\w{{{length}}}，\w{{{length}}}[。？！]")
        if len(lines) > 1 and all(shape.fullmatch(line) for line in lines):
            return heading, lines
    return "", ()


def next_couplet(document: Document) -> list[Entry]:
    """Read a poem: which couplet comes next? One question a poem, on its last couplet."""
    heading, lines = couplets(document.text)
    if document.meta.get("source") != "poetry" or not lines:
        return []
    before = "\n".join([heading, *lines[:-1]]) + "\n"
    return [Entry(before=before, answer=lines[-1], key=lines[-1], id=document.id)]
