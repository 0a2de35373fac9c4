"""`minimind data stats`: what data files are made of, one row a source and the whole."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import tyro
from rich.console import Console
from rich.table import Table
from tyro.conf import Positional

if TYPE_CHECKING:
    from minimind.data.formats import Kind
    from minimind.data.reader import Origin
    from minimind.data.statistics import Histogram, Statistics

BAR = 36


@dataclass(frozen=True, kw_only=True)
class Stats:
    """Count documents, hanzi, tokens, lengths, kinds of characters and copies.

    Attributes:
        files: data files, folders, patterns or `hub:` names.
        tokenizer: counts tokens: a directory with a tokenizer.json, `default`, or `none`.
        kind: text, chat or preference. Without it, what the first row looks like.
        limit: at most so many rows of each source.
        json: one JSON object a source.
    """

    files: Positional[tuple[str, ...]]
    tokenizer: str = "default"
    kind: Literal["text", "chat", "preference"] | None = None
    limit: int | None = None
    json: bool = False


def main(argv: list[str]) -> None:
    """Run `minimind data stats`."""
    args = tyro.cli(Stats, args=argv, prog="minimind data stats")
    from minimind.data.rejects import Rejects, nothing_usable
    from minimind.data.statistics import Gatherer
    from minimind.tokenizer import Tokenizer

    console = Console()
    tokenizer = None if args.tokenizer == "none" else Tokenizer.load(args.tokenizer)
    gatherer = Gatherer(tokenizer, limit=args.limit)
    found = [
        gatherer.gather(origin, args.kind or guessed_kind(origin, of_empty="text"))
        for origin in _all(args)
    ]
    if not any(one.documents or one.rejected for one in found):
        raise nothing_usable([one.name for one in found], "text", Rejects())
    if args.json:
        for one in found:
            console.print_json(json.dumps(one.as_dict(), ensure_ascii=False), indent=None)
        return
    _show_sources(found, console, tokenizer=args.tokenizer)
    _show_lengths(found, console)
    _show_classes(found, console)
    _show_copies(found, console)


def _all(args: Stats) -> list[Origin]:
    from minimind.data.hub import PREFIX, HubData
    from minimind.data.reader import expand_paths

    origins: list[Origin] = []
    for name in args.files:
        is_hub = name.startswith(PREFIX)
        origins += [HubData.parse(name)] if is_hub else list(expand_paths([name]))
    return origins


def guessed_kind(origin: Origin, *, of_empty: Kind | None = None) -> Kind:
    """Return the first kind of which the origin has a usable row; of an empty one, `of_empty`.

    Raises:
        DataError: it has none.
    """
    from minimind.data.reader import read_rows
    from minimind.data.rejects import Rejects, nothing_usable

    kinds: tuple[Kind, ...] = ("preference", "chat", "text")
    rejects = Rejects()
    for kind in kinds:
        if next(read_rows(origin, kind, rejects=rejects), None) is not None:
            return kind
    if of_empty and not rejects.total:  # a cleaned shard of which nothing was kept
        return of_empty
    raise nothing_usable([origin], "text", rejects)


def _show_sources(found: list[Statistics], console: Console, *, tokenizer: str) -> None:
    counted = tokenizer != "none"
    title = f"{len(found)} sources" + (f", tokens of the tokenizer {tokenizer}" if counted else "")
    table = Table(title=title, title_justify="left", show_footer=len(found) > 1)
    columns = ["rows", "MB", "M hanzi", "length"]
    columns += ["M tokens", "per token"] if counted else []
    columns += ["copies", "bad"]
    rows = [_figures(one, counted=counted) for one in found]
    sums = _figures(_sum(found), counted=counted)
    table.add_column("source", footer="all", no_wrap=True)
    for name, footer in zip(columns, sums, strict=True):
        table.add_column(name, justify="right", footer=footer)
    for one, figures in zip(found, rows, strict=True):
        table.add_row(one.name.split(".")[0], *figures)
    console.print(table)
    console.print("length: characters a row; per token: characters a token; bad: can't be used")


def _figures(one: Statistics, *, counted: bool) -> list[str]:
    figures = [f"{one.documents:,}", f"{one.bytes / 1e6:.2f}", f"{one.hanzi / 1e6:.3f}",
               f"{one.characters.mean:,.0f}"]  # fmt: skip
    if counted:
        share = one.characters.total / one.tokens.total if one.tokens.total else 0.0
        figures += [f"{one.tokens.total / 1e6:.3f}", f"{share:.2f}"]
    return [*figures, f"{one.copies:,}", f"{one.rejected.total():,}"]


def _sum(found: list[Statistics]) -> Statistics:
    from minimind.data.statistics import Statistics

    total = Statistics("all", "text")
    for one in found:
        total.documents += one.documents
        total.bytes += one.bytes
        total.hanzi += one.hanzi
        total.copies += one.copies
        total.rejected += one.rejected
        total.classes += one.classes
        for name in ("characters", "tokens"):
            _join(getattr(total, name), getattr(one, name))
    return total


def _join(total: Histogram, part: Histogram) -> None:
    total.bins += part.bins
    total.total += part.total
    total.count += part.count
    total.longest = max(total.longest, part.longest)


def _show_lengths(found: list[Statistics], console: Console) -> None:
    total = _sum(found)
    for name, histogram in (("characters", total.characters), ("tokens", total.tokens)):
        rows = histogram.rows()
        if not rows:
            continue
        table = Table(title=f"{name} a document (longest {histogram.longest:,})",
                      title_justify="left")  # fmt: skip
        for column in ("from", "to", "documents"):
            table.add_column(column, justify="right")
        table.add_column("")
        most = max(count for *_, count in rows)
        for low, high, count in rows:
            bar = "█" * round(BAR * count / most) or ("▏" if count else "")
            table.add_row(f"{low:,}", f"{high:,}", f"{count:,}", bar)
        console.print(table)


def _show_classes(found: list[Statistics], console: Console) -> None:
    classes: Counter[str] = _sum(found).classes
    total = max(classes.total(), 1)
    table = Table(title="characters", title_justify="left")
    table.add_column("kind")
    table.add_column("number", justify="right")
    table.add_column("share", justify="right")
    for name, count in classes.most_common():
        table.add_row(name, f"{count:,}", f"{count / total:.2%}")
    console.print(table)


def _show_copies(found: list[Statistics], console: Console) -> None:
    for one in found:
        for reason, count in one.rejected.most_common(3):
            console.print(f"{one.name}: {count:,} unusable: {reason}", markup=False)
    repeated = sorted(
        ((times, one.name, text) for one in found for times, text in one.repeated), reverse=True
    )[:10]
    if not repeated:
        console.print("no document is there twice")
        return
    table = Table(title="documents that are there most often", title_justify="left")
    for column in ("times", "source", "begins"):
        table.add_column(column, justify="right" if column == "times" else "left")
    for times, name, text in repeated:
        table.add_row(f"{times:,}", name, text.replace("\n", " "))
    console.print(table)
