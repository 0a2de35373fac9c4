"""Save and load a checkpoint directory: the only way in and out for every verb."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import os
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_safetensors
from torch import Tensor

from minimind.checkpoint import kit, vision
from minimind.checkpoint.files import (
    MANIFEST,
    DirectoryWriter,
    atomic_directory,
    read_manifest,
    sha256_of,
    verify,
)
from minimind.checkpoint.huggingface import config_from_hf, generation_config, hf_config
from minimind.checkpoint.quantized import (
    ORIGINAL,
    cast,
    make_places,
    original_record,
    plain_keys,
    refuse_quantized,
)
from minimind.checkpoint.runs import TRAINER_STATE, resolve
from minimind.config import LoraConfig, RunConfig
from minimind.errors import CheckpointError, TokenizerError
from minimind.model import (
    CausalLM,
    adapter_config,
    inject_lora,
    load_lora_state_dict,
    lora_config_from_adapter,
    lora_state_dict,
)
from minimind.model.quantize import Quantization, pack
from minimind.settings import dump_run_config
from minimind.tokenizer import Tokenizer

WEIGHTS = "model.safetensors"
ADAPTER = "adapter_model.safetensors"
_ADAPTER_CONFIG = "adapter_config.json"
_BASE = "base.json"


def save(
    directory: str | Path,
    *,
    model: CausalLM,
    tokenizer: Tokenizer,
    run: RunConfig | None = None,
    trainer_state: dict[str, Any] | None = None,
    base: str | Path | None = None,
    original: str | Path | None = None,
    also: Callable[[Path], None] | None = None,
) -> Path:
    """Write a checkpoint that Hugging Face loads as it is; whole, or not at all.

    Args:
        directory: replaced if it is there.
        model: its weights are written in the dtype they have.
        tokenizer: written beside them.
        run: written as run.toml, and its domain kit as kit.json.
        trainer_state: builtins and tensors only: it is read with `weights_only=True`.
        base: the checkpoint directory that LoRA adapters were injected into. With it only the
            adapters are written, as PEFT writes them; `run.lora` says which they are.
        original: the checkpoint directory whose quantised weights these are.
        also: writes more into the directory before it is whole.

    Raises:
        CheckpointError: the disk is full; what was there before is untouched.
        TokenizerError: the tokenizer has more tokens than the model has embeddings.
    """
    check_vocabulary(tokenizer, model.config.vocab_size)
    target = Path(directory)
    with atomic_directory(target) as writer:
        tokenizer.save(writer.directory)
        if base is None:
            _write_model(writer, model, tokenizer)
            if original is not None:
                sha256 = fingerprint(Path(original))
                writer.write(ORIGINAL, original_record(Path(original), target, sha256=sha256))
        else:
            if run is None or run.lora is None:
                raise CheckpointError("to save adapters, give the run whose [lora] they have")
            _write_adapter(writer, model, run.lora, base=Path(base), target=target)
        if run is not None:
            writer.write("run.toml", dump_run_config(run))
            if run.kit is not None:
                writer.write(kit.FILE, kit.card_json(kit.card_of(run.kit)))
        if trainer_state is not None:
            buffer = io.BytesIO()
            torch.save(trainer_state, buffer)
            writer.write(TRAINER_STATE, buffer.getvalue())
        if also is not None:
            also(writer.directory)
    return target


def load(
    path: str | Path, *, device: torch.device | str = "cpu", dtype: torch.dtype | None = None
) -> tuple[CausalLM, Tokenizer]:
    """Read a checkpoint; a directory of adapters loads its base and injects them.

    Args:
        path: see `resolve`.
        device: where the weights go.
        dtype: of the weights; None keeps what was saved.

    Returns:
        The model in eval mode, and its tokenizer.

    Raises:
        CheckpointError: there is none, it is damaged, or its tensors are not those of its config.
        TokenizerError: its tokenizer has more tokens than the model has embeddings.
    """
    directory = resolve(path)
    if (directory / _ADAPTER_CONFIG).exists():
        return _load_adapter(directory, device=device, dtype=dtype)
    values = read_json(directory / "config.json")
    tensors = read_tensors(directory / WEIGHTS, device=device)
    tokenizer = Tokenizer.load(directory)
    values, quantization = Quantization.unmark(values)
    values, eyes = vision.unmark(values)
    config = config_from_hf(values)
    if eyes is not None:
        config = dataclasses.replace(config, vision=eyes)
        tensors |= read_tensors(directory / vision.FILE, device=device)
    check_vocabulary(tokenizer, config.vocab_size)
    with torch.device("meta"):  # no time spent on drawing weights that are replaced at once
        model = CausalLM(config)
    if config.tie_word_embeddings:
        tensors.pop("lm_head.weight", None)  # some writers store the tied head a second time
    if quantization is not None:
        make_places(model, quantization, tensors, directory / WEIGHTS)
    check_tensors(tensors, plain_keys(model), directory / WEIGHTS)
    # Not strict, as bitsandbytes' layers are filled already; the names were compared above.
    model.load_state_dict(cast(tensors, dtype), strict=False, assign=True)
    pack(model)
    return model.eval(), tokenizer


def load_trainer_state(directory: str | Path) -> dict[str, Any]:
    """Return the trainer state of a checkpoint directory, on the CPU.

    Raises:
        CheckpointError: it has none (only training checkpoints do), or it is damaged.
    """
    path = Path(directory) / TRAINER_STATE
    if not path.exists():
        raise CheckpointError(
            f"{directory} has no {TRAINER_STATE}: training can start from it "
            "(--init.checkpoint) but not resume"
        )
    listed = (read_manifest(path.parent) or {}).get(TRAINER_STATE)
    if listed is not None and sha256_of(path) != listed["sha256"]:
        raise CheckpointError(f"{path} is corrupted: its sha256 is not the one in {MANIFEST}.")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise CheckpointError(f"{path} is damaged: {error}") from error


def fingerprint(directory: Path) -> str:
    """Return the sha256 of a checkpoint's weights: what an adapter knows its base by."""
    name = WEIGHTS if (directory / WEIGHTS).exists() else ADAPTER
    listed = (read_manifest(directory) or {}).get(name)
    whole = str(listed["sha256"]) if listed else sha256_of(directory / name)
    if not (directory / vision.FILE).exists():
        return whole
    both = whole + sha256_of(directory / vision.FILE)
    return hashlib.sha256(both.encode()).hexdigest()


def weights_size(directory: Path) -> int:
    """Return the bytes of a checkpoint's weights on disk."""
    name = WEIGHTS if (directory / WEIGHTS).exists() else ADAPTER
    return (directory / name).stat().st_size


def check_vocabulary(tokenizer: Tokenizer, vocab_size: int) -> None:
    """Refuse a tokenizer with ids that the model has no embedding for.

    Raises:
        TokenizerError: says both sizes and what to change.
    """
    if tokenizer.vocab_size > vocab_size:
        raise TokenizerError(
            f"the tokenizer has {tokenizer.vocab_size:,} tokens, the model {vocab_size:,} "
            "embeddings: they don't belong together. Take the tokenizer that the model was trained "
            f"with, or train a model with --model.vocab-size {tokenizer.vocab_size}."
        )


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file of a checkpoint."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} is missing.") from error
    except ValueError as error:
        raise CheckpointError(f"{path} is not JSON: {error}") from error


def read_tensors(path: Path, *, device: torch.device | str = "cpu") -> dict[str, Tensor]:
    """Read all tensors of a safetensors file."""
    if not path.exists():
        raise CheckpointError(f"{path} is missing.")
    try:
        with safe_open(path, framework="pt", device=str(device)) as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise CheckpointError(f"{path} is truncated or corrupted: {error}") from error


def _write_model(writer: DirectoryWriter, model: CausalLM, tokenizer: Tokenizer) -> None:
    tensors, eyes = vision.parted(model.state_dict())
    dtype = str(model.model.norm.weight.dtype).removeprefix("torch.")
    values = vision.mark(hf_config(model.config, tokenizer, dtype=dtype), model.config)
    if model.quantization is not None:
        values = model.quantization.mark(values)
    writer.write("config.json", _json(values))
    writer.write("generation_config.json", _json(generation_config(tokenizer)))
    writer.write(WEIGHTS, _safetensors(tensors))
    if eyes:
        writer.write(vision.FILE, _safetensors(eyes))


def _write_adapter(
    writer: DirectoryWriter, model: CausalLM, lora: LoraConfig, *, base: Path, target: Path
) -> None:
    base = base.resolve()
    # The relative path finds the base again after the whole tree was moved.
    relative = os.path.relpath(base, target.resolve())
    writer.write(_ADAPTER_CONFIG, _json(adapter_config(lora, base=str(base))))
    writer.write(_BASE, _json({"relative_path": relative, "sha256": fingerprint(base)}))
    writer.write(ADAPTER, _safetensors(lora_state_dict(model)))


def _load_adapter(
    directory: Path, *, device: torch.device | str, dtype: torch.dtype | None
) -> tuple[CausalLM, Tokenizer]:
    base = base_of(directory)
    model, _ = load(base, device=device, dtype=dtype)
    refuse_quantized(model, base, verb="the base of adapters")
    inject_lora(model, lora_config_from_adapter(read_json(directory / _ADAPTER_CONFIG)))
    tensors = read_tensors(directory / ADAPTER, device=device)
    check_tensors(tensors, lora_state_dict(model), directory / ADAPTER)
    load_lora_state_dict(model, tensors)
    return model.eval(), Tokenizer.load(directory)


def base_of(directory: Path) -> Path:
    """Return the checkpoint that a directory of adapters was trained on.

    Raises:
        CheckpointError: it is gone, or its weights are not those that the adapters were made for.
    """
    named = Path(str(read_json(directory / _ADAPTER_CONFIG)["base_model_name_or_path"]))
    record = read_json(directory / _BASE) if (directory / _BASE).exists() else {}
    moved = (directory / str(record.get("relative_path", named))).resolve()
    base = next((path for path in (named, moved) if path.is_dir()), None)
    if base is None:
        raise CheckpointError(
            f"{directory} holds LoRA adapters of {named}, which is not there: put that checkpoint "
            "back; the adapters alone are not a model."
        )
    verify(base, skip=frozenset({TRAINER_STATE}))
    if record and fingerprint(base) != record["sha256"]:
        raise CheckpointError(
            f"{directory} holds LoRA adapters of another model than {base}: its weights have "
            f"sha256 {fingerprint(base)[:12]}, the adapters were made for {record['sha256'][:12]}."
        )
    return base


def check_tensors(found: Mapping[str, Tensor], expected: Mapping[str, Tensor], path: Path) -> None:
    """Refuse a file whose tensors are not exactly those of the model.

    Raises:
        CheckpointError: names what is missing, unexpected, or of another shape.
    """
    problems = [f"missing {name}" for name in sorted(expected.keys() - found.keys())]
    problems += [f"unexpected {name}" for name in sorted(found.keys() - expected.keys())]
    problems += [
        f"{name} is {tuple(found[name].shape)} instead of {tuple(expected[name].shape)}"
        for name in sorted(expected.keys() & found.keys())
        if found[name].shape != expected[name].shape
    ]
    if problems:
        shown = "; ".join(problems[:8]) + (
            f"; and {len(problems) - 8} more" if problems[8:] else ""
        )
        raise CheckpointError(f"{path} doesn't fit its configuration: {shown}")


def _safetensors(tensors: Mapping[str, Tensor]) -> bytes:
    # transformers refuses a file without this metadata.
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    return to_safetensors(plain, metadata={"format": "pt"})


def _json(values: dict[str, Any]) -> str:
    return json.dumps(values, indent=2, ensure_ascii=False) + "\n"
