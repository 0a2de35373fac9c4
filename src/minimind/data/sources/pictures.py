"""Drawings with Chinese captions: two sets of emoji, icons, flags, stamps.

A *concept* is what a drawing shows, whatever its style: the two emoji sets share theirs, and all
variants of a person (men, women, tones of skin) are one. Held-out pictures are held out by it.
"""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from minimind.data.archives import deb_members, tar_members
from minimind.errors import require

GROUPS = {0: "表情", 1: "人物", 3: "动物与自然", 4: "食物与饮料", 5: "旅行与地点", 6: "活动",
          7: "物品", 8: "符号", 9: "旗帜"}  # fmt: skip
"""Unicode's groups of emoji; 2 are parts (hair, tones of skin), which are no pictures."""

SVG_PIXELS = 224
_ICON = (
    '<svg xmlns="http://www.w3.org/2000/svg" width="48" height="48" viewBox="0 0 48 48" '
    'fill="none">{body}</svg>'
)


_ICON_VALUES = {"props.strokeWidth": "4", "props.strokeLinecap": "round",
                "props.strokeLinejoin": "round", "props.size": "48"}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Drawing:
    """One picture.

    Attributes:
        name: of its file, without folder.
        data: the file.
        caption: what it shows.
        concept: the same for every drawing of one thing.
        category: a coarse class, or nothing.
        tags: words that go with it.
    """

    name: str
    data: bytes
    caption: str
    concept: str
    category: str = ""
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Label:
    caption: str
    concept: str
    category: str
    tags: tuple[str, ...]


def read_labels(emojibase: Path) -> dict[str, _Label]:
    """Return emoji's Chinese labels by code points, `1f34e`; without tones of skin."""
    entries = _tar_json(emojibase, "package/zh/data.json")
    names = {_code(entry["hexcode"]): entry["label"] for entry in entries}
    labels: dict[str, _Label] = {}
    for entry in entries:
        if entry.get("group") not in GROUPS:
            continue
        code, group = _code(entry["hexcode"]), GROUPS[entry["group"]]
        caption = _flag_caption(entry["label"])
        base = code.split("-")[0]
        person = group == "人物" and base in names
        tags = tuple(t for t in map(str, entry.get("tags", ())) if t != caption and not t.isascii())
        labels[code] = _Label(caption, names[base] if person else caption, group, tags)
    return labels


def read_fluent(archive: Path, labels: dict[str, _Label]) -> Iterator[Drawing]:
    """Yield Microsoft's three-dimensional emoji."""
    yield from _emoji(tar_members(archive, "package/assets/*.webp"), labels)


def read_google(archive: Path, labels: dict[str, _Label]) -> Iterator[Drawing]:
    """Yield Google's flat emoji."""
    yield from _emoji(tar_members(archive, "package/img/google/64/*.png"), labels)


def _emoji(members: Iterator[tuple[str, bytes]], labels: dict[str, _Label]) -> Iterator[Drawing]:
    for name, data in members:
        path = PurePosixPath(name)
        label = labels.get(_code(path.stem))
        if label is not None:
            yield Drawing(path.name, data, label.caption, label.concept, label.category, label.tags)


def read_icons(archive: Path) -> Iterator[Drawing]:
    """Yield the icons that have a Chinese title, drawn as lines in black."""
    about = {entry["name"]: entry for entry in _tar_json(archive, "package/icons.json")}
    by_class = {_class_name(name): name for name in about}
    for member, source in tar_members(archive, "package/lib/icons/*.js"):
        name = by_class.get(PurePosixPath(member).stem)
        body = _icon_body(source.decode()) if name else ""
        if not name or not body:
            continue
        entry = about[name]
        title = str(entry["title"]).strip().rstrip("0123456789-")  # variants are numbered
        if not re.search(r"[\u4e00-\u9fff]", title):
            continue
        tags = tuple(str(tag) for tag in entry.get("tag", ()) if tag != title)
        data = rasterised(_ICON.format(body=body))
        yield Drawing(f"{name}.png", data, title, title, str(entry.get("categoryCN", "")), tags)


def _icon_body(source: str) -> str:
    """Return the drawing in a module of IconPark: strings joined with `props.colors[n]`."""
    pieces = re.findall(r"'((?:[^'\\]|\\.)*)'|(props\.[A-Za-z]+(?:\[\d\])?)", source)
    text = ""
    for literal, value in pieces:
        if literal:
            text += literal
        elif value.startswith("props.colors"):
            # Outline, fill, and the two inner ones: black on white.
            text += ("#000000", "none", "#000000", "#000000")[int(value[-2]) % 4]
        else:
            text += _ICON_VALUES.get(value, "")
    begin, end = text.find("<svg"), text.rfind("</svg>")
    if begin < 0 or end < 0:
        return ""
    return text[text.find(">", begin) + 1 : end]


def _class_name(name: str) -> str:
    return "".join(part[:1].upper() + part[1:] for part in name.split("-"))


def read_flags(archive: Path, territories: Path) -> Iterator[Drawing]:
    """Yield the flags of countries and territories; names are those of Unicode's CLDR."""
    content = _tar_json(territories, "package/main/zh/territories.json")
    names = content["main"]["zh"]["localeDisplayNames"]["territories"]
    for member, data in tar_members(archive, "package/png250px/*.png"):
        path = PurePosixPath(member)
        if name := names.get(path.stem.upper()):
            caption = f"{name}的旗帜"
            yield Drawing(path.name, data, caption, caption, "旗帜", (name,))


def read_stamps(package: Path) -> Iterator[Drawing]:
    """Yield Tux Paint's stamps with the sentence that a person wrote in Chinese."""
    sentences: dict[str, str] = {}
    stamps: dict[str, bytes] = {}
    # One pattern for .txt and .png: unpacking the archive is what takes long.
    for name, data in deb_members(package, "*/stamps/*.[tp][xn][tg]"):
        stem = name.rpartition(".")[0]
        if name.endswith(".png"):
            stamps[stem] = data
        for line in data.decode("utf-8", "replace").splitlines() if name.endswith(".txt") else ():
            if line.startswith("zh_CN"):
                sentences[stem] = line.partition("=")[2].strip()
    for stem, data in stamps.items():
        sentence = sentences.get(stem, "").rstrip("。.！!")
        if sentence:
            path = PurePosixPath(f"{stem}.png")
            unique = f"{path.parent.name}-{path.name}"
            # "one frog" is the concept of "frog", which other styles draw too.
            concept = re.sub(r"^[一两](?:[只个条头匹朵棵颗块片张把支枚辆架艘位名]|)", "", sentence)
            yield Drawing(unique, data, sentence, concept or sentence)


def rasterised(svg: str) -> bytes:
    """Return a PNG of an SVG text, `SVG_PIXELS` wide, on white.

    Raises:
        MissingExtraError: resvg is not installed.
    """
    resvg: Any = require("resvg_py", extra="vision")
    return bytes(resvg.svg_to_bytes(svg_string=svg, width=SVG_PIXELS, background="white"))


def _flag_caption(label: str) -> str:
    """`旗: 中国` as the other set of flags says it, so that both are one concept."""
    kind, _, name = label.partition(":")
    return f"{name.strip()}的旗帜" if kind == "旗" and name else label


def _code(hexcode: str) -> str:
    """Return code points without the variation selector, which sets write or leave out."""
    return "-".join(part for part in hexcode.lower().split("-") if part != "fe0f")


def _tar_json(archive: Path, member: str) -> Any:
    with tarfile.open(archive) as package:
        content = package.extractfile(member)
        assert content is not None, member
        return json.load(content)
