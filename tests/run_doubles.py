"""A run of seconds: small data of each kind, and the settings of a model that fits it."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path

from doubles import byte_tokenizer, tiny_config
from minimind.config import (
    DataConfig,
    InitConfig,
    LogConfig,
    OptimConfig,
    RunConfig,
    SaveConfig,
    TrainConfig,
)
from minimind.settings import dump_run_config
from minimind.train.metrics import read_metrics

WORDS = ["春", "夏", "秋", "冬", "山", "水", "花", "鸟", "人", "天", "地", "日", "月", "风", "云"]
TIMES = {"seconds", "tokens_per_second", "data_wait_seconds", "data_wait_share"}


def write_rows(path: Path, kind: str, *, rows: int = 300) -> Path:
    """Write JSONL of `kind`: text, chat, or preference pairs with a learnable preference."""
    draw = random.Random(7)

    def text(words: list[str], count: int) -> str:
        return "".join(draw.choices(words, k=count))

    def turns(question: int, answer: str) -> list[dict[str, str]]:
        asked = {"role": "user", "content": f"第{question}天？"}
        return [asked, {"role": "assistant", "content": answer}]

    makers = {
        "text": lambda n: {"text": text(WORDS, draw.randint(5, 40)) + str(n)},
        "chat": lambda n: {"conversations": turns(n, text(WORDS, 3))},
        "preference": lambda n: {
            "chosen": turns(n, text(WORDS[:8], 3)),
            "rejected": turns(n, text(WORDS[8:], 4)),
        },
    }
    lines = [json.dumps(makers[kind](n), ensure_ascii=False) + "\n" for n in range(rows)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(lines), encoding="utf-8")
    return path


def tiny_run(where: Path, *, kind: str = "text", name: str = "run", steps: int = 12) -> RunConfig:
    """A run from random weights on `kind` rows, below `where`; every step is logged."""
    tokenizer = where / "tokenizer"
    if not tokenizer.exists():
        tokenizer.mkdir(parents=True)
        byte_tokenizer().save(tokenizer)
    data = where / f"{kind}.jsonl"
    if not data.exists():
        write_rows(data, kind)
    return RunConfig(
        name=name,
        out=str(where / "runs"),
        model=tiny_config(),
        init=InitConfig(tokenizer=str(tokenizer)),
        data=DataConfig(train=(str(data),), kind=kind, sequence_length=64, validation_share=0.05),
        optim=OptimConfig(lr=3e-3),
        train=TrainConfig(
            steps=steps,
            batch_rows=4,
            micro_batch_rows=2,
            device="cpu",
            precision="fp32",
            compile=False,
        ),
        save=SaveConfig(every=4, keep_last=10),
        log=LogConfig(every=1, validate_every=6, validate_rows=8),
    )


def following(first: RunConfig, *, kind: str, name: str) -> RunConfig:
    """A run that starts from the newest checkpoint of `first`."""
    config = tiny_run(Path(first.out).parent, kind=kind, name=name)
    start = InitConfig(checkpoint=str(Path(first.out) / first.name))
    return replace(config, init=start)


def run_directory(config: RunConfig) -> Path:
    return Path(config.out) / config.name


def write_settings(config: RunConfig, path: Path) -> Path:
    path.write_text(dump_run_config(config), encoding="utf-8")
    return path


def curve(directory: Path) -> list[dict[str, float]]:
    """Everything that metrics.jsonl says, but for what a clock measured."""
    return [
        {name: value for name, value in line.items() if name not in TIMES}
        for line in read_metrics(directory / "metrics.jsonl")
    ]
