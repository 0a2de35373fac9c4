"""`minimind export hf`: a directory that transformers, vLLM and llama.cpp's converter read.

A checkpoint is such a directory already; an export is one to give away: in the dtype that is
wanted, adapters merged or on their own, without the optimizer's state, and with a model card.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as to_safetensors
from torch import Tensor

from minimind.checkpoint import fingerprint, generation_config, hf_config, kit
from minimind.checkpoint.files import DirectoryWriter
from minimind.errors import ExportError, did_you_mean, require
from minimind.export import model_card, verify_hf
from minimind.export.common import (
    Progress,
    Summary,
    no_progress,
    require_all,
    size_of,
    whole_or_nothing,
)
from minimind.export.loading import ADAPTER_CONFIG, Source, read_source
from minimind.model import adapter_config, lora_state_dict

DTYPES: dict[str, torch.dtype] = {
    "fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16,
}  # fmt: skip


def export_hf(
    checkpoint: str | Path, out: Path, *, dtype: str = "bf16", keep_adapter: bool = False,
    base_name: str | None = None, name: str | None = None, licence: str | None = None,
    verify: bool = True, force: bool = False, progress: Progress = no_progress,
) -> Summary:  # fmt: skip
    """Write a checkpoint as a Hugging Face directory with a model card.

    Args:
        checkpoint: see `minimind.checkpoint.resolve`.
        out: the directory.
        dtype: `fp32`, `bf16` or `fp16`.
        keep_adapter: write LoRA adapters as a PEFT directory instead of merging them.
        base_name: what that directory calls its base model; the base's own path by default.
        name: what the card calls the model; the run's name by default.
        licence: of the weights, as an SPDX identifier, for the card.
        verify: load the result in transformers (and peft) and compare; delete it when it differs.
        force: replace an export that is there.
        progress: told about each step.

    Raises:
        ExportError: `out` can't be written, a wrong dtype, or numbers that fp16 can't hold.
        MissingExtraError: transformers (or peft) isn't installed and `verify` is on.
        VerificationError: transformers computes something else; nothing is left.
    """
    _check_dtype(dtype)
    if verify:
        require("transformers", extra="reference")
        if keep_adapter:
            require("peft", extra="reference")
    progress("reading", 0, 1)
    source = read_source(checkpoint, keep_adapter=keep_adapter)
    if source.model.config.vision is not None:
        return _export_llava(
            source, out, dtype=dtype, verify=verify, force=force, progress=progress
        )
    with whole_or_nothing(out, force=force) as temp:
        temp.mkdir()
        progress("writing", 0, 1)
        tensors = rounded(source, dtype)
        facts = model_card.collect(
            source, name=name or source.name, licence=licence, base_name=base_name
        )
        _write(source, temp, tensors, dtype=dtype, facts=facts, base_name=base_name)
        progress("writing", 1, 1)
        checks = ()
        if verify:
            checks = verify_hf.verify(source, temp, tensors=tensors, progress=progress)
            require_all(checks, target=out)
        files = tuple(sorted(path.name for path in temp.iterdir()))
    notes = ("LoRA adapters were merged into the weights",) if source.merged else ()
    return Summary(
        path=str(out),
        format="peft adapter" if source.lora else "hf",
        dtype=dtype,
        tensors=len(tensors),
        parameters=sum(tensor.numel() for tensor in tensors.values()),
        bytes=size_of(out),
        files=files,
        checks=checks,
        notes=notes,
    )


def _export_llava(
    source: Source, out: Path, *, dtype: str, verify: bool, force: bool, progress: Progress
) -> Summary:
    """Write a model that sees; transformers is needed to write it, not only to check."""
    from minimind.export import llava

    llava.check_source(source)
    with whole_or_nothing(out, force=force) as temp:
        temp.mkdir()
        progress("writing", 0, 1)
        parameters = llava.write(source, temp, dtype=DTYPES[dtype])
        progress("verifying", 0, 1)
        checks = llava.verify(source, temp) if verify else ()
        require_all(checks, target=out)
        files = tuple(sorted(path.name for path in temp.iterdir()))
    return Summary(
        path=str(out), format="hf llava", dtype=dtype, tensors=len(source.model.state_dict()),
        parameters=parameters, bytes=size_of(out), files=files, checks=checks,
        notes=("transformers' LLaVA: image encoder, projector and language model together",),
    )  # fmt: skip


def rounded(source: Source, dtype: str) -> dict[str, Tensor]:
    """Return the tensors to write, in their dtype.

    Raises:
        ExportError: a number that fits fp32 but not the dtype (fp16 ends at 65,504).
    """
    state = lora_state_dict(source.model) if source.lora else source.model.state_dict()
    written: dict[str, Tensor] = {}
    for name, tensor in state.items():
        cast = tensor.detach().cpu().to(DTYPES[dtype]).contiguous()
        if not torch.isfinite(cast).all():
            was = "is not finite" if not torch.isfinite(tensor).all() else "doesn't fit the dtype"
            raise ExportError(
                f"--dtype {dtype}: {name} has a number that {was} (largest "
                f"{tensor.abs().max().item():g}); use --dtype bf16 or fp32, or another checkpoint"
            )
        written[name] = cast
    return written


def _write(
    source: Source, directory: Path, tensors: dict[str, Tensor], *, dtype: str,
    facts: model_card.Facts, base_name: str | None,
) -> None:  # fmt: skip
    writer = DirectoryWriter(directory)
    source.tokenizer.save(directory)
    weights = to_safetensors(tensors, metadata={"format": "pt"})  # transformers wants the metadata
    if source.lora is None:
        torch_name = str(DTYPES[dtype]).removeprefix("torch.")
        config = hf_config(source.model.config, source.tokenizer, dtype=torch_name)
        writer.write("config.json", _json(config))
        writer.write("generation_config.json", _json(generation_config(source.tokenizer)))
        writer.write("model.safetensors", weights)
    else:
        assert source.base is not None
        base = source.base.resolve()
        described = adapter_config(source.lora, base=base_name or str(base))
        writer.write(ADAPTER_CONFIG, _json(described))
        if base_name is None:
            writer.write("base.json", _json({
                "relative_path": os.path.relpath(base, directory.resolve()),
                "sha256": fingerprint(base),
            }))  # fmt: skip
        writer.write("adapter_model.safetensors", weights)
    if facts.kit is not None:
        writer.write(kit.FILE, kit.card_json(facts.kit))
    writer.write("README.md", model_card.render(facts, adapter=source.lora is not None))
    writer.finish()


def _check_dtype(dtype: str) -> None:
    if dtype not in DTYPES:
        raise ExportError(
            f"--dtype {dtype!r} is not a dtype.{did_you_mean(dtype, DTYPES)} "
            f"There are: {', '.join(DTYPES)}"
        )


def _json(values: dict[str, Any]) -> str:
    return json.dumps(values, indent=2, ensure_ascii=False) + "\n"
