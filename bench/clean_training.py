# ruff: noqa: E501 - ruff counts a hanzi as two columns
"""Is a model better for cleaning? Raw against cleaned text, equal steps, held-out clean text.

    python bench/clean_training.py corpus/pretrain --tokenizer tokenizer --steps 150 --seeds 0 1 2

Raw is real text with the noise of the web added, by seed: of the documents, 10 % are mojibake (UTF-8
read as Latin-1, half of it repairable), 8 % pages of spam, 15 % near-copies of others (5 % of the
characters changed) and 5 % exact copies; half of the rest carry two boilerplate lines, and one in
ten is in traditional script. Cleaned is what `minimind data clean` makes of it. Held-out documents
are taken before any noise and are in neither. Both arms run the same number of steps on rows of the
same size: the machine's load can't favour one. The raw arm's tokens hold noise, which is the point.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import sys
from pathlib import Path

import opencc

from cleaning_faults import SPAM, changed, read_texts
from minimind.data.cleaning.config import CleanConfig, Input
from minimind.data.cleaning.run import clean_corpus

BOILERPLATE = ("首页 > 新闻中心 > 正文", "责任编辑：小李", "上一篇：没有了", "Copyright © 2020 某某网 版权所有",
               "扫描二维码关注我们", "返回顶部", "点击查看更多")  # fmt: skip


def noisy(texts: list[str], rng: random.Random) -> list[str]:
    """Return the documents as a crawl might have brought them."""
    traditional, pool = opencc.OpenCC("s2t").convert, "".join(texts[:50])
    raw: list[str] = []
    for text in texts:
        kind = rng.random()
        if kind < 0.10:
            data = text.encode()
            cut = data if rng.random() < 0.5 else data[:-1].replace(b"\x9a", b"?")
            raw.append(cut.decode("latin-1"))
        elif kind < 0.20:
            raw.append(traditional(text))
        elif kind < 0.60:
            first, last = rng.sample(BOILERPLATE, 2)
            raw.append(f"{first}\n{text}\n{last}")
        else:
            raw.append(text)
        if rng.random() < 0.08:
            passages = SPAM[rng.choice(sorted(SPAM))]
            raw.append("\n".join(rng.sample(passages, 3)))
        if rng.random() < 0.15:
            raw.append(changed(text, 0.05, pool, rng))
        if rng.random() < 0.05:
            raw.append(text)
    rng.shuffle(raw)
    return raw


def write(path: Path, texts: list[str]) -> Path:
    rows = (json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts)
    path.write_text("".join(rows), "utf-8")
    return path


def bits_per_byte(
    data: Path, held_out: Path, name: str, seed: int, args: argparse.Namespace
) -> float:
    """Train one model and return its last validation."""
    run = args.out / "runs" / name
    command = [
        sys.executable, "-m", "minimind", "train", "pretrain", "nano", "--name", name,
        "--out", str(run.parent), "--seed", str(seed), "--init.tokenizer", args.tokenizer,
        "--data.train", str(data), "--data.validation", str(held_out), "--train.no-compile",
        "--train.steps", str(args.steps), "--train.batch-rows", str(args.rows), "--data.sequence-length", "256",
        "--log.validate-every", "0",
    ]  # fmt: skip
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    lines = (run / "metrics.jsonl").read_text("utf-8").splitlines()
    found = [row for line in lines if "validation_bits_per_byte" in (row := json.loads(line))]
    return found[-1]["validation_bits_per_byte"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("paths", nargs="+")
    parser.add_argument("--tokenizer", default="default")
    parser.add_argument("--documents", type=int, default=4_000)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--rows", type=int, default=16, help="rows of 256 tokens a step")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, required=True, help="a new folder")
    args = parser.parse_args()
    rng = random.Random(0)
    texts = read_texts(args.paths, args.documents, rng)
    held_out, training = texts[: len(texts) // 10], texts[len(texts) // 10 :]
    args.out.mkdir(parents=True)
    raw = write(args.out / "raw.jsonl", noisy(training, rng))
    clean_corpus(CleanConfig(
        out=str(args.out / "cleaned"), input=Input(paths=(str(raw),), licences=("MIT",))))  # fmt: skip
    validation = write(args.out / "held-out.jsonl", held_out)
    scores: dict[str, list[float]] = {"raw": [], "cleaned": []}
    for seed in args.seeds:
        for arm, data in (("raw", raw), ("cleaned", args.out / "cleaned" / "data")):
            scores[arm].append(bits_per_byte(data, validation, f"{arm}-{seed}", seed, args))
            print(
                json.dumps({"arm": arm, "seed": seed, "bits_per_byte": scores[arm][-1]}), flush=True
            )
    gains = [a - b for a, b in zip(scores["raw"], scores["cleaned"], strict=True)]
    print(json.dumps({"raw": statistics.mean(scores["raw"]), "cleaned": statistics.mean(
        scores["cleaned"]), "gain": statistics.mean(gains), "gains": gains}))  # fmt: skip


if __name__ == "__main__":
    main()
