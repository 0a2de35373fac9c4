"""Quantised checkpoints: what their files have beside those of any other.

config.json      `quantization_config`: bitsandbytes' as transformers writes it, or ours
original.json    the checkpoint that was quantised, for those who need its plain weights
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from minimind.errors import CheckpointError
from minimind.model import CausalLM
from minimind.model import quantize_bnb as bnb
from minimind.model.layers import replace_module
from minimind.model.quantize import Quantization, quantize_model

ORIGINAL = "original.json"


def make_places(
    model: CausalLM, quantization: Quantization, tensors: dict[str, Tensor], path: Path
) -> None:
    """Put quantised modules into a plain model on the meta device, for `tensors` to be loaded into.

    bitsandbytes' are filled here and their tensors taken out of `tensors`.

    Raises:
        CheckpointError: `tensors`, read from `path`, are not those of this quantisation.
        MissingExtraError: bitsandbytes is not installed.
    """
    if quantization.method in bnb.METHODS:
        _fill_bnb(model, quantization.method, tensors, path)
        model.quantization = quantization
        model.requires_grad_(False)
    else:
        quantize_model(model, quantization.method, group_size=quantization.group_size or 32)
    for name, expected in model.state_dict().items():
        found = tensors.get(name)
        if found is not None and found.is_floating_point() != expected.is_floating_point():
            raise CheckpointError(
                f"{path} doesn't fit its configuration: {name} is {found.dtype}, "
                f"{quantization.method} has {expected.dtype} there"
            )


def plain_keys(model: CausalLM) -> Mapping[str, Tensor]:
    """Return the state that `load_state_dict` is to fill: all but bitsandbytes' layers."""
    inside = tuple(f"{name}." for name, module in model.named_modules() if _is_bnb(module))
    return {k: v for k, v in model.state_dict().items() if not k.startswith(inside)}


def original_record(original: Path, target: Path, *, sha256: str) -> str:
    """Return the content of original.json; the relative path survives moving the whole tree."""
    record = {
        "path": str(original.resolve()),
        "relative_path": os.path.relpath(original.resolve(), target.resolve()),
        "sha256": sha256,
    }
    return json.dumps(record, indent=2, ensure_ascii=False) + "\n"


def original_of(directory: Path) -> str:
    """Say in a few words where the plain weights of a quantised checkpoint are."""
    try:
        record: dict[str, Any] = json.loads((directory / ORIGINAL).read_text(encoding="utf-8"))
        moved = (directory / str(record["relative_path"])).resolve()
        return str(moved if moved.is_dir() else record["path"])
    except (OSError, ValueError, KeyError, TypeError):
        return "the checkpoint that it was made from"


def refuse_quantized(model: CausalLM, directory: Path, *, verb: str) -> None:
    """Refuse a quantised model where plain weights are needed.

    Args:
        model: what was loaded.
        directory: from where.
        verb: what can't be done with it, for the message: "trained".

    Raises:
        CheckpointError: names the original.
    """
    if model.quantization is not None:
        raise CheckpointError(
            f"{directory} is quantised ({model.quantization.method}) and can't be {verb}: "
            f"take its original, {original_of(directory)}"
        )


def _fill_bnb(model: CausalLM, method: str, tensors: dict[str, Tensor], path: Path) -> None:
    linears = {n: m for n, m in model.named_modules() if isinstance(m, nn.Linear)}
    for name, linear in linears.items():
        if name == "lm_head":
            continue
        prefix = f"{name}."
        own = {k: tensors.pop(k) for k in list(tensors) if k.startswith(prefix)}
        own = {key.removeprefix(prefix): tensor for key, tensor in own.items()}
        shape = (linear.out_features, linear.in_features)
        try:
            replace_module(model, name, bnb.from_tensors(method, shape, own))
        except CheckpointError as error:
            raise CheckpointError(f"{path}: {name} is {error}") from error


def _is_bnb(module: nn.Module) -> bool:
    return type(module).__module__.startswith("bitsandbytes.") and isinstance(module, nn.Linear)


def cast(tensors: Mapping[str, Tensor], dtype: torch.dtype | None) -> dict[str, Tensor]:
    """Return the tensors with those of floating point in `dtype`; None leaves them."""
    if dtype is None:
        return dict(tensors)
    return {k: t.to(dtype) if t.is_floating_point() else t for k, t in tensors.items()}
