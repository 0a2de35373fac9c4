"""`minimind export gguf`: one file for llama.cpp and Ollama, and an Ollama Modelfile beside it.

The tensors get the names that llama.cpp's own map gives them and stay as they are: qwen3 rotates
pairs (k, k + K/2) as we do, so queries and keys need no permutation.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from minimind.errors import ExportError, require
from minimind.export import llamacpp, ollama, verify_gguf
from minimind.export.common import (
    Progress,
    Summary,
    no_progress,
    require_all,
    size_of,
    whole_or_nothing,
)
from minimind.export.gguf_metadata import (
    architecture_of,
    chat_template_of,
    gguf_tensors,
    refuse_inexpressible,
    write_metadata,
)
from minimind.export.gguf_types import FILE_TYPES, file_type, needs_quantiser, tensor_type, to_ggml
from minimind.export.loading import Source, read_source, refuse_eyes


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What one GGUF file holds.

    Attributes:
        types: ggml type of each tensor, by its GGUF name.
        parameters: numbers in all tensors.
    """

    types: dict[str, str]
    parameters: int


def export_gguf(
    checkpoint: str | Path, out: Path, *, type: str = "f16", name: str | None = None,
    licence: str | None = None, verify: bool = True, force: bool = False,
    progress: Progress = no_progress,
) -> Summary:  # fmt: skip
    """Write a checkpoint as GGUF; LoRA adapters are merged.

    Args:
        checkpoint: see `minimind.checkpoint.resolve`.
        out: the file, which ends in `.gguf`; `NAME.Modelfile` comes beside it.
        type: one of `FILE_TYPES`.
        name: what the model calls itself; the run's name by default.
        licence: of the weights, as an SPDX identifier.
        verify: run the file in llama.cpp and compare; delete it when it differs.
        force: replace a file that is there.
        progress: told about each tensor and check.

    Raises:
        ExportError: llama.cpp can't express the model, or `out` can't be written.
        MissingExtraError: gguf, or the quantiser that the type needs, isn't installed.
        VerificationError: llama.cpp computes something else; nothing is left.
    """
    check_name(out)
    file_type(type)
    require("gguf", extra="gguf")
    if verify or needs_quantiser(type):
        llamacpp.library()  # missing: say so before the work
    source = read_source(checkpoint)
    refuse_eyes(source, format="GGUF")
    refuse_inexpressible(source.model.config, source.tokenizer)
    with whole_or_nothing(out, force=force) as temp:
        written = write_gguf(
            source, temp, type=type, name=name or source.name, licence=licence, progress=progress
        )
        checks = ()
        if verify:
            checks = verify_gguf.verify(source, temp, types=written.types, progress=progress)
            require_all(checks, target=out)
    modelfile = ollama.write_modelfile(out, source.model.config)
    return Summary(
        path=str(out),
        format="gguf",
        dtype=type,
        tensors=len(written.types),
        parameters=written.parameters,
        bytes=size_of(out),
        files=(out.name, modelfile.name),
        checks=checks,
        notes=_notes(source, type, written),
    )


def write_gguf(
    source: Source, path: Path, *, type: str, name: str, licence: str | None = None,
    progress: Progress = no_progress,
) -> Written:  # fmt: skip
    """Write the file itself and bring it to the disk."""
    gguf = require("gguf", extra="gguf")
    config, kind = source.model.config, FILE_TYPES[type]
    writer = gguf.GGUFWriter(path, architecture_of(config).name)
    try:
        write_metadata(writer, config, source.tokenizer, name=name, licence=licence)
        writer.add_file_type(kind.number)
        writer.add_chat_template(chat_template_of(source.directory))
        tensors = gguf_tensors(config, source.model.state_dict())
        types: dict[str, str] = {}
        for done, (tensor_name, tensor) in enumerate(tensors.items()):
            progress(f"writing {type}", done, len(tensors))
            values = as_float32(tensor)
            chosen = tensor_type(
                kind, tensor_name, values.shape,
                layers=config.num_hidden_layers, tied=config.tie_word_embeddings,
            )  # fmt: skip
            types[tensor_name] = chosen
            add_tensor(writer, tensor_name, values, chosen)
        save(writer, path)
    finally:
        writer.close()
    progress(f"writing {type}", len(tensors), len(tensors))
    return Written(types=types, parameters=sum(tensor.numel() for tensor in tensors.values()))


def as_float32(tensor: Tensor) -> np.ndarray:
    """Return a tensor's numbers as contiguous float32."""
    return np.ascontiguousarray(tensor.detach().cpu().float().numpy())


def add_tensor(writer: Any, name: str, values: np.ndarray, ggml_type: str) -> None:
    """Give a `gguf.GGUFWriter` one tensor in a ggml type."""
    gguf = require("gguf", extra="gguf")
    raw = gguf.GGMLQuantizationType[ggml_type]
    writer.add_tensor(name, to_ggml(values, ggml_type), raw_dtype=raw)


def save(writer: Any, path: Path) -> None:
    """Write what a `gguf.GGUFWriter` was given, and bring it to the disk."""
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.flush()
    with path.open("rb") as file:
        os.fsync(file.fileno())


def check_name(out: Path) -> None:
    """Refuse a name that llama.cpp and Ollama don't look for.

    Raises:
        ExportError: it doesn't end in `.gguf`, or is a directory.
    """
    if out.suffix != ".gguf" or out.is_dir():
        raise ExportError(f"{out}: a GGUF export is one file, its name ends in .gguf")


def _notes(source: Source, type: str, written: Written) -> tuple[str, ...]:
    notes = []
    if source.merged:
        notes.append("LoRA adapters were merged into the weights")
    kind = FILE_TYPES[type]
    wanted = {"F32", kind.base, kind.output, kind.more}
    replaced = {t for t in written.types.values() if t not in wanted}
    if replaced:
        count = sum(t in replaced for t in written.types.values())
        notes.append(
            f"{count} matrices have rows that {type}'s blocks don't divide and are "
            f"{', '.join(sorted(replaced))} instead"
        )
    return tuple(notes)
