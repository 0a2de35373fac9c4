"""LoRA adapters as a GGUF file: `llama-cli -m BASE.gguf --lora FILE`, or ADAPTER in a Modelfile."""

from __future__ import annotations

import math
from pathlib import Path

from torch import Tensor

from minimind.config import LoraConfig, ModelConfig
from minimind.errors import ExportError, require
from minimind.export import llamacpp, ollama, verify_gguf
from minimind.export.common import (
    Check,
    Progress,
    Summary,
    no_progress,
    remove,
    require_all,
    size_of,
    whole_or_nothing,
)
from minimind.export.gguf import add_tensor, as_float32, check_name, save, write_gguf
from minimind.export.gguf_metadata import architecture_of, gguf_tensors, refuse_inexpressible
from minimind.export.loading import Source, read_source
from minimind.model import lora_state_dict
from minimind.model.lora import PEFT_PREFIX

ADAPTER_TYPES = ("f32", "f16", "bf16")


def export_gguf_adapter(
    checkpoint: str | Path, out: Path, *, type: str = "f16", name: str | None = None,
    base: Path | None = None, verify: bool = True, force: bool = False,
    progress: Progress = no_progress,
) -> Summary:  # fmt: skip
    """Write the LoRA adapters of a checkpoint as GGUF, without their base.

    Args:
        checkpoint: of a LoRA run; see `minimind.checkpoint.resolve`.
        out: the file, which ends in `.gguf`.
        type: `f32`, `f16` or `bf16`: llama.cpp multiplies adapters in no smaller type.
        name: what the adapter calls itself; the run's name by default.
        base: the base's GGUF. With it a Modelfile is written that joins the two.
        verify: run it in llama.cpp over the base and compare; delete it when it differs.
        force: replace a file that is there.
        progress: told about each step.

    Raises:
        ExportError: a whole model, a type that adapters don't have, or `out` can't be written.
        MissingExtraError: gguf isn't installed, or xllamacpp to verify with.
        VerificationError: llama.cpp computes something else; nothing is left.
    """
    check_name(out)
    if type not in ADAPTER_TYPES:
        raise ExportError(
            f"--type {type!r}: an adapter can be {', '.join(ADAPTER_TYPES)}; "
            "--adapter merge writes the whole model in any type"
        )
    if base is not None and not base.is_file():
        raise ExportError(f"--base {base}: there is no such file; export the base model first")
    require("gguf", extra="gguf")
    if verify:
        llamacpp.library()
    source = read_source(checkpoint, keep_adapter=True)
    refuse_inexpressible(source.model.config, source.tokenizer)
    with whole_or_nothing(out, force=force) as temp:
        tensors = write_adapter(source, temp, type=type, name=name or source.name)
        checks = ()
        if verify:
            checks = _verify(source, temp, type=type, progress=progress)
            require_all(checks, target=out)
    files = [out.name]
    if base is not None:
        files.append(ollama.write_modelfile(out, source.model.config, base=base).name)
    return Summary(
        path=str(out),
        format="gguf adapter",
        dtype=type,
        tensors=len(tensors),
        parameters=sum(tensor.numel() for tensor in tensors.values()),
        bytes=size_of(out),
        files=tuple(files),
        checks=checks,
        notes=(f"belongs on the GGUF of {source.base}",),
    )


def write_adapter(source: Source, path: Path, *, type: str, name: str) -> dict[str, Tensor]:
    """Write the file and return its tensors under their GGUF names."""
    gguf = require("gguf", extra="gguf")
    config, lora = source.model.config, source.lora
    assert lora is not None
    tensors = adapter_tensors(config, lora_state_dict(source.model))
    writer = gguf.GGUFWriter(path, architecture_of(config).name)
    try:
        writer.add_type(gguf.GGUFType.ADAPTER)
        writer.add_name(name)
        writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
        writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, alpha_of(lora))
        for tensor_name, tensor in tensors.items():
            add_tensor(writer, tensor_name, as_float32(tensor), type.upper())
        save(writer, path)
    finally:
        writer.close()
    return tensors


def alpha_of(lora: LoraConfig) -> float:
    """Return the alpha that llama.cpp, which divides it by the rank, makes our scale of."""
    return lora.alpha * math.sqrt(lora.rank) if lora.rslora else lora.alpha


def adapter_tensors(config: ModelConfig, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return adapters (peft's names) under llama.cpp's: NAME.lora_a (R, D), NAME.lora_b (O, R)."""
    renamed: dict[str, Tensor] = {}
    for name, tensor in state.items():
        module, _, which = name.removeprefix(PEFT_PREFIX).removesuffix(".weight").rpartition(".")
        (target,) = gguf_tensors(config, {f"{module}.weight": tensor})
        renamed[f"{target}.{which.lower()}"] = tensor
    return renamed


def _verify(source: Source, path: Path, *, type: str, progress: Progress) -> tuple[Check, ...]:
    """Make the base's f32 GGUF for a moment and run the adapter over it."""
    assert source.base is not None
    below = path.with_name(path.name + ".base")
    try:
        base = read_source(source.base)
        write_gguf(base, below, type="f32", name="base", progress=progress)
        return verify_gguf.verify_adapter(source, base, path, below, exact=type == "f32")
    finally:
        remove(below)
