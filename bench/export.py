"""What a GGUF type costs: size, and perplexity on held-out text, measured in llama.cpp itself.

    python bench/export.py runs/quickstart/dpo --data runs/quickstart/data/pretrain
    python bench/export.py runs/quickstart/dpo --text held-out.txt --types f32 q4_k_m --json

`--data` reads the documents that training held out by their hash (`--share` as in the run);
`--text` reads plain files. Each document is read in pieces of the model's context, and every token
but a piece's first is predicted. The first row is our own PyTorch model, from the same tokens.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

import minimind
from minimind.errors import DataError
from minimind.eval.held_out import split_text
from minimind.export.gguf import export_gguf
from minimind.export.gguf_types import FILE_TYPES
from minimind.export.llamacpp import LlamaCpp
from minimind.export.verify import our_logits


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--data", nargs="+", help="paths or globs, as in data.train")
    source.add_argument("--text", nargs="+", type=Path, help="plain text files")
    parser.add_argument("--share", type=float, default=0.01, help="data.validation_share")
    parser.add_argument("--tokens", type=int, default=10_000, help="stop after so many")
    parser.add_argument("--types", nargs="+", choices=FILE_TYPES, default=list(FILE_TYPES))
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


def pieces(args: argparse.Namespace, tokenizer: minimind.Tokenizer, length: int) -> list[list[int]]:
    """The documents as ids, in pieces that fit the context."""
    if args.text:
        documents = [path.read_text(encoding="utf-8") for path in args.text]
    else:
        documents = [document.text for document in split_text(args.data, share=args.share).held_out]
    rows: list[list[int]] = []
    count = 0
    for document in documents:
        ids = [tokenizer.endoftext_id, *tokenizer.encode(document)]
        for start in range(0, len(ids) - 1, length):
            rows.append(ids[start : start + length])
            count += len(rows[-1])
            if count >= args.tokens:
                return rows
    if not rows:
        raise DataError("there is no held-out text: give --text, or another --share")
    return rows


def perplexity(logits_of: Callable[[list[int]], np.ndarray], rows: list[list[int]]) -> float:
    total, count = 0.0, 0
    for row in rows:
        if len(row) < 2:
            continue
        logits = logits_of(row)[:-1].astype(np.float64)
        log_probs = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
        total -= log_probs[np.arange(len(row) - 1), row[1:]].sum()
        count += len(row) - 1
    return math.exp(total / count)


def main() -> None:
    args = arguments()
    model, tokenizer = minimind.load(args.checkpoint)
    rows = pieces(args, tokenizer, model.config.max_position_embeddings)
    ours = perplexity(lambda ids: our_logits(model, ids), rows)
    table = [{"type": "PyTorch", "megabytes": None, "perplexity": ours, "change": 0.0}]
    with tempfile.TemporaryDirectory() as folder:
        for kind in args.types:
            started = time.perf_counter()
            path = Path(folder) / f"{kind}.gguf"
            summary = export_gguf(args.checkpoint, path, type=kind)
            with LlamaCpp(path) as reader:
                value = perplexity(reader.logits, rows)
            table.append({
                "type": kind,
                "megabytes": summary.bytes / 1e6,
                "perplexity": value,
                "change": value / ours - 1,
                "seconds": time.perf_counter() - started,
                "checks": {check.name: check.detail for check in summary.checks},
            })  # fmt: skip
            path.unlink()
    tokens = sum(map(len, rows))
    if args.json:
        print(json.dumps({"tokens": tokens, "rows": table}, ensure_ascii=False, indent=1))
        return
    print(f"{args.checkpoint}: {tokens:,} tokens in {len(rows):,} pieces\n")
    print("| type | MB | perplexity | change |\n|---|---|---|---|")
    for row in table:
        size = "" if row["megabytes"] is None else f"{row['megabytes']:.2f}"
        print(f"| {row['type']} | {size} | {row['perplexity']:.4f} | {row['change']:+.3%} |")


if __name__ == "__main__":
    main()
