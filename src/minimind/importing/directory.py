"""A Hugging Face directory: config.json, safetensors (one file or shards) or .bin, tokenizer."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from minimind.checkpoint import config_from_hf
from minimind.checkpoint.store import read_json, read_tensors
from minimind.errors import CheckpointError
from minimind.importing.source import Source
from minimind.importing.vocabulary import make_tokenizer, read_text

WEIGHTS: Final = ("model.safetensors", "pytorch_model.bin")
"""Single files in order of preference; shards have an index `NAME.index.json`."""

_NOT_WEIGHTS = "rotary_emb.inv_freq"
"""Rotary frequencies that old versions of transformers saved; they follow from config.json."""

_SPECIAL_MAP = "special_tokens_map.json"


def read_directory(
    directory: Path, *, template: str | None = None, progress: Callable[[str], None]
) -> Source:
    """Read a directory that `save_pretrained` wrote.

    Args:
        directory: the directory.
        template: chat template to use in place of the model's own.
        progress: is told what is being done.

    Raises:
        CheckpointError: another architecture, or a missing or damaged file.
        TokenizerError: the tokenizer can't be read.
    """
    values = read_json(directory / "config.json")
    config = config_from_hf(values)
    progress(f"{values['model_type']}: reading the tokenizer")
    tokenizer = make_tokenizer(
        read_text(directory / "tokenizer.json", hint=_TOKENIZER_HINT),
        config=_tokenizer_config(directory),
        template=template or _chat_template(directory),
        eos_ids=_eos_ids(directory, values),
        origin=str(directory),
    )
    tensors: dict[str, Tensor] = {}
    for file in weight_files(directory):
        progress(f"reading {file.name}")
        found = read_tensors(file) if file.suffix == ".safetensors" else _read_pickle(file)
        tensors |= {n: t for n, t in found.items() if not n.endswith(_NOT_WEIGHTS)}
    return Source(path=directory, config=config, tensors=tensors, tokenizer=tokenizer)


_TOKENIZER_HINT = (
    "make it with transformers: AutoTokenizer.from_pretrained(DIR).save_pretrained(DIR)"
)


def weight_files(directory: Path) -> list[Path]:
    """Return the files that hold the weights, in order.

    Raises:
        CheckpointError: there are none, or a shard of the index is missing.
    """
    for name in WEIGHTS:
        if (directory / name).exists():
            return [directory / name]
        index = directory / f"{name}.index.json"
        if not index.exists():
            continue
        named = read_json(index).get("weight_map")
        if not isinstance(named, dict) or not named:
            raise CheckpointError(f"{index} has no weight_map")
        files = [directory / Path(shard).name for shard in sorted(set(named.values()))]
        for file in files:
            if not file.exists():
                raise CheckpointError(f"{file} is missing: {index.name} names it. Get it again.")
        return files
    raise CheckpointError(f"{directory} has no weights: no {' or '.join(WEIGHTS)}, no index")


def _read_pickle(path: Path) -> dict[str, Tensor]:
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError, ValueError) as error:
        raise CheckpointError(
            f"{path} is damaged, or holds more than tensors and is not run: {error}"
        ) from error
    if not isinstance(found, dict) or not all(isinstance(t, Tensor) for t in found.values()):
        raise CheckpointError(f"{path} is not a table of tensors")
    return found


def _tokenizer_config(directory: Path) -> dict[str, Any]:
    """Return tokenizer_config.json without the template, completed by special_tokens_map.json."""
    values: dict[str, Any] = {}
    for name in (_SPECIAL_MAP, "tokenizer_config.json"):
        if (directory / name).exists():
            read = read_json(directory / name)
            values |= {key: value for key, value in read.items() if value is not None}
    values.pop("chat_template", None)
    return values


def _chat_template(directory: Path) -> str | None:
    path = directory / "chat_template.jinja"
    if path.exists():
        return read_text(path)
    for name in ("chat_template.json", "tokenizer_config.json"):
        if not (directory / name).exists():
            continue
        template = read_json(directory / name).get("chat_template")
        if isinstance(template, list):  # several by name
            template = {one["name"]: one["template"] for one in template}.get("default")
        if isinstance(template, str):
            return template
    return None


def _eos_ids(directory: Path, values: dict[str, Any]) -> list[int]:
    path = directory / "generation_config.json"
    named = read_json(path).get("eos_token_id") if path.exists() else None
    named = values.get("eos_token_id") if named is None else named
    return [] if named is None else named if isinstance(named, list) else [named]
