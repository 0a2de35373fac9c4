"""`minimind data list | fetch | build | stats | preview | preferences`."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text
from tyro.conf import Positional

from minimind.data.catalogue import GROUPS, SOURCES, Source, select

if TYPE_CHECKING:
    from minimind.data.fetch import OnProgress
    from minimind.data.formats import Kind

LEARNT_STYLE, CONTEXT_STYLE = "bold green", "dim"


@dataclass(frozen=True, kw_only=True)
class List:
    """Show the catalogue: sources with size, licence, and whether they are cached.

    Attributes:
        hub: data sets of the Hugging Face hub, which are streamed, not fetched.
        json: one JSON object a line, with everything the catalogue knows.
    """

    hub: bool = False
    json: bool = False


@dataclass(frozen=True, kw_only=True)
class Fetch:
    """Download sources into the cache ($MINIMIND_CACHE, else ~/.cache/minimind).

    Attributes:
        sources: names of sources, or the groups `embedded` (18 MB), `full` (161 MB: with a declared
            licence) and `all` (227 MB). Or one `hub:` name: rows of it are written to `out`
            until `mb` are there.
        out: for a hub name: the .jsonl or .jsonl.zst file.
        mb: for a hub name: MB of rows.
        accept_licences: for a hub name: licences beside the open ones.
    """

    sources: Positional[tuple[str, ...]] = ("embedded",)
    out: Path | None = None
    mb: float = 100.0
    accept_licences: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Build:
    """Make pretrain/*.jsonl, sft.jsonl, self.jsonl (who it is), problems.jsonl and ledger.json.

    Attributes:
        sources: names of sources, or the groups `embedded`, `full` and `all` (also sources
            that declare no licence).
        out: the folder.
        json: print the ledger as JSON.
    """

    sources: tuple[str, ...] = ("embedded",)
    out: Path
    json: bool = False


@dataclass(frozen=True, kw_only=True)
class Preview:
    """Show rows as the model sees them; what is learnt is green.

    Attributes:
        file: a data file, a folder, a pattern or a `hub:` name.
        tokenizer: a directory with a tokenizer.json, or `default`.
        kind: text, chat or preference. Without it, what the first row looks like.
        rows: how many.
        sequence_length: tokens in a row.
        accept_licences: for a hub name: licences beside the open ones.
    """

    file: Positional[str]
    accept_licences: tuple[str, ...] = ()
    tokenizer: str = "default"
    kind: Literal["text", "chat", "preference"] | None = None
    rows: int = 2
    sequence_length: int = 256


_VERBS: dict[str, str] = {
    "list": "the catalogue: sources, sizes, licences, what is cached",
    "fetch": "download sources: NAMES, embedded, full or all; or rows of a hub data set",
    "build": "make pretraining text, instructions and problems from sources",
    "stats": "documents, hanzi, tokens, lengths, kinds of characters and copies of data files",
    "preview": "rows of a file as the model sees them, with the loss mask",
    "clean": "raw Chinese text to clean, licensed, deduplicated shards, with a reason a drop",
    "look": "what a cleaning run kept and dropped, side by side, the rule highlighted",
    "quality": "train the optional quality classifier from good and bad examples",
    "images": "drawings with Chinese captions, for the vision presets",
    "kit": "the rows of a domain kit: medical, law, or a TOML file of yours",
    "preferences": "pairs for DPO from a model's own answers, checked by a verifier",
}


def main(argv: list[str]) -> int | None:
    """Run `minimind data ...`."""
    console = Console()
    if not argv or argv[0] in {"-h", "--help"}:
        width = max(map(len, _VERBS))
        console.print("usage: minimind data VERB [...]\n", markup=False)
        for verb, about in _VERBS.items():
            console.print(f"  {verb:<{width}}  {about}", markup=False, highlight=False)
        return None
    verb, rest = argv[0], argv[1:]
    if verb in {"clean", "look", "quality"}:
        module = importlib.import_module(f"minimind.cli.data_{verb.replace('quality', 'clean')}")
        return module.quality(rest) if verb == "quality" else module.main(rest)
    if verb == "kit":
        return importlib.import_module("minimind.cli.data_kit").main(rest)
    if verb == "images":
        return importlib.import_module("minimind.cli.data_images").main(rest)
    if verb == "preferences":  # needs torch and a model: imported only when it is asked for
        return importlib.import_module("minimind.cli.preferences").main(rest)
    if verb == "stats":
        return importlib.import_module("minimind.cli.data_stats").main(rest)
    commands: dict[str, tuple[type, Callable[..., None]]] = {
        "list": (List, _list), "fetch": (Fetch, _fetch), "build": (Build, _build),
        "preview": (Preview, _preview),
    }  # fmt: skip
    if verb not in commands:
        from minimind.errors import UserError, did_you_mean

        raise UserError(f"there is no {verb!r}.{did_you_mean(verb, _VERBS)} "
                        f"Verbs: {', '.join(_VERBS)}")  # fmt: skip
    arguments, run = commands[verb]
    run(tyro.cli(arguments, args=rest, prog=f"minimind data {verb}"), console)
    return None


def _list(args: List, console: Console) -> None:
    from minimind.data.fetch import cache_dir, is_cached

    if args.hub:
        _list_hub(args, console)
        return
    if args.json:
        for source in SOURCES:
            row = {k: v for k, v in asdict(source).items() if k != "read"}
            console.print_json(json.dumps(row | {"cached": is_cached(source)}), indent=None)
        return
    table = Table(title=f"sources (cache: {cache_dir()})", title_justify="left")
    for column in ("name", "what", "MB", "M hanzi", "licence", "cached"):
        right = column in {"MB", "M hanzi"}
        table.add_column(column, justify="right" if right else "left", no_wrap=column == "name")
    for source in SOURCES:
        table.add_row(
            source.name, source.about, f"{source.size / 1e6:.1f}",
            f"{source.hanzi / 1e6:.2f}", source.licence, "yes" if is_cached(source) else "",
            style="bold" if source.embedded else "",
        )  # fmt: skip
    console.print(table)
    for group, names in GROUPS.items():
        size = sum(source.size for source in select([group]))
        console.print(f"{group}: {len(names)} sources, {size / 1e6:.1f} MB", highlight=False)
    console.print("bold: the embedded default, what the quickstart trains on")


def _list_hub(args: List, console: Console) -> None:
    from minimind.data.hub_catalogue import HUB

    if args.json:
        for entry in HUB:
            console.print_json(json.dumps(asdict(entry) | {"open": entry.is_open}), indent=None)
        return
    table = Table(title="data sets of the hub, by --data.train hub:NAME", title_justify="left")
    for column in ("name", "id", "kind", "what", "GB", "rows", "fields", "licence", "on"):
        table.add_column(column, justify="right" if column in {"GB", "rows"} else "left",
                         no_wrap=column == "name")  # fmt: skip
    for entry in HUB:
        table.add_row(
            entry.name, entry.id, entry.kind, entry.about, f"{entry.gb:g}" if entry.gb else "",
            entry.rows, entry.fields, entry.licence, "yes" if entry.is_open else "ask",
        )  # fmt: skip
    console.print(table)
    console.print(
        "ask: add --data.accept-licences LICENCE, having read the data set's card. Any other id "
        "works too: hub:ORG/NAME[@REVISION][:CONFIG[:SPLIT]]", markup=False,
    )  # fmt: skip


def _fetch_hub(args: Fetch, console: Console) -> None:
    from minimind.data.slices import fetch_slice

    written = fetch_slice(
        args.sources[0], args.out, megabytes=args.mb, accept_licences=args.accept_licences
    )
    console.print(
        f"{written.rows:,} rows, {written.bytes / 1e6:.1f} MB, licence {written.licence}, "
        f"{written.data} in {written.path}", markup=False, highlight=False,
    )  # fmt: skip


def _fetch(args: Fetch, console: Console) -> None:
    from minimind.data.fetch import fetch_all

    if any(name.startswith("hub:") for name in args.sources):
        _fetch_hub(args, console)
        return

    sources = select(args.sources)
    with _progress(sources, console) as on_progress:
        paths = fetch_all(sources, on_progress=on_progress)
    folder = next(iter(paths.values())).parent
    console.print(f"{len(paths)} files with the pinned checksums in {folder}", markup=False)


def _build(args: Build, console: Console) -> None:
    from minimind.data.build import build

    with _progress(select(args.sources), console) as on_progress:
        built = build(args.sources, args.out, on_progress=on_progress)
    if args.json:
        console.print_json(json.dumps([asdict(entry) for entry in built.ledger]))
        return
    table = Table(title=f"written to {args.out}", title_justify="left")
    for column in ("file", "source", "rows", "MB", "M hanzi", "licence", "wording"):
        right = column in {"rows", "MB", "M hanzi"}
        table.add_column(column, justify="right" if right else "left")
    for entry in built.ledger:
        table.add_row(
            entry.file, entry.source, f"{entry.documents:,}", f"{entry.bytes / 1e6:.2f}",
            f"{entry.hanzi / 1e6:.2f}", entry.licence, "ours" if entry.templated else "",
        )  # fmt: skip
    console.print(table)


@contextmanager
def _progress(sources: list[Source], console: Console) -> Iterator[OnProgress]:
    """Show bytes of the packages that have arrived; the callback is what `fetch_all` takes."""
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("fetching", total=sum(source.size for source in sources))

        def on_progress(source: Source, state: str) -> None:
            arrived = source.size if state in {"cached", "done"} else 0
            progress.update(task, advance=arrived, description=f"{source.name}: {state}")

        yield on_progress


def _preview(args: Preview, console: Console) -> None:
    from itertools import islice

    from minimind.config import DataConfig
    from minimind.data import make_loader
    from minimind.data.batch import IGNORE
    from minimind.tokenizer import Tokenizer

    tokenizer = Tokenizer.load(args.tokenizer)
    config = DataConfig(
        train=(args.file,), kind=_kind(args), sequence_length=args.sequence_length,
        validation_share=0.0, epochs_limit=1, cache="off", shuffle_mb=1,
        accept_licences=args.accept_licences,
    )  # fmt: skip
    loader = make_loader(config, tokenizer, batch_rows=1, micro_batch_rows=1, seed=0)
    for number, (batch,) in enumerate(islice(loader, args.rows)):
        for ids, labels in zip(batch.input_ids.tolist(), batch.labels.tolist(), strict=True):
            console.rule(f"row {number}: {sum(label != IGNORE for label in labels)} learnt")
            # A label says what the next token is: the token itself is green if it was a label.
            learnt = [False] + [label != IGNORE for label in labels[:-1]]
            while len(ids) > 1 and ids[-1] == ids[-2] == tokenizer.pad_id:
                ids.pop()
            console.print(_coloured(tokenizer.stream(), ids, learnt))
    console.print(loader.rejects.summary(), markup=False)


def _coloured(decode: Callable[[int], str], ids: list[int], learnt: list[bool]) -> Text:
    """Colour each token's text; a character of several tokens is coloured by the last of them."""
    text = Text()
    for token, style in zip(ids, learnt, strict=False):
        text.append(decode(token), style=LEARNT_STYLE if style else CONTEXT_STYLE)
    return text


def _kind(args: Preview) -> Kind:
    """Return the kind asked for, or the first of which the file has a usable row."""
    from minimind.cli.data_stats import guessed_kind
    from minimind.data.hub import PREFIX, HubData
    from minimind.data.reader import expand_paths

    if args.kind:
        return args.kind
    is_hub = args.file.startswith(PREFIX)
    return guessed_kind(HubData.parse(args.file) if is_hub else expand_paths([args.file])[0])
