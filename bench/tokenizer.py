"""Is a jieba-guided vocabulary denser than a plain one? Both trained on the same text, one run.

    python bench/tokenizer.py corpus/pretrain --max-characters 20000000

Each file is a domain. Held-out documents (by hash, not seen in training) are encoded with both;
characters and bytes per token are pooled over a domain's text, and the spread is that of the
documents. The difference is paired by document, with a 95 % interval of its mean. Encode speed is
measured in CPU seconds of one thread, best of three, so that a busy machine disturbs it little.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

os.environ["TOKENIZERS_PARALLELISM"] = "false"  # speed is that of one thread

from rich.console import Console
from rich.table import Table

from minimind.data.document import is_held_out
from minimind.data.formats import TextRow
from minimind.data.reader import Rejects, expand_paths, read_rows
from minimind.tokenizer import Tokenizer, train_tokenizer

HELD_OUT_SHARE = 0.01


@dataclass(frozen=True, slots=True)
class Density:
    """How densely one tokenizer packs one domain."""

    domain: str
    tokenizer: str
    documents: int
    characters: int
    tokens: int
    characters_per_token: float
    bytes_per_token: float
    document_mean: float
    document_sd: float


def read_texts(path: Path) -> Iterator[str]:
    for _, _, row in read_rows(path, "text", rejects=Rejects()):
        if isinstance(row, TextRow):
            yield row.text


def held_out(files: list[Path]) -> dict[str, list[str]]:
    """Return the held-out documents of each file that has any."""
    found = {f.name: [t for t in read_texts(f) if is_held_out(t, HELD_OUT_SHARE)] for f in files}
    return {domain: texts for domain, texts in found.items() if texts}


def training_texts(files: list[Path], share: float) -> Iterator[str]:
    """Yield the training side, thinned to `share` by a hash of its own."""
    for path in files:
        for text in read_texts(path):
            if not is_held_out(text, HELD_OUT_SHARE) and is_held_out(f"thin:{text}", share):
                yield text


def densities(domain: str, texts: list[str], tokenizers: dict[str, Tokenizer]) -> list[Density]:
    characters = sum(map(len, texts))
    size = sum(len(text.encode()) for text in texts)
    rows = []
    for name, tokenizer in tokenizers.items():
        tokens = [len(ids) for ids in tokenizer.encode_batch(texts)]
        ratios = per_document(texts, tokens)
        rows.append(
            Density(
                domain=domain,
                tokenizer=name,
                documents=len(texts),
                characters=characters,
                tokens=sum(tokens),
                characters_per_token=characters / sum(tokens),
                bytes_per_token=size / sum(tokens),
                document_mean=statistics.fmean(ratios),
                document_sd=statistics.stdev(ratios) if len(ratios) > 1 else 0.0,
            )
        )
    return rows


def per_document(texts: list[str], tokens: list[int]) -> list[float]:
    return [len(text) / count for text, count in zip(texts, tokens, strict=True)]


def paired_difference(
    texts: list[str], first: Tokenizer, second: Tokenizer
) -> tuple[float, float | None]:
    """Return the mean over documents of first minus second, and half its 95 % interval, if any."""
    ratios = [per_document(texts, list(map(len, t.encode_batch(texts)))) for t in (first, second)]
    differences = [a - b for a, b in zip(*ratios, strict=True)]
    if len(differences) < 2:
        return statistics.fmean(differences), None
    error = statistics.stdev(differences) / math.sqrt(len(differences))
    return statistics.fmean(differences), 1.96 * error


def encode_speed(tokenizer: Tokenizer, texts: list[str]) -> float:
    """Return MB (10^6 bytes of UTF-8) a second of one thread's CPU time, best of three."""
    size = sum(len(text.encode()) for text in texts)
    seconds = []
    for _ in range(3):
        start = time.process_time()
        tokenizer.encode_batch(texts)
        seconds.append(time.process_time() - start)
    return size / min(seconds) / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("files", nargs="+", help="JSONL files, globs or folders; one domain each")
    parser.add_argument("--vocab-size", type=int, default=12_000)
    parser.add_argument(
        "--max-characters",
        type=float,
        default=20e6,
        help="of training text; plain BPE needs about 0.2 GB of memory a million",
    )
    parser.add_argument(
        "--other", nargs="*", default=[], help="domains to measure, not to train on"
    )
    parser.add_argument("--tokenizer", nargs="*", default=[], help="directories to show beside")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    args = parser.parse_args()
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 130)
    files = expand_paths(args.files)
    held = held_out(files)
    other = held_out(expand_paths(args.other)) if args.other else {}

    total = sum(map(len, training_texts(files, 1.0)))
    share = min(1.0, args.max_characters / total)
    console.print(
        f"training on {share:.0%} of {total / 1e6:.1f} M characters in {len(files)} files"
    )
    tokenizers, seconds = {}, {}
    for name, jieba in (("jieba-guided", True), ("plain", False)):
        start = time.process_time()
        texts = training_texts(files, share)
        tokenizers[name] = train_tokenizer(texts, vocab_size=args.vocab_size, jieba=jieba)
        seconds[name] = time.process_time() - start
    guided, plain = tokenizers["jieba-guided"], tokenizers["plain"]
    tokenizers |= {path: Tokenizer.load(path) for path in args.tokenizer}

    held["all"] = [text for texts in held.values() for text in texts]
    if other:
        held |= {f"(other) {domain}": texts for domain, texts in other.items()}
        held["(other) all"] = [text for texts in other.values() for text in texts]
    rows = [row for domain, texts in held.items() for row in densities(domain, texts, tokenizers)]
    differences = {
        domain: paired_difference(texts, guided, plain) for domain, texts in held.items()
    }
    print_table(console, rows, differences)
    speeds = {name: encode_speed(one, held["all"]) for name, one in tokenizers.items()}
    for name, speed in speeds.items():
        trained = f", trained in {seconds[name]:.0f} CPU s" if name in seconds else ""
        console.print(f"{name}: encodes {speed:.2f} MB/s of one thread's CPU time{trained}")
    if args.json:
        figures = {
            "training_characters": round(total * share),
            "vocab_size": args.vocab_size,
            "densities": [asdict(row) for row in rows],
            "paired_difference": differences,
            "encode_mb_per_second": speeds,
            "train_seconds": seconds,
        }
        args.json.write_text(json.dumps(figures, ensure_ascii=False, indent=1), encoding="utf-8")


def print_table(
    console: Console, rows: list[Density], differences: dict[str, tuple[float, float | None]]
) -> None:
    table = Table(title="held-out documents; difference: jieba-guided - plain, by document")
    table.add_column("domain", no_wrap=True)
    table.add_column("tokenizer", no_wrap=True)
    for column in ("n", "char/token", "byte/token", "document mean ± sd", "difference ± 95 %"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        mean, error = differences[row.domain]
        interval = f" ± {error:.3f}" if error is not None else ""
        table.add_row(
            row.domain.split(".")[0],
            row.tokenizer,
            f"{row.documents}",
            f"{row.characters_per_token:.3f}",
            f"{row.bytes_per_token:.3f}",
            f"{row.document_mean:.3f} ± {row.document_sd:.3f}",
            f"{mean:+.3f}{interval}" if row.tokenizer == "jieba-guided" else "",
        )
    console.print(table)


if __name__ == "__main__":
    main()
