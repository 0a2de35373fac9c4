"""From packages of drawings to files that the vision presets read.

OUT/captions.jsonl   {"image", "conversations", "concept", ...}: what is it? a caption
OUT/chat.jsonl       several questions about each image, some in two turns
OUT/google.jsonl     captions of a drawing style that is in neither: to test transfer
OUT/images/STYLE/    the pictures       OUT/ledger.json   sources and licences

The questions and the sentences around answers are ours (templated); labels, titles and sentences
are the sources'. Concepts are held out by hash where the files are read (`data.validation_share`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from minimind.data.catalogue import Source
from minimind.data.catalogue_images import ENCODER, IMAGE_SOURCES
from minimind.data.fetch import OnProgress, fetch_all
from minimind.data.ledger import LedgerEntry, write_ledger
from minimind.data.sources import pictures
from minimind.data.sources.pictures import Drawing
from minimind.data.sources.text import count_hanzi
from minimind.errors import DataError

TRAINED_STYLES = ("fluent", "icons", "flags", "stamps")
HELD_OUT_STYLE = "google"
WHAT = ("这是什么？", "图里画的是什么？", "说说这张图。", "你看到了什么？")


def build_images(
    out: Path, *, on_progress: OnProgress = lambda source, state: None
) -> list[LedgerEntry]:
    """Fetch the packages and write pictures, captions, conversations and the ledger.

    Raises:
        DataError: `out` can't be written to.
        FetchError: a package can't be had.
        MissingExtraError: resvg or pillow is not installed.
    """
    paths = fetch_all((*IMAGE_SOURCES, ENCODER), on_progress=on_progress)
    by_name = {source.name: source for source in IMAGE_SOURCES}
    entries: list[LedgerEntry] = []
    captions: list[dict[str, Any]] = []
    chats: list[dict[str, Any]] = []
    try:
        for style, drawings in _styles(paths):
            written = [(_save(out, style, drawing), drawing) for drawing in drawings()]
            rows = [_caption_row(name, drawing, style) for name, drawing in written]
            if style == HELD_OUT_STYLE:
                _write(out / "google.jsonl", rows)
            else:
                captions += rows
                chats += [row for name, d in written for row in _chat_rows(name, d, style)]
            file = "google.jsonl" if style == HELD_OUT_STYLE else "captions.jsonl"
            entries.append(_entry(by_name[style], file, [d.caption for _, d in written]))
            on_progress(by_name[style], "read")
        _write(out / "captions.jsonl", captions)
        _write(out / "chat.jsonl", chats)
    except OSError as error:
        raise DataError(f"{out} can't be written: {error}. Choose another --out") from error
    for name in ("emojibase", "territories"):
        entries.append(_entry(by_name[name], "captions.jsonl", []))
    write_ledger(out, entries)
    return entries


def _styles(
    paths: dict[str, Path],
) -> Iterator[tuple[str, Callable[[], Iterable[Drawing]]]]:
    labels = pictures.read_labels(paths["emojibase"])
    yield "fluent", lambda: pictures.read_fluent(paths["fluent"], labels)
    yield "icons", lambda: pictures.read_icons(paths["icons"])
    yield "flags", lambda: pictures.read_flags(paths["flags"], paths["territories"])
    yield "stamps", lambda: pictures.read_stamps(paths["stamps"])
    yield "google", lambda: pictures.read_google(paths["google"], labels)


def _save(out: Path, style: str, drawing: Drawing) -> str:
    """Write a picture; return its path relative to `out`."""
    folder = out / "images" / style
    folder.mkdir(parents=True, exist_ok=True)
    (folder / drawing.name).write_bytes(drawing.data)
    return f"images/{style}/{drawing.name}"


def _row(name: str, drawing: Drawing, style: str, *turns: str) -> dict[str, Any]:
    messages = []
    for number, text in enumerate(turns):
        said = f"<image>\n{text}" if number == 0 else text
        messages.append({"role": ("user", "assistant")[number % 2], "content": said})
    return {
        "image": name, "conversations": messages, "concept": drawing.concept,
        "caption": drawing.caption, "style": style, "category": drawing.category,
    }  # fmt: skip


def _caption_row(name: str, drawing: Drawing, style: str) -> dict[str, Any]:
    return _row(name, drawing, style, WHAT[0], drawing.caption)


def _chat_rows(name: str, drawing: Drawing, style: str) -> Iterator[dict[str, Any]]:
    """Yield what is asked about a picture; which words are used is decided by its name's hash."""
    digest = hashlib.blake2b(name.encode(), digest_size=2).digest()[0]
    what = (WHAT[digest % len(WHAT)], drawing.caption)
    yield _row(name, drawing, style, WHAT[0], drawing.caption)
    if drawing.category and digest % 2:
        yield _row(name, drawing, style, *what, "它属于哪一类？", f"{drawing.category}。")
    elif drawing.category:
        yield _row(name, drawing, style, "这张图属于哪一类？", f"{drawing.category}。")
    if drawing.tags:
        yield _row(name, drawing, style, "用几个词形容这张图。", "、".join(drawing.tags[:4]))


def _entry(source: Source, file: str, captions: list[str]) -> LedgerEntry:
    return LedgerEntry(
        source=source.name, package=source.package, version=source.version, sha256=source.sha256,
        licence=source.licence, upstream=source.upstream, file=file, kind="images",
        documents=len(captions), bytes=sum(len(text.encode()) for text in captions),
        hanzi=sum(map(count_hanzi, captions)), templated=False,
    )  # fmt: skip


def _write(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
