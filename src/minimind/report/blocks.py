"""What a report is made of, and how it is shown: Markdown for files, rich for the terminal.

`page` shows the same blocks as HTML.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from rich import box
from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.table import Table as RichTable
from rich.text import Text

from minimind.report.charts import Plot


@dataclass(frozen=True, slots=True)
class Heading:
    """A title; level 1 is the document's."""

    text: str
    level: int = 2


@dataclass(frozen=True, slots=True)
class Paragraph:
    """Running text."""

    text: str


@dataclass(frozen=True, slots=True)
class Bullets:
    """A list of points."""

    items: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Table:
    """A table; columns whose number is in `right` hold figures."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    right: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Figure:
    """Plots that belong together; `name` is that of the picture beside a Markdown file."""

    name: str
    plots: tuple[Plot, ...]
    caption: str


@dataclass(frozen=True, slots=True)
class Cards:
    """The few figures that come first: (value, what it is, a line on it)."""

    items: tuple[tuple[str, str, str], ...]


@dataclass(frozen=True, slots=True)
class Path:
    """What follows what, as boxes with arrows between them: (name, a line on it)."""

    steps: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Verdict:
    """A sentence that says whether all is well."""

    good: bool
    text: str


@dataclass(frozen=True, slots=True)
class Folded:
    """Blocks that are long and seldom needed: a page shows them when asked."""

    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True, slots=True)
class Code:
    """Commands to copy."""

    lines: tuple[str, ...]


Block = Heading | Paragraph | Bullets | Table | Figure | Code | Cards | Path | Verdict | Folded


def to_markdown(blocks: Iterable[Block], *, pictures: Mapping[str, str] | None = None) -> str:
    """Return GitHub-flavoured Markdown; `pictures` has the file of each figure that was written."""
    return "\n\n".join(_markdown(block, pictures or {}) for block in blocks) + "\n"


def _markdown(block: Block, pictures: Mapping[str, str]) -> str:
    match block:
        case Heading(text, level):
            return f"{'#' * level} {text}"
        case Paragraph(text):
            return text
        case Bullets(items):
            return "\n".join(f"- {item}" for item in items)
        case Table(header, rows, right):
            marks = ["---:" if i in right else "---" for i in range(len(header))]
            return "\n".join(_row(row) for row in (header, marks, *rows))
        case Figure(name, _, caption):
            return f"![{caption}]({pictures[name]})" if name in pictures else caption
        case Code(lines):
            return "\n".join(("```sh", *lines, "```"))
        case Cards(items):
            return "\n".join(
                f"- **{value}** {what}{note and f' ({note})'}" for value, what, note in items
            )
        case Path(steps):
            return " → ".join(f"**{name}**{about and f' ({about})'}" for name, about in steps)
        case Verdict(good, text):
            return f"{'✓' if good else '⚠'} {text}"
        case Folded(title, blocks):
            inner = to_markdown(blocks, pictures=pictures)
            return f"<details><summary>{title}</summary>\n\n{inner}\n</details>"


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(_cell(cell) for cell in cells) + " |"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\r", "").replace("\n", "<br>")


def quoted(text: str) -> str:
    """Return text that a model wrote so that Markdown shows it as it is."""
    special = "\\`*_{}[]<>#"
    return "".join(f"\\{char}" if char in special else char for char in text)


def print_blocks(console: Console, blocks: Iterable[Block]) -> None:
    """Show the blocks in a terminal."""
    for block in blocks:
        console.print(_rich(block))
        if not isinstance(block, Heading):
            console.print()


def _rich(block: Block) -> RenderableType:
    match block:
        case Heading(text, level):
            return Text(plain(text), style="bold" if level > 1 else "bold reverse")
        case Paragraph(text):
            return Text(plain(text))
        case Bullets(items):
            return Group(*(Text(f"• {plain(item)}") for item in items))
        case Table(header, rows, right):
            table = RichTable(box=box.SIMPLE_HEAD, pad_edge=False)
            for i, title in enumerate(header):
                table.add_column(
                    escape(plain(title)), justify="right" if i in right else "left",
                    overflow="fold",
                )  # fmt: skip
            for row in rows:
                table.add_row(*(escape(plain(cell)) for cell in row))
            return table
        case Figure(_, _, caption):
            return Text(plain(caption), style="dim")
        case Code(lines):
            return Text("\n".join(f"  {line}" for line in lines), style="cyan")
        case Cards() | Path():
            return Text(plain(_markdown(block, {})))
        case Verdict(good, text):
            return Text(
                f"{'✓' if good else '⚠'} {plain(text)}", style="green" if good else "yellow"
            )
        case Folded(title, _):
            return Text(f"{plain(title)} ...", style="dim")


def plain(text: str) -> str:
    """Return text without the Markdown marks that reports use."""
    kept, escaped = [], False
    for char in text.replace("**", "").replace("`", "" if "\\`" not in text else "`"):
        if char == "\\" and not escaped:
            escaped = True
            continue
        kept.append(char)
        escaped = False
    return "".join(kept)
