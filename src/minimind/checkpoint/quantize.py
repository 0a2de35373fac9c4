"""Make a quantised checkpoint from a plain one."""

from __future__ import annotations

from pathlib import Path

import torch

from minimind.checkpoint.quantized import refuse_quantized
from minimind.checkpoint.runs import resolve
from minimind.checkpoint.store import load, save
from minimind.model import CausalLM, merge_lora
from minimind.model.quantize import GROUP_SIZE, check_method, quantize_model
from minimind.tokenizer import Tokenizer


def load_plain(path: str | Path, *, dtype: torch.dtype | None = None) -> tuple[CausalLM, Tokenizer]:
    """Load a checkpoint with its adapters merged, on the CPU.

    Raises:
        CheckpointError: there is none, it is damaged, or it is quantised.
    """
    directory = resolve(path)
    model, tokenizer = load(directory, dtype=dtype)
    refuse_quantized(model, directory, verb="quantised again")
    merge_lora(model)
    return model.eval(), tokenizer


def quantize_checkpoint(
    source: str | Path,
    target: str | Path,
    *,
    method: str,
    group_size: int = GROUP_SIZE,
    dtype: torch.dtype = torch.bfloat16,
) -> Path:
    """Quantise a checkpoint into a directory that `load` reads; whole, or not at all.

    Args:
        source: see `resolve`; adapters are merged.
        target: replaced if it is there.
        method: one of `model.quantize.METHODS`.
        group_size: int4: weights that share a scale.
        dtype: of what isn't quantised, and so of the activations.

    Raises:
        CheckpointError: the source can't be used, or the disk is full.
        ConfigError: no such method or group size.
        MissingExtraError: bitsandbytes is not installed.
    """
    check_method(method, group_size=group_size)
    directory = resolve(source)
    # From fp32: rounding to bf16 first would add its error to that of the quantisation.
    model, tokenizer = load_plain(directory, dtype=torch.float32)
    quantize_model(model, method, group_size=group_size)
    return save(target, model=model.to(dtype), tokenizer=tokenizer, original=directory)
