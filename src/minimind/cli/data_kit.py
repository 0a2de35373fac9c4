"""`minimind data kit NAME`: the rows of a domain kit."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro
from rich.console import Console
from tyro.conf import Positional


@dataclass(frozen=True, kw_only=True)
class Args:
    """Make domain.jsonl and safety.jsonl of a kit, and their ledger.json.

    Attributes:
        kit: a preset with a [kit] table (medical, law), or a TOML file of yours (docs/kits.md).
        out: the folder.
        rows: files of conversations to add to what the kit's sources give.
    """

    kit: Positional[str]
    out: Path
    rows: tuple[str, ...] = ()


def main(argv: list[str]) -> None:
    """Run `minimind data kit`."""
    args = tyro.cli(Args, args=argv, prog="minimind data kit")
    from minimind.kits.measure import kit_of
    from minimind.kits.rows import DOMAIN, write_rows
    from minimind.settings import load_run_config

    kit = kit_of(args.kit)
    written = write_rows(kit, args.out, files=args.rows)
    console = Console(highlight=False)
    for source, count in written.domain.items():
        console.print(f"  {source}: {count:,} rows", markup=False, soft_wrap=True)
    refused = f"; {written.refused:,} rows of yours are no conversations" if written.refused else ""
    console.print(
        f"{sum(written.domain.values()):,} rows of the domain and {written.safety:,} that teach "
        f"manners are in {written.directory}{refused}. Next: minimind train lora {args.kit} "
        "--init.checkpoint RUN",
        markup=False,
        soft_wrap=True,  # a path is copied whole
    )
    named = load_run_config([args.kit]).data.train
    if (args.out / DOMAIN).resolve() not in [Path(name).resolve() for name in named]:
        console.print(
            f"But {args.kit} trains on {', '.join(named) or 'nothing'}: write "
            f"{args.out / DOMAIN} and its safety.jsonl into its [data] train, or give --data.train",
            markup=False,
            soft_wrap=True,
        )
