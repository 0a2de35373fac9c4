"""Blocks as one HTML page that asks no host for anything: styles, script and plots are inside."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib import resources
from typing import assert_never

from minimind.eval.statistics import Language
from minimind.report.blocks import (
    Block,
    Bullets,
    Cards,
    Code,
    Figure,
    Folded,
    Heading,
    Paragraph,
    Path,
    Table,
    Verdict,
    plain,
)
from minimind.report.svg import DARK, PALETTE, STYLE, draw

NAMES: Mapping[Language, str] = {"en": "English", "zh": "中文"}
CONTENTS: Mapping[Language, str] = {"en": "Contents", "zh": "目录"}


def to_page(documents: Mapping[Language, Sequence[Block]], *, first: Language) -> str:
    """Return the page.

    Args:
        documents: the blocks of each language; a button changes between them.
        first: the language that is shown until then.
    """
    files = resources.files("minimind.report")
    style = files.joinpath("page.css").read_text(encoding="utf-8")
    script = files.joinpath("page.js").read_text(encoding="utf-8")
    colours = f":root{{{PALETTE}}}@media(prefers-color-scheme:dark){{:root{{{DARK}}}}}"
    title = next((b.text for b in documents[first] if isinstance(b, Heading)), "MiniMind")
    buttons = "".join(
        f'<button type="button" data-lang="{lang}" lang="{_tag(lang)}">{NAMES[lang]}</button>'
        for lang in documents
    )
    articles = "".join(
        f'<article lang="{_tag(lang)}" data-lang="{lang}"{"" if lang == first else " hidden"}>'
        f"{_contents(blocks, lang)}{to_html(blocks, prefix=lang)}</article>"
        for lang, blocks in documents.items()
    )
    return (
        f'<!doctype html>\n<html lang="{_tag(first)}">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{escape(plain(title))}</title>\n<style>{colours}\n{STYLE}\n{style}</style>\n"
        f'</head>\n<body>\n<nav class="languages">{buttons if len(documents) > 1 else ""}</nav>\n'
        f'<main>{articles}</main>\n<div id="tip" role="status" hidden></div>\n'
        f"<script>{script}</script>\n</body>\n</html>\n"
    )


def to_html(blocks: Iterable[Block], *, prefix: str) -> str:
    """Return the blocks as HTML; headings get the ids `PREFIX-0`, `PREFIX-1` ..."""
    parts, number = [], 0
    for block in blocks:
        if isinstance(block, Heading):
            level = min(block.level, 4)
            parts.append(f'<h{level} id="{prefix}-{number}">{inline(block.text)}</h{level}>')
            number += 1
        else:
            parts.append(_html(block, prefix))
    return "\n".join(parts)


def inline(text: str) -> str:
    """Return text with the Markdown marks that reports use (bold, code, escapes) as HTML."""
    kept: list[str] = []
    literal = re.sub(r"\\(.)", lambda match: _hold(match[1], kept), text)
    marked = escape(literal, quote=False)
    marked = re.sub(r"`([^`]*)`", r"<code>\1</code>", marked)
    marked = re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", marked)
    marked = marked.replace("\r", "").replace("\n", "<br>")
    return re.sub("\x00(\\d+)\x00", lambda match: escape(kept[int(match[1])], quote=False), marked)


def _hold(char: str, kept: list[str]) -> str:
    kept.append(char)
    return f"\x00{len(kept) - 1}\x00"


def _html(block: Block, prefix: str) -> str:
    match block:
        case Heading(text, _):
            return f"<h2>{inline(text)}</h2>"
        case Paragraph(text):
            return f"<p>{inline(text)}</p>"
        case Bullets(items):
            return f"<ul>{''.join(f'<li>{inline(item)}</li>' for item in items)}</ul>"
        case Table():
            return _table(block)
        case Figure(_, plots, caption):
            drawn = "".join(f'<div class="panel">{draw(plot)}</div>' for plot in plots)
            kind = "one" if len(plots) == 1 else "many"
            return (
                f'<figure class="{kind}"><div class="panels">{drawn}</div>'
                f"<figcaption>{inline(caption)}</figcaption></figure>"
            )
        case Code(lines):
            return f"<pre><code>{escape(chr(10).join(lines), quote=False)}</code></pre>"
        case Cards(items):
            cards = (
                f"<div><b>{inline(value)}</b><span>{inline(what)}</span><i>{inline(note)}</i></div>"
                for value, what, note in items
            )
            return f'<div class="cards">{"".join(cards)}</div>'
        case Path(steps):
            boxes = (
                f"<li><b>{inline(name)}</b><span>{inline(on)}</span></li>" for name, on in steps
            )
            return f'<ol class="path">{"".join(boxes)}</ol>'
        case Verdict(good, text):
            kind, mark = ("good", "✓") if good else ("bad", "!")
            return f'<p class="verdict {kind}"><b aria-hidden="true">{mark}</b>{inline(text)}</p>'
        case Folded(title, blocks):
            inner = to_html(blocks, prefix=f"{prefix}-folded")
            return f"<details><summary>{inline(title)}</summary>{inner}</details>"
        case _:
            assert_never(block)


def _table(table: Table) -> str:
    def cells(row: Sequence[str], tag: str) -> str:
        kinds = (' class="right"' if i in table.right else "" for i in range(len(row)))
        pairs = zip(row, kinds, strict=True)
        return "".join(f"<{tag}{kind}>{inline(cell)}</{tag}>" for cell, kind in pairs)

    head = cells(table.header, "th")
    body = "".join(f"<tr>{cells(row, 'td')}</tr>" for row in table.rows)
    kind = "table wide" if len(table.header) > 4 else "table"
    return (
        f'<div class="{kind}" tabindex="0"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _contents(blocks: Sequence[Block], language: Language) -> str:
    headings = [block for block in blocks if isinstance(block, Heading)]
    links = "".join(
        f'<li><a href="#{language}-{number}">{inline(heading.text)}</a></li>'
        for number, heading in enumerate(headings)
        if heading.level == 2
    )
    return f'<nav class="contents" aria-label="{CONTENTS[language]}"><ul>{links}</ul></nav>'


def _tag(language: Language) -> str:
    return "zh-CN" if language == "zh" else "en"
