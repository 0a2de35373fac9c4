"""`minimind data images --out DIR`: pictures with Chinese captions, for the vision presets."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro
from rich.console import Console
from rich.table import Table


@dataclass(frozen=True, kw_only=True)
class Args:
    """Download drawings (282 MB) and write captions.jsonl, chat.jsonl, google.jsonl and images/.

    Attributes:
        out: the folder.
    """

    out: Path


def main(argv: list[str]) -> None:
    """Run `minimind data images`."""
    args = tyro.cli(Args, args=argv, prog="minimind data images")
    from minimind.data.image_build import build_images

    console = Console(highlight=False)
    entries = build_images(
        args.out,
        on_progress=lambda source, state: console.print(f"{source.name}: {state}", markup=False),
    )
    table = Table(title=f"written to {args.out}", title_justify="left")
    for column in ("source", "pictures", "licence", "in"):
        table.add_column(column, justify="right" if column == "pictures" else "left")
    for entry in entries:
        shown = f"{entry.documents:,}" if entry.documents else "captions only"
        table.add_row(entry.source, shown, entry.licence, entry.file)
    console.print(table)
    console.print(
        f"next: minimind train vision --init.checkpoint RUN --data.train {args.out}/captions.jsonl",
        markup=False,
    )
