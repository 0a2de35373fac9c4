"""Manuals: man pages, HTML, plain text, and translation catalogues (.mo) of Debian packages."""

from __future__ import annotations

import gettext
import gzip
import io
import re
from collections import Counter
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

from minimind.data.archives import deb_members
from minimind.data.document import Document
from minimind.data.sources.text import count_hanzi, documents, grouped

PART_CHARACTERS = 2_000
FRAME_SHARE = 0.03
"""A line on more than this share of a manual's pages is navigation or boilerplate, and left out."""
_ESCAPES = re.compile(r"\x1b\[[0-9;]*m")
_BLOCKS = {"p", "div", "li", "tr", "dt", "dd", "pre", "br", "h1", "h2", "h3", "h4", "h5", "title"}
_SKIPPED = {"script", "style", "nav", "header", "aside", "footer", "noscript"}


class _PageText(HTMLParser):
    """Collects the visible text of a page, one line a block."""

    def __init__(self) -> None:
        super().__init__()
        self.parts: list[str] = []
        self.skipping = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.skipping += tag in _SKIPPED
        if tag in _BLOCKS:
            self.parts.append("\n")

    def handle_endtag(self, tag: str) -> None:
        self.skipping -= tag in _SKIPPED and self.skipping > 0

    def handle_data(self, data: str) -> None:
        if not self.skipping:
            self.parts.append(data)


def html_text(page: str) -> str:
    """Return the visible text of an HTML page, one line a paragraph, list item or table row."""
    parser = _PageText()
    parser.feed(page)
    lines = (" ".join(line.split()) for line in "".join(parser.parts).split("\n"))
    return "\n".join(line for line in lines if line)


def man_text(page: str) -> str:
    """Return the text of a man page without its roff requests and font changes."""
    lines = []
    for line in page.splitlines():
        if line.startswith(('.\\"', "'\\\"")):
            continue
        heading = re.match(r"\.\s*(SH|SS|Sh|Ss|B|I|BR|IR|RB|BI|IB|Nm|Nd|Pa|Xr)\s+(.*)", line)
        if heading:
            line = heading[2].replace('"', "")
        elif line.startswith((".", "'")):
            continue
        line = re.sub(r"\\f(?:\w|\[\w*\]|\(\w\w)|\\[,/&|^c%]|\\s[+-]?\d", "", line)
        line = re.sub(r"\\\((?:em|en|hy|mi)|\\-", "-", line)
        line = re.sub(r"\\\(..|\\\*\(..|\\\[[^]]*\]|\\\"[^\n]*", "", line)
        line = line.replace("\\e", "\\").replace("\\ ", " ").strip()
        if line:
            lines.append(line)
    return "\n".join(lines)


def _chinese(text: str) -> bool:
    return count_hanzi(text) >= max(30, len(text) // 10)


def _cut(text: str) -> Iterator[str]:
    return (
        part for part in grouped(text.split("\n"), characters=PART_CHARACTERS) if _chinese(part)
    )


def read_man_pages(archive: Path) -> Iterator[Document]:
    """Yield parts of the simplified man pages that are mostly translated."""

    def texts() -> Iterator[str]:
        for _, content in deb_members(archive, "./usr/share/man/zh_CN/*.gz"):
            yield from _cut(man_text(gzip.decompress(content).decode("utf-8", "ignore")))

    return documents(texts(), archive.name.split("_")[0])


def read_html(archive: Path) -> Iterator[Document]:
    """Yield parts of the pages of a manual."""

    def texts() -> Iterator[str]:
        members = deb_members(archive, "./usr/share/*.html")
        pages = [html_text(content.decode("utf-8", "ignore")).split("\n") for _, content in members]
        on_pages = Counter(line for page in pages for line in set(page))
        frame = {line for line, n in on_pages.items() if n > max(10, FRAME_SHARE * len(pages))}
        for page in pages:
            yield from _cut("\n".join(line for line in page if line not in frame))

    return documents(texts(), archive.name.split("_")[0])


def read_fortunes(archive: Path) -> Iterator[Document]:
    """Yield one text a fortune, without terminal colours."""

    def texts() -> Iterator[str]:
        for name, content in deb_members(archive, "./usr/share/games/fortunes/*"):
            if not name.endswith((".dat", ".u8")):
                plain = _ESCAPES.sub("", content.decode("utf-8", "ignore"))
                yield from (part for part in plain.split("\n%\n") if count_hanzi(part) >= 8)

    return documents(texts(), "fortunes")


def read_catalogue_pairs(archive: Path) -> Iterator[tuple[str, str]]:
    """Yield (English, Chinese) of Cataclysm: DDA's translation, formatting codes removed."""
    pattern = "./usr/share/locale/zh_CN/LC_MESSAGES/*.mo"
    for _, content in deb_members(archive, pattern):
        messages: dict[object, str] = gettext.GNUTranslations(io.BytesIO(content))._catalog  # pyright: ignore[reportAttributeAccessIssue]
        for english, chinese in messages.items():
            if isinstance(english, str) and "\x04" not in english and english:
                pair = [re.sub(r"</?[a-z_]+>", "", part).strip() for part in (english, chinese)]
                if count_hanzi(pair[1]) >= 2 and not re.search(r"%\d?\$?[sd]|<|\{", pair[1]):
                    yield pair[0], pair[1]


def read_cataclysm(archive: Path) -> Iterator[Document]:
    """Yield the longer texts one by one, and short terms with their translation in groups."""

    def texts() -> Iterator[str]:
        short = []
        for english, chinese in read_catalogue_pairs(archive):
            if count_hanzi(chinese) >= 25:
                yield chinese
            else:
                short.append(f"{chinese}（{' '.join(english.split())}）")
        yield from grouped(dict.fromkeys(short), characters=600)

    return documents(texts(), "cataclysm")
