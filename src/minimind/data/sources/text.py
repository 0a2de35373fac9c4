"""What the readers share: counting, grouping, script conversion."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator

from minimind.data.document import Document
from minimind.errors import require

_HANZI = re.compile(r"[\u3400-\u9fff\U00020000-\U0003ffff]")


def count_hanzi(text: str) -> int:
    """Return the number of Chinese characters (punctuation not counted)."""
    return len(_HANZI.findall(text))


def simplifier() -> Callable[[str], str]:
    """Return a function from traditional to simplified script.

    Raises:
        MissingExtraError: opencc is not installed.
    """
    return require("opencc", extra="data").OpenCC("t2s").convert


def documents(texts: Iterable[str], prefix: str) -> Iterator[Document]:
    """Number the texts that have something in them: `prefix:0`, `prefix:1`, ..."""
    kept = (text for text in map(str.strip, texts) if text)
    for number, text in enumerate(kept):
        yield Document(text, f"{prefix}:{number}")


def grouped(lines: Iterable[str], *, characters: int, joint: str = "\n") -> Iterator[str]:
    """Join consecutive lines into texts of about `characters` characters."""
    group: list[str] = []
    size = 0
    for line in lines:
        if group and size + len(line) > characters:
            yield joint.join(group)
            group, size = [], 0
        group.append(line)
        size += len(line)
    if group:
        yield joint.join(group)
