# ruff: noqa: E501 - ruff counts a hanzi as two columns
"""How fast is cleaning? MB of Chinese text per second of one core, beside datatrove's stock filters.

    python bench/data_clean.py corpus/pretrain --mb 20 --datatrove OTHER_VENV/bin/python

Documents are drawn from all files alike and held in memory. Ours is timed by parts: the rules alone;
a whole first pass (parsing, rules, writing zstd); MinHash signatures. datatrove runs in an environment
of its own (pip install datatrove jieba spacy nltk) with the filters that work without a download:
Gopher repetition, Gopher quality, C4, FineWeb quality and the PII formatter, language zh (spaCy with
jieba cuts words, as datatrove does it). CPU seconds of one process, best of `--rounds`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from minimind.data.cleaning.chain import clean
from minimind.data.cleaning.config import CleanConfig, Duplicates, Input, Rules
from minimind.data.cleaning.minhash import band_keys, signatures
from minimind.data.cleaning.page import Page, ngrams
from minimind.data.cleaning.shards import plan
from minimind.data.cleaning.stages import run_pass
from minimind.data.document import Document
from minimind.data.formats import TextRow
from minimind.data.reader import Rejects, expand_paths, read_rows

DATATROVE = r"""
import json, sys, time
from datatrove.data import Document
from datatrove.pipeline.filters import (
    C4QualityFilter, FineWebQualityFilter, GopherQualityFilter, GopherRepetitionFilter)
from datatrove.pipeline.formatters import PIIFormatter
steps = {"gopher repetition": GopherRepetitionFilter(language="zh"),
         "gopher quality": GopherQualityFilter(language="zh", min_stop_words=0, stop_words=[]),
         "c4": C4QualityFilter(language="zh", filter_no_terminal_punct=False),
         "fineweb": FineWebQualityFilter(language="zh"), "pii": PIIFormatter()}
texts = [json.loads(line)["text"] for line in open(sys.argv[1], encoding="utf-8")]
def run(texts):
    spent = dict.fromkeys(steps, 0.0)
    for number, text in enumerate(texts):
        document = Document(text=text, id=str(number))
        for name, step in steps.items():
            start = time.process_time()
            if name == "pii":
                document.text = step.format(document.text)
            else:
                step.filter(document)
            spent[name] += time.process_time() - start
    return spent
run(texts[:3])
best = min((run(texts) for _ in range(int(sys.argv[2]))), key=lambda spent: sum(spent.values()))
print(json.dumps({"mb": sum(len(t.encode()) for t in texts) / 1e6, "seconds": best}))
"""


def read_texts(paths: list[str], mb: float) -> list[str]:
    """Draw documents of all files in turn until there are `mb` MB."""
    streams = [
        (
            row.text
            for _, _, row in read_rows(path, "text", rejects=Rejects())
            if isinstance(row, TextRow)
        )
        for path in expand_paths(paths)
    ]
    texts: list[str] = []
    size = 0.0
    while streams and size < mb:
        for stream in list(streams):
            if (text := next(stream, None)) is None:
                streams.remove(stream)
                continue
            texts.append(text)
            size += len(text.encode()) / 1e6
    return texts


def seconds(work: Callable[[], object], rounds: int) -> float:
    best = float("inf")
    for _ in range(rounds):
        start = time.process_time()
        work()
        best = min(best, time.process_time() - start)
    return best


def rules_alone(texts: list[str]) -> None:
    rules = Rules()
    for text in texts:
        clean(Document(text, "x", {"licence": "MIT"}), rules)


def first_pass(path: Path) -> None:
    with tempfile.TemporaryDirectory() as out:
        config = CleanConfig(out=out, input=Input(paths=(str(path),), licences=("MIT",)))
        run_pass(1, plan(config.input)[0], config)


def minhash(texts: list[str]) -> None:
    config = Duplicates()
    pages = (Page(Document(text, "")) for text in texts)
    shingles = [np.unique(ngrams(page.content, config.n)) for page in pages]
    for start in range(0, len(shingles), 256):
        part = [
            found if len(found) else np.zeros(1, np.uint64)
            for found in shingles[start : start + 256]
        ]
        band_keys(signatures(part, config), config.bands)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("paths", nargs="+")
    parser.add_argument("--mb", type=float, default=20.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--datatrove", help="the python of an environment with datatrove in it")
    parser.add_argument(
        "--datatrove-mb", type=float, default=1.0, help="it takes a minute for a MB"
    )
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    texts = read_texts(args.paths, args.mb)
    mb = sum(len(text.encode()) for text in texts) / 1e6
    rules_alone(texts[:50])  # tables and models are loaded once
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "texts.jsonl"
        rows = (json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts)
        path.write_text("".join(rows), "utf-8")
        rates = {
            "rules alone": mb / seconds(lambda: rules_alone(texts), args.rounds),
            "first pass: parsing, rules, hashes, writing": mb
            / seconds(lambda: first_pass(path), args.rounds),
            "MinHash signatures": mb / seconds(lambda: minhash(texts), args.rounds),
        }
        if args.datatrove:
            some = read_texts(args.paths, args.datatrove_mb)
            rows = (json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in some)
            path.write_text("".join(rows), "utf-8")
            command = [args.datatrove, "-c", DATATROVE, str(path), "1"]
            ran = subprocess.run(command, capture_output=True, text=True)
            if ran.returncode:
                sys.exit(f"datatrove did not run: {ran.stderr[-2000:]}")
            found = json.loads(ran.stdout.splitlines()[-1])
            spent = found["seconds"]
            rates |= {f"datatrove: {name}": found["mb"] / s for name, s in spent.items()}
            rates["datatrove: all five"] = found["mb"] / sum(spent.values())
    if args.json:
        print(json.dumps({"mb": mb, "documents": len(texts), "mb_per_second": rates}))
        return
    print(f"{len(texts):,} documents, {mb:.1f} MB; MB/s of one core:")
    for name, rate in rates.items():
        print(f"  {name:<46} {rate:8.2f}")


if __name__ == "__main__":
    main()
