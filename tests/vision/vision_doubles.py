"""Small real encoders, written by transformers itself, and models that learn four pictures."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import torch
import transformers
from PIL import Image

from doubles import tiny_config
from minimind import checkpoint
from minimind.config import InitConfig, OptimConfig, RunConfig, SightConfig
from minimind.model import CausalLM
from minimind.train.run import run
from run_doubles import tiny_run

COLOURS = {"红": (220, 30, 30), "绿": (30, 180, 60), "蓝": (40, 60, 220), "黄": (240, 220, 40)}
QUESTION = "什么颜色？"


def save_encoder(directory: Path, family: str) -> Path:
    """A CLIP or SigLIP vision tower of random weights: 16 positions of 32 features."""
    torch.manual_seed(3)
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3,
             "num_attention_heads": 2, "image_size": 32, "patch_size": 8}  # fmt: skip
    if family == "clip":
        config = transformers.CLIPVisionConfig(**shape)
        model: transformers.PreTrainedModel = transformers.CLIPVisionModel(config)
    else:
        model = transformers.SiglipVisionModel(transformers.SiglipVisionConfig(**shape))
    model.eval().save_pretrained(str(directory))
    return directory


def save_pictures(folder: Path, *, styles: int = 1) -> list[Path]:
    """A plain picture of each colour, by name; more styles are other brightnesses."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for style in range(styles):
        for name, rgb in COLOURS.items():
            path = folder / f"{name}{style}.png"
            Image.new("RGB", (24, 20), tuple(max(0, c - 12 * style) for c in rgb)).save(path)
            paths.append(path)
    return paths


def write_image_rows(path: Path, pictures: list[Path]) -> Path:
    rows = [
        {
            "image": str(picture.relative_to(path.parent)),
            "conversations": [
                {"role": "user", "content": f"<image>\n{QUESTION}"},
                {"role": "assistant", "content": picture.stem[0]},
            ],
            "concept": picture.stem,
        }
        for picture in pictures
    ]
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    path.write_text("".join(lines), encoding="utf-8")
    return path


def seeing_run(where: Path, encoder: Path, *, name: str, steps: int, train: str) -> RunConfig:
    """A run from a text model with random weights, which is given eyes."""
    text = tiny_run(where)
    start = where / "text"
    if not start.exists():
        from minimind.tokenizer import Tokenizer

        torch.manual_seed(5)
        model = CausalLM(tiny_config(max_position_embeddings=128))
        checkpoint.save(start, model=model, tokenizer=Tokenizer.load(where / "tokenizer"))
    rows = where / "rows.jsonl"
    if not rows.exists():
        write_image_rows(rows, save_pictures(where / "pictures"))
    return replace(
        text,
        name=name,
        model=type(text.model)(),
        init=InitConfig(checkpoint=str(start)),
        vision=SightConfig(encoder=str(encoder), train=train),
        data=replace(
            text.data, train=(str(rows),), kind="image", sequence_length=96, validation_share=0.0
        ),
        optim=OptimConfig(kind="adamw", lr=5e-3, weight_decay=0.0, schedule="constant"),
        train=replace(text.train, steps=steps),
        save=replace(text.save, every=4),
        log=replace(text.log, validate_every=0),
    )


def train_to_see(where: Path, *, family: str = "clip", steps: int = 60) -> Path:
    """A checkpoint that tells the four colours apart; some seconds."""
    encoder = save_encoder(where / family, family)
    config = seeing_run(where, encoder, name=f"see-{family}", steps=steps, train="all")
    return run(replace(config, save=replace(config.save, every=steps))).directory
