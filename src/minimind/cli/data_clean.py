"""`minimind data clean CONFIG` and `minimind data quality`."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import tyro
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from tyro.conf import Positional

if TYPE_CHECKING:
    from minimind.data.cleaning.config import CleanConfig


@dataclass(frozen=True, kw_only=True)
class Args:
    """Clean raw Chinese text: repaired, licensed, without personal data, spam and duplicates.

    Attributes:
        config: a TOML file of settings, or `default`; docs/clean.md explains each.
        input: files, folders or patterns (.jsonl, .txt, .parquet, .warc), instead of input.paths.
        licence: of rows that name none, for every one of --input.
        out: the folder: data/, rejects/, edits/, report.json, ledger.json.
        executor: local processes, or Ray (RAY_ADDRESS names a cluster).
        workers: processes; default: one a core.
        json: print the report as JSON.
    """

    config: Positional[str] = "default"
    input: tuple[str, ...] = ()
    licence: str = ""
    out: str | None = None
    executor: Literal["local", "ray"] | None = None
    workers: int | None = None
    json: bool = False


@dataclass(frozen=True, kw_only=True)
class Quality:
    """Train the classifier of rules.quality from examples of good and of bad text.

    Attributes:
        good: files of text that you want more of.
        bad: files of text that you don't want.
        out: the .npz that rules.quality.model names.
        limit: documents of each side at most.
    """

    good: tuple[str, ...]
    bad: tuple[str, ...]
    out: Path
    limit: int = 5_000


def main(argv: list[str]) -> int | None:
    """Run `minimind data clean`."""
    args = tyro.cli(Args, args=argv, prog="minimind data clean")
    from minimind.data.cleaning.run import clean_corpus

    config = _config(args)
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
               TimeElapsedColumn())  # fmt: skip
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        tasks = {name: progress.add_task(name, total=None)
                 for name in ("rules", "lines", "duplicates")}  # fmt: skip
        report = clean_corpus(config, on_progress=lambda name, done, count: progress.update(
            tasks[name], completed=done, total=count))  # fmt: skip
    if args.json:
        Console(highlight=False, soft_wrap=True).out(json.dumps(report, ensure_ascii=False))
    else:
        _show(report, config.out)
    return None


def quality(argv: list[str]) -> int | None:
    """Run `minimind data quality`."""
    args = tyro.cli(Quality, args=argv, prog="minimind data quality")
    from itertools import islice

    from minimind.data.cleaning.quality import train
    from minimind.data.formats import TextRow
    from minimind.data.reader import Rejects, expand_paths, read_rows

    def texts(patterns: tuple[str, ...]) -> list[str]:
        rows = (row for path in expand_paths(patterns)
                for _, _, row in read_rows(path, "text", rejects=Rejects()))  # fmt: skip
        return [row.text for row in islice(rows, args.limit) if isinstance(row, TextRow)]

    train(texts(args.good), texts(args.bad)).save(args.out)
    Console().print(f"written: {args.out}", markup=False)
    return None


def _config(args: Args) -> CleanConfig:
    from minimind.data.cleaning.config import CleanConfig
    from minimind.settings import read_config

    config = CleanConfig()
    if args.config != "default":
        config = read_config(CleanConfig, Path(args.config))
    if args.input:
        licences = (args.licence,) * len(args.input) if args.licence else None
        config = dataclasses.replace(config, input=dataclasses.replace(
            config.input, paths=args.input, licences=licences))  # fmt: skip
    elif args.licence:
        licences = (args.licence,) * len(config.input.paths)
        config = dataclasses.replace(
            config, input=dataclasses.replace(config.input, licences=licences)
        )
    flags = {name: getattr(args, name) for name in ("out", "executor", "workers")}
    given = {name: value for name, value in flags.items() if value is not None}
    return dataclasses.replace(config, **given)


def _show(report: dict[str, Any], out: str) -> None:
    console = Console(highlight=False)
    documents = report["documents"]
    table = Table(title="what each rule did", title_justify="left")
    for column in ("rule", "documents changed", "changes", "dropped", "of all", "MB dropped"):
        table.add_column(column, justify="left" if column == "rule" else "right")
    for rule in report["rules"]:
        changed, dropped = report["edited"].get(rule, 0), report["dropped"].get(rule, 0)
        changes = sum(n for kind, n in report["edits"].items() if kind.split(":")[0] == rule)
        if changed or dropped:
            table.add_row(
                rule, f"{changed:,}" if changed else "", f"{changes:,}" if changes else "",
                f"{dropped:,}" if dropped else "", f"{dropped / max(documents, 1):.1%}",
                f"{report['dropped_bytes'].get(rule, 0) / 1e6:.2f}",
            )  # fmt: skip
    console.print(table)
    masked = {kind.removeprefix("pii: "): n for kind, n in report["edits"].items()
              if kind.startswith("pii: ")}  # fmt: skip
    if masked:
        console.print("masked: " + ", ".join(f"{n:,} {kind}" for kind, n in masked.items()))
    console.print(
        f"{documents:,} documents, {report['text_bytes'] / 1e6:.1f} MB of text in; "
        f"{report['documents_out']:,} documents, {report['bytes_out'] / 1e6:.1f} MB, "
        f"{report['hanzi_out'] / 1e6:.2f} M hanzi out: {out}/data"
    )
    if report["unusable"]:
        reasons = ", ".join(f"{n:,} x {reason}" for reason, n in report["unusable"].items())
        console.print(f"rows without a text: {reasons}; all are in {out}/rejects", markup=False)
    unknown = report["dropped"].get("licence", 0)
    if unknown > documents / 2:
        console.print(
            "Most documents went for their licence. If you know it, say so: --licence CC-BY-4.0, "
            "or a `licence` field in each row; rules.licence.allow lists what is kept",
            style="yellow",
        )
    console.print(f"kept and dropped side by side: minimind data look {out}", markup=False)
