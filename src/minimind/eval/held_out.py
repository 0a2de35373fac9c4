"""The held-out side of the data, by the same hash by which training leaves it out."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from minimind.data.document import Document, is_held_out
from minimind.data.formats import Kind, PreferenceRow, Row, RowError, TextRow, parse_row
from minimind.data.reader import Cursor, Rejects, expand_paths, read_lines
from minimind.eval.answers import Conversation, Pair

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class TextSplit:
    """Documents on both sides; `meta["source"]` is the row's own, else the file's name."""

    training: list[str] = field(default_factory=list)
    held_out: list[Document] = field(default_factory=list)


def split_text(patterns: Sequence[str], *, share: float) -> TextSplit:
    """Read text files once and part them by the hash of each document, as the loader does.

    Args:
        patterns: paths, globs or folders, as in `data.train`.
        share: `data.validation_share` of the training run.

    Raises:
        DataError: a pattern matches nothing.
    """
    split = TextSplit()
    for row, source, place in _rows(patterns, "text"):
        if not isinstance(row, TextRow):
            continue
        if is_held_out(row.held_out_key, share):
            split.held_out.append(Document(row.text, place, {"source": source}))
        else:
            split.training.append(row.text)
    return split


def conversations(
    patterns: Sequence[str], *, share: float, limit: int | None = None, seed: int = 0
) -> tuple[list[Conversation], list[str]]:
    """Return held-out conversations and the source of each; a seeded draw of at most `limit`.

    Raises:
        DataError: a pattern matches nothing.
    """
    found: list[tuple[Conversation, str]] = [
        (row.messages, source)
        for row, source, _ in _rows(patterns, "chat")
        if not isinstance(row, TextRow | PreferenceRow) and is_held_out(row.held_out_key, share)
    ]
    drawn = draw(found, limit=limit, seed=seed)
    return [messages for messages, _ in drawn], [source for _, source in drawn]


def training_conversations(patterns: Sequence[str], *, share: float) -> Iterator[str]:
    """Yield the text of each conversation that is trained on, all messages joined."""
    for row, _, _ in _rows(patterns, "chat"):
        if not isinstance(row, TextRow | PreferenceRow) and not is_held_out(
            row.held_out_key, share
        ):
            yield "\n".join(str(message["content"]) for message in row.messages)


def training_texts(
    patterns: Sequence[str], kind: Kind, *, share: float
) -> Iterator[tuple[str, str]]:
    """Yield (text, place) of every row on the training side: a document, or messages joined.

    Raises:
        DataError: a pattern matches nothing.
    """
    for row, _, place in _rows(patterns, kind):
        if is_held_out(row.held_out_key, share):
            continue
        if isinstance(row, TextRow):
            yield row.text, place
        else:
            chats = [row.chosen, row.rejected] if isinstance(row, PreferenceRow) else [row.messages]
            said = [str(message.get("content", "")) for chat in chats for message in chat]
            yield "\n".join(said), place


def pairs(
    patterns: Sequence[str], *, share: float, limit: int | None = None, seed: int = 0
) -> list[Pair]:
    """Return held-out preference pairs; a seeded draw of at most `limit`.

    Raises:
        DataError: a pattern matches nothing.
    """
    found = [
        Pair(row.chosen, row.rejected)
        for row, _, _ in _rows(patterns, "preference")
        if isinstance(row, PreferenceRow) and is_held_out(row.held_out_key, share)
    ]
    return draw(found, limit=limit, seed=seed)


def draw(items: Iterable[T], *, limit: int | None, seed: int = 0) -> list[T]:
    """Return at most `limit` items, drawn with a seed and kept in their order."""
    items = list(items)
    if limit is None or len(items) <= limit:
        return items
    chosen = sorted(random.Random(seed).sample(range(len(items)), limit))
    return [items[i] for i in chosen]


def _rows(patterns: Sequence[str], kind: Kind) -> Iterator[tuple[Row, str, str]]:
    """Yield (row, source, place). What can't be read is passed over: the loader reports it."""
    for path in expand_paths(patterns):
        name = path.name.partition(".")[0]
        for at, line in read_lines(path, Cursor(), Rejects()):
            row, source = _parse(line, kind, plain=".txt" in path.suffixes)
            if row is not None:
                yield row, source or name, f"{path.name}:{at.line}"


def _parse(line: bytes, kind: Kind, *, plain: bool) -> tuple[Row | None, str]:
    try:
        text = line.decode("utf-8-sig")
        if plain:
            return TextRow(text.strip()), ""
        value: Any = json.loads(text)
        row = parse_row(value, kind)
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError, RowError):
        return None, ""
    return row, str(value.get("source", ""))
