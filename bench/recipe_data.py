"""What `bench/recipe.py` prepares before its arms train: tokenizers, and parts of the text."""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path

from minimind.tokenizer import Tokenizer
from recipe_arms import text_files


def training_texts(file: Path) -> Iterator[str]:
    """Yield the texts of a file that aren't held out."""
    from minimind.config import DataConfig
    from minimind.data import Rejects, is_held_out
    from minimind.data.reader import Cursor, read_lines

    for _, line in read_lines(file, Cursor(), Rejects()):
        text = json.loads(line)["text"]
        if not is_held_out(text, DataConfig().validation_share):
            yield text


def train_tokenizers(data: Path, work: Path, *, megabytes: int, vocab_size: int) -> dict[str, str]:
    """Train a jieba-guided and a plain tokenizer on the same text; return their directories."""
    from minimind.tokenizer import train_tokenizer

    files = text_files(data)

    def texts() -> Iterator[str]:
        for file in files:
            left = megabytes * 2**20 // len(files)
            for text in training_texts(file):
                left -= len(text.encode())
                if left < 0:
                    break
                yield text

    paths = {}
    for name, jieba in (("jieba-guided", True), ("plain-bpe", False)):
        directory = work / f"{name}-{vocab_size}-{megabytes}mb"
        if not (directory / "tokenizer.json").exists():
            print(f"training {name}", file=sys.stderr)
            train_tokenizer(texts(), vocab_size=vocab_size, jieba=jieba).save(directory)
        paths[name] = str(directory)
    return paths


def part_of_the_text(
    data: Path, work: Path, *, tokenizer: Tokenizer, tokens: int, seed: int
) -> Path:
    """Write a random part of the training text, `tokens` long; return the file.

    Parts of one seed lie in each other: the smaller is the beginning of the larger.
    """
    texts = [text for file in text_files(data) for text in training_texts(file)]
    random.Random(seed).shuffle(texts)
    part, left = [], tokens
    for text in texts:
        if left <= 0:
            break
        part.append(text)
        left -= len(tokenizer.encode(text)) + 1  # and the mark that opens a document
    if left > 0:
        raise SystemExit(f"--tokens: {data} has {left:,} tokens too few for an epoch")
    work.mkdir(parents=True, exist_ok=True)
    file = work / f"part-{tokens}-{seed}.jsonl"
    lines = (json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in part)
    file.write_text("".join(lines), encoding="utf-8")
    return file
