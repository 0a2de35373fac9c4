"""The verbs of `minimind tokenizer` that read a corpus: train and report.

A module of its own because `minimind.data` brings torch, which `show` and `encode` start without.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from minimind.cli.tokenizer import Report, Train, print_json
from minimind.data.document import is_held_out
from minimind.data.formats import ChatRow, Kind, PreferenceRow, TextRow
from minimind.data.reader import Rejects, expand_paths, nothing_usable, read_rows
from minimind.errors import DataError
from minimind.tokenizer import Tokenizer, train_tokenizer


def run(command: Train | Report, console: Console) -> None:
    """Run one of the two.

    Raises:
        DataError: no file is named, or one can't be used.
    """
    if not command.files:
        raise DataError("name at least one file, glob or folder of .jsonl or .txt files")
    if isinstance(command, Train):
        train(command, console)
    else:
        report(command, console)


def train(command: Train, console: Console) -> None:
    """Train and save a tokenizer, and say what came out."""
    held = command.held_out_share
    log = Console(stderr=True, highlight=False, markup=False)
    rejects = Rejects()
    counts = {
        path: sum(
            len(text)
            for key, text in _keyed_texts(path, rejects=rejects)
            if not is_held_out(key, held)
        )
        for path in expand_paths(command.files)
    }
    if not any(counts.values()):
        raise nothing_usable(counts, "text", rejects)
    kept = capped(counts, max_share=command.max_share)
    tokenizer = train_tokenizer(
        _training_texts(counts, kept, held=held),
        vocab_size=command.vocab_size,
        jieba=command.jieba,
        progress=log.print,
    )
    tokenizer.save(command.out)
    if tokenizer.vocab_size < command.vocab_size:
        log.print(f"only {tokenizer.vocab_size:,} tokens: the text has no more pairs that occur "
                  "twice; give more text or a smaller --vocab-size")  # fmt: skip
    for path in counts:
        line = f"{path.name}: {kept[path]:,.0f} of {counts[path]:,} characters"
        console.print(line, markup=False)
    if rejects.total:
        log.print(rejects.summary())
    line = f"{command.out}: {tokenizer.vocab_size:,} tokens, sha256 {tokenizer.fingerprint()}"
    console.print(line, markup=False, soft_wrap=True)


def _training_texts(
    counts: dict[Path, int], kept: dict[Path, float], *, held: float
) -> Iterator[str]:
    """Yield what is not held out, each file thinned to the characters that it may give."""
    for path, count in counts.items():
        share = kept[path] / count if count else 1.0
        for key, text in _keyed_texts(path, rejects=Rejects()):
            # Thinned by a hash of its own: no position, no random state.
            if not is_held_out(key, held) and is_held_out(f"thin:{key}", share):
                yield text


def capped(counts: dict[Path, int], *, max_share: float) -> dict[Path, float]:
    """Return how many characters each file may give so that none exceeds `max_share` of the sum.

    With too few files for that (two files can't each be under a third) nothing is thinned.
    """
    if max_share * len(counts) <= 1:
        return {path: float(count) for path, count in counts.items()}
    limit = float(sum(counts.values()))
    for _ in range(200):  # a fixed point of limit = max_share * what the limit leaves
        limit = max_share * sum(min(count, limit) for count in counts.values())
    return {path: min(float(count), limit) for path, count in counts.items()}


def report(command: Report, console: Console) -> None:
    """Print how densely each tokenizer packs each file."""
    tokenizers = {name: Tokenizer.load(name) for name in command.tokenizer}
    held, rejects = command.held_out_share, Rejects()
    rows = []
    for path in expand_paths(command.files):
        keyed = _keyed_texts(path, rejects=rejects)
        texts = [text for key, text in keyed if is_held_out(key, held)]
        rows += [
            {"file": path.name, "tokenizer": name} | _density(tokenizer, texts)
            for name, tokenizer in tokenizers.items()
        ]
    if command.json:
        print_json(console, rows)
        return
    table = Table(title=f"held-out documents (share {held:g}, by hash)")
    for column in ("file", "tokenizer"):
        table.add_column(column, overflow="fold")
    for column in ("docs", "chars", "tokens", "char/token", "byte/token"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        counts = (f"{row[key]:,}" for key in ("documents", "characters", "tokens"))
        ratios = (row["characters_per_token"], row["bytes_per_token"])
        shown = (f"{ratio:.3f}" if ratio else "-" for ratio in ratios)
        table.add_row(row["file"].split(".")[0], row["tokenizer"], *counts, *shown)
    console.print(table)
    if rejects.total:
        console.print(rejects.summary(), markup=False)


def _density(tokenizer: Tokenizer, texts: list[str]) -> dict[str, Any]:
    characters = sum(map(len, texts))
    size = sum(len(text.encode("utf-8", "replace")) for text in texts)
    tokens = sum(map(len, tokenizer.encode_batch(texts)))
    return {
        "vocab_size": tokenizer.vocab_size,
        "documents": len(texts),
        "characters": characters,
        "tokens": tokens,
        "characters_per_token": characters / tokens if tokens else None,
        "bytes_per_token": size / tokens if tokens else None,
    }


def _keyed_texts(path: Path, *, rejects: Rejects) -> Iterator[tuple[str, str]]:
    """Yield (what decides whether it is held out, the text) for every usable row of a file.

    Raises:
        DataError: no row of it is a text, a conversation or a preference pair.
    """
    kind = _kind_of(path)
    for _, _, row in read_rows(path, kind, rejects=rejects):
        if isinstance(row, TextRow):
            yield row.held_out_key, row.text
        elif isinstance(row, ChatRow | PreferenceRow):
            messages = row.messages if isinstance(row, ChatRow) else row.chosen
            yield row.held_out_key, "\n".join(message["content"] for message in messages)


def _kind_of(path: Path) -> Kind:
    kinds: tuple[Kind, ...] = ("text", "chat", "preference")
    for kind in kinds:
        if next(read_rows(path, kind, rejects=Rejects()), None) is not None:
            return kind
    rejects = Rejects()
    list(read_rows(path, "text", rejects=rejects))
    if not rejects.total:  # an empty file, such as a cleaned shard of which nothing was kept
        return "text"
    raise nothing_usable([path], "text", rejects)
