"""A small model that has learnt something, checkpoints of many shapes, and lines of every kind."""

from __future__ import annotations

import functools
import inspect
import random
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F

import minimind
from doubles import byte_tokenizer, tiny_config
from minimind import checkpoint
from minimind.config import LoraConfig, ModelConfig, RunConfig
from minimind.model import CausalLM, inject_lora
from minimind.tokenizer import SPECIAL_TOKENS, Tokenizer, train_tokenizer

REPOSITORY = Path(__file__).parents[2]


def chinese_and_code() -> str:
    """Text that every checkout and every Python has: our Chinese README and standard modules."""
    parts = [(REPOSITORY / "README.zh-CN.md").read_text(encoding="utf-8")]
    parts += [inspect.getsource(module) for module in (textwrap, functools)]
    return "\n".join(parts)


@functools.cache
def learnt() -> tuple[Path, str]:
    """A checkpoint with rows of 256 that learnt nine of ten lines of a text, and the others."""
    lines = chinese_and_code().splitlines(keepends=True)
    seen = "".join(line for number, line in enumerate(lines) if number % 10)
    tokenizer = train_tokenizer([seen], vocab_size=640)
    config = tiny_config(
        vocab_size=640, hidden_size=256, head_dim=64, intermediate_size=256,
        max_position_embeddings=320, num_hidden_layers=3,
        initializer_range=0.06,
    )  # fmt: skip
    torch.manual_seed(0)
    model = CausalLM(config)
    ids = torch.tensor(tokenizer.encode(seen))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for step in range(90):  # the README grows
        optimizer.param_groups[0]["lr"] = 3e-3 * min(1, (step + 1) / 6, (90 - step) / 30)
        starts = torch.randint(len(ids) - 97, (6,))
        rows = torch.stack([ids[start : start + 97] for start in starts.tolist()])
        logits = model(rows[:, :-1]).logits
        loss = F.cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    directory = Path(tempfile.mkdtemp(prefix="minimind-test-")) / "learnt"
    checkpoint.save(directory, model=model.eval(), tokenizer=tokenizer)
    return directory, "".join(lines[::10])


def random_checkpoint(directory: Path, **shape: Any) -> Path:
    """A checkpoint of random weights that are large enough to tell shapes apart."""
    return save_random(directory, tiny_config(**shape), byte_tokenizer())


def save_random(directory: Path, config: ModelConfig, tokenizer: Tokenizer) -> Path:
    torch.manual_seed(1)
    model = CausalLM(config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.mul_(1 + torch.rand_like(weight) if "norm" in name else 8)
    return checkpoint.save(directory, model=model.eval(), tokenizer=tokenizer)


def save_adapters(base: Path, directory: Path, *, rslora: bool = False) -> CausalLM:
    """A LoRA checkpoint over `base` whose adapters do something; returns the model with them."""
    model, tokenizer = minimind.load(base)
    lora = LoraConfig(rank=4, alpha=8.0, rslora=rslora)
    inject_lora(model, lora)
    torch.manual_seed(2)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith("lora_B"):
                weight.normal_(std=0.1)
    run = RunConfig(model=model.config, lora=lora)
    checkpoint.save(directory, model=model, tokenizer=tokenizer, run=run, base=base)
    return model.eval()


def lines_of_every_kind(count: int) -> list[str]:
    """Chinese, English, code, emoji and random Unicode in equal parts, always the same ones."""
    draw = random.Random(20261122)
    makers = (_chinese(draw), _prose(draw), _code(draw), _emoji(draw), _unicode(draw))
    lines: list[str] = []
    while len(lines) < count:
        for maker in makers:
            line = next(maker)
            # Text that spells a special token is text to us and a token to the others, by design.
            if not any(token in line for token in SPECIAL_TOKENS):
                lines.append(line)
    return lines[:count]


def _chinese(draw: random.Random) -> Iterator[str]:
    real = [
        line for line in (REPOSITORY / "README.zh-CN.md").read_text("utf-8").splitlines() if line
    ]
    marks = "，。！？；：、“”‘’（）《》——……　 \n"
    common = [chr(code) for code in range(0x4E00, 0x4E00 + 3000)]
    rare = [chr(code) for code in (*range(0x3400, 0x4DB6), *range(0x20000, 0x20100))]
    while True:
        pool = draw.choices(
            [common, rare, list(marks), list("0１2Aａz")], weights=[8, 1, 2, 1], k=40
        )
        made = "".join(draw.choice(kind) for kind in pool[: draw.randint(1, 40)])
        yield draw.choice([made, draw.choice(real), made + draw.choice(real)])


def _prose(draw: random.Random) -> Iterator[str]:
    documented = [inspect.getdoc(value) or "" for value in vars(sys.modules["builtins"]).values()]
    words = " ".join(documented).split(" ")
    spaces = [" ", " ", " ", "  ", "\n", "\t", "\r\n", " \n ", "\u00a0", "’s ", "'LL ", "n't "]
    while True:
        picked = draw.choices(words, k=draw.randint(1, 20))
        yield "".join(word + draw.choice(spaces) for word in picked)


def _code(draw: random.Random) -> Iterator[str]:
    import argparse
    import difflib
    import json
    import statistics
    import tokenize

    modules = (argparse, difflib, json, statistics, tokenize, minimind.errors, minimind.config)
    lines = [line for module in modules for line in inspect.getsource(module).splitlines()]
    while True:
        start, length = draw.randrange(len(lines)), draw.randint(1, 3)
        indent = draw.choice(["", "", "    ", "\t", "   \t"])
        yield "\n".join(indent + line for line in lines[start : start + length])


def _emoji(draw: random.Random) -> Iterator[str]:
    faces = [chr(code) for code in (*range(0x1F300, 0x1F650), *range(0x1F900, 0x1FA00))]
    joined = ["\u200d", "\ufe0f", "\U0001f3fd", "\u20e3", " ", "", "", "嗯", "ok", "7"]
    flags = [chr(code) for code in range(0x1F1E6, 0x1F200)]
    while True:
        pieces = [
            draw.choice(faces + flags) + draw.choice(joined) for _ in range(draw.randint(1, 9))
        ]
        yield "".join(pieces)


def _unicode(draw: random.Random) -> Iterator[str]:
    def character() -> str:
        code = draw.choice([draw.randrange(0x20), draw.randrange(0x3000), draw.randrange(0x110000)])
        return "?" if 0xD800 <= code < 0xE000 else chr(code)

    while True:
        yield "".join(character() for _ in range(draw.randint(1, 24)))
