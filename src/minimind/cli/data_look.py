"""`minimind data look OUT`: what a cleaning run kept and dropped, side by side."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING

import tyro
from rich.console import Console
from rich.table import Table
from rich.text import Text
from tyro.conf import Positional

if TYPE_CHECKING:
    from minimind.data.cleaning.look import Sample


@dataclass(frozen=True, kw_only=True)
class Args:
    """Show kept and dropped documents side by side, with the rule that fired highlighted.

    Attributes:
        out: the folder of a finished `minimind data clean`.
        rule: only documents that these rules dropped.
        count: documents kept, and dropped by each rule.
        seed: of the draw.
        html: write a self-contained page instead of printing.
    """

    out: Positional[Path]
    rule: tuple[str, ...] = ()
    count: int = 3
    seed: int = 0
    html: Path | None = None


def main(argv: list[str]) -> int | None:
    """Run `minimind data look`."""
    args = tyro.cli(Args, args=argv, prog="minimind data look")
    from minimind.data.cleaning.look import draw, page

    samples = draw(args.out, count=args.count, rules=args.rule, seed=args.seed)
    console = Console(highlight=False)
    if args.html is not None:
        args.html.write_text(page(samples), "utf-8")
        console.print(f"written: {args.html}", markup=False)
        return None
    table = Table(show_lines=True, expand=True)
    table.add_column(f"kept ({samples.report['documents_out']:,})", ratio=1)
    dropped_count = sum(samples.report["dropped"].values())
    table.add_column(f"dropped ({dropped_count:,})", ratio=1)
    for kept, dropped in zip_longest(samples.kept, samples.dropped):
        table.add_row(_cell(kept), _cell(dropped))
    console.print(table)
    return None


def _cell(sample: Sample | None) -> Text:
    if sample is None:
        return Text("")
    text, spans = sample.excerpt()
    head = Text(f"{sample.id} · {sample.source} · {sample.licence or 'unknown'}\n", style="dim")
    if sample.rule:
        head.append(f"{sample.rule}: {sample.reason}\n", style="bold red")
    for edit in sample.edits[:3]:
        head.append(f"{edit['rule']}: {edit['before']} → {edit['after']}\n", style="green")
    body = Text(text)
    for start, stop in spans:
        body.stylize("black on yellow", start, stop)
    return head + body
