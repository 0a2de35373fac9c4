"""GGUF types: which ggml type each tensor gets, and its numbers in that type.

The mixtures (`q4_k_m` and the like) are llama.cpp's own: the output matrix and every second or
third of the most sensitive matrices get more bits. K-quants come in blocks of 256 columns; a matrix
whose row isn't a multiple of that gets llama.cpp's replacement of about the same size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from minimind.errors import ExportError, did_you_mean, require
from minimind.export import llamacpp


@dataclass(frozen=True, slots=True, kw_only=True)
class FileType:
    """What a `--type` means.

    Attributes:
        number: `general.file_type`, llama.cpp's `llama_ftype`.
        base: ggml type of most matrices.
        output: of the matrix that makes the logits (the embedding, where they are tied).
        more: of the value and down projections in the layers that `use_more_bits` picks.
    """

    number: int
    base: str
    output: str
    more: str | None = None


FILE_TYPES: dict[str, FileType] = {
    "f32": FileType(number=0, base="F32", output="F32"),
    "f16": FileType(number=1, base="F16", output="F16"),
    "bf16": FileType(number=32, base="BF16", output="BF16"),
    "q8_0": FileType(number=7, base="Q8_0", output="Q8_0"),
    "q6_k": FileType(number=18, base="Q6_K", output="Q6_K"),
    "q5_k_m": FileType(number=17, base="Q5_K", output="Q6_K", more="Q6_K"),
    "q4_k_m": FileType(number=15, base="Q4_K", output="Q6_K", more="Q6_K"),
    "q4_0": FileType(number=2, base="Q4_0", output="Q6_K"),
}

_WRITTEN_HERE = ("F32", "F16", "BF16", "Q8_0")
_REPLACEMENTS = {"Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0"}
"""For rows that aren't a multiple of 256 columns; llama.cpp's choice."""


_SENSITIVE = ("attn_v", "ffn_down", "ffn_down_exps")


def file_type(name: str) -> FileType:
    """Return what a `--type` means.

    Raises:
        ExportError: there is no such type.
    """
    if name not in FILE_TYPES:
        raise ExportError(
            f"--type {name!r} is not a type.{did_you_mean(name, FILE_TYPES)} "
            f"There are: {', '.join(FILE_TYPES)}"
        )
    return FILE_TYPES[name]


def needs_quantiser(name: str) -> bool:
    """Tell whether a `--type` can only be written with llama.cpp's own code."""
    kind = FILE_TYPES[name]
    return any(t not in _WRITTEN_HERE for t in (kind.base, kind.output, kind.more) if t)


def use_more_bits(layer: int, layers: int) -> bool:
    """Tell whether a layer is one of those that llama.cpp's `_M` mixtures spare.

    The first and the last eighth of them, and every third in between.
    """
    eighth = layers // 8
    return layer < eighth or layer >= 7 * layers // 8 or (layer - eighth) % 3 == 2


def tensor_type(
    kind: FileType, name: str, shape: tuple[int, ...], *, layers: int, tied: bool
) -> str:
    """Return the ggml type of one tensor.

    Args:
        kind: of the file.
        name: the GGUF name, for example `blk.3.attn_v.weight`.
        shape: (rows, columns), (columns,), or (experts, rows, columns).
        layers: how many layers the model has.
        tied: the embedding is the output matrix too.
    """
    parts = name.split(".")
    if len(shape) == 1 or "ffn_gate_inp" in parts:  # a router decides: llama.cpp keeps it whole
        return "F32"
    wanted = kind.base
    if name == "output.weight" or (tied and name == "token_embd.weight"):
        wanted = kind.output
    elif kind.more and parts[0] == "blk" and parts[2] in _SENSITIVE:
        wanted = kind.more if use_more_bits(int(parts[1]), layers) else kind.base
    gguf = require("gguf", extra="gguf")
    for _ in range(2):
        block = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[wanted]][0]
        if shape[-1] % block == 0:
            return wanted
        wanted = _REPLACEMENTS.get(wanted, "F16")
    return "F16"


def to_ggml(values: np.ndarray, ggml_type: str) -> np.ndarray:
    """Return float32 numbers in a ggml type: floats, or the bytes of blocks row by row.

    Raises:
        MissingExtraError: the type needs llama.cpp's quantiser, which isn't installed.
    """
    gguf = require("gguf", extra="gguf")
    kind = gguf.GGMLQuantizationType[ggml_type]
    if ggml_type in _WRITTEN_HERE:
        return gguf.quants.quantize(values, kind)
    rows = llamacpp.quantise(values.reshape(-1, values.shape[-1]), int(kind))
    return rows.reshape(*values.shape[:-1], -1)


def from_ggml(tensor: Any) -> np.ndarray:
    """Return the float32 numbers of a tensor of a `gguf.GGUFReader`, in the shape they had."""
    gguf = require("gguf", extra="gguf")
    values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
    return np.array(values, dtype=np.float32).reshape(tuple(reversed(tensor.shape.tolist())))
