"""A GGUF file: metadata to a config.json, tensors dequantised, the tokenizer built again.

The numbers come from the `gguf` package's own dequantisation, the names from its tables, so what is
read here is what llama.cpp reads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from minimind.checkpoint import config_from_hf
from minimind.config import ModelConfig
from minimind.errors import CheckpointError, require
from minimind.importing.gguf_vocabulary import gguf_tokenizer
from minimind.importing.source import Source
from minimind.model import CausalLM

ARCHITECTURES: Final = ("llama", "qwen2", "qwen3")
_PLAIN = {"F32", "F16", "BF16"}


class Metadata:
    """The keys of a GGUF file; a missing one is an error that names it."""

    def __init__(self, values: dict[str, Any], path: Path) -> None:
        self.values, self.path = values, path
        self.architecture = str(values.get("general.architecture"))

    def own(self, key: str, default: Any = None) -> Any:
        """Return `ARCHITECTURE.key`, or `default`; without a default the key must be there.

        Raises:
            CheckpointError: it isn't.
        """
        return self.get(f"{self.architecture}.{key}", default)

    def get(self, key: str, default: Any = None) -> Any:
        """Return a key; see `own`."""
        if key in self.values:
            return self.values[key]
        if default is None:
            raise CheckpointError(f"{self.path}: the metadata lack {key}")
        return default


def read_gguf(
    path: Path, *, template: str | None = None, progress: Callable[[str], None]
) -> Source:
    """Read a model and its tokenizer.

    Args:
        path: the .gguf file, whole (not split).
        template: chat template to use in place of the file's own.
        progress: is told what is being done.

    Raises:
        CheckpointError: another architecture, a variant that ours doesn't have, or damage.
        TokenizerError: a vocabulary of another kind.
        MissingExtraError: the package gguf is missing.
    """
    gguf = require("gguf", extra="gguf")
    try:
        reader = gguf.GGUFReader(path)
        values = {name: field.contents() for name, field in reader.fields.items()}
    except (ValueError, IndexError, KeyError, OSError) as error:
        raise CheckpointError(f"{path} is truncated or no GGUF file: {error}") from error
    metadata = Metadata(values, path)
    if metadata.architecture not in ARCHITECTURES:
        raise CheckpointError(
            f"{path}: general.architecture is {metadata.architecture!r}; "
            f"{', '.join(ARCHITECTURES)} can be imported"
        )
    stored = {tensor.name: tensor for tensor in reader.tensors}
    config = config_from_hf(hf_values(metadata, stored))
    progress(f"{metadata.architecture}: building the tokenizer")
    tokenizer = gguf_tokenizer(metadata.values, template=template, origin=str(path))
    kinds = sorted({tensor.tensor_type.name for tensor in stored.values()})
    progress(f"dequantising {len(stored)} tensors ({', '.join(kinds)})")
    notes = [f"weights were {', '.join(kinds)}"]
    if licence := values.get("general.license"):
        notes.append(f"licence of the weights: {licence}")
    return Source(
        path=path,
        config=config,
        tensors=dict(_tensors(gguf, stored, config, metadata)),
        tokenizer=tokenizer,
        notes=tuple(notes),
    )


def hf_values(metadata: Metadata, stored: dict[str, Any]) -> dict[str, Any]:
    """Return the metadata as a config.json, so that both kinds of file are checked in one place."""
    own = metadata.own
    hidden, heads = own("embedding_length"), own("attention.head_count")
    head_dim = own("attention.key_length", hidden // heads)
    _refuse_variants(metadata, stored, head_dim)
    return {
        "model_type": metadata.architecture,
        "vocab_size": len(metadata.get("tokenizer.ggml.tokens")),
        "hidden_size": hidden,
        "num_hidden_layers": own("block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": own("attention.head_count_kv", heads),
        "head_dim": head_dim,
        "intermediate_size": own("feed_forward_length"),
        "max_position_embeddings": own("context_length"),
        "rms_norm_eps": _as_written(own("attention.layer_norm_rms_epsilon")),
        "tie_word_embeddings": "output.weight" not in stored,
        "attention_bias": "blk.0.attn_output.bias" in stored,
        "rope_parameters": _rope(metadata),
    }


def _as_written(value: float) -> float:
    """Return the shortest number that is this one in 32 bits: 1e-05 rather than 9.99999974e-06."""
    return float(f"{value:.6g}")


def _rope(metadata: Metadata) -> dict[str, Any]:
    own = metadata.own
    kind = own("rope.scaling.type", "none")
    rope = {"rope_theta": _as_written(own("rope.freq_base", 10_000.0))}
    if kind == "none":
        return rope
    rope |= {"rope_type": kind, "factor": own("rope.scaling.factor")}
    if kind == "yarn":
        length = own("rope.scaling.original_context_length")
        rope["original_max_position_embeddings"] = length
    return rope


def _refuse_variants(metadata: Metadata, stored: dict[str, Any], head_dim: int) -> None:
    """Refuse by name what changes the numbers and our model doesn't have."""
    if "rope_freqs.weight" in stored:
        raise CheckpointError(
            f"{metadata.path}: rope_freqs.weight (Llama 3's rope scaling) is not supported"
        )
    wanted = {
        "rope.dimension_count": head_dim,
        "attention.value_length": head_dim,
        "attention.sliding_window": 0,
        "expert_count": 0,
        "rope.scaling.attn_factor": 1.0,
    }
    for key, value in wanted.items():
        found = metadata.values.get(f"{metadata.architecture}.{key}", value)
        if found != value:
            raise CheckpointError(
                f"{metadata.path}: {metadata.architecture}.{key} = {found!r} is not supported; "
                f"only {value!r} is"
            )


def _tensors(
    gguf: Any, stored: dict[str, Any], config: ModelConfig, metadata: Metadata
) -> Iterator[tuple[str, Tensor]]:
    """Yield our names and the numbers; what has no place in our model keeps its GGUF name."""
    with torch.device("meta"):
        names = list(CausalLM(config).state_dict())
    architecture = {str(v): k for k, v in gguf.MODEL_ARCH_NAMES.items()}[metadata.architecture]
    table = gguf.get_tensor_name_map(architecture, config.num_hidden_layers)
    ours = {table.get_name(name, try_suffixes=(".weight", ".bias")): name for name in names}
    plain = all(tensor.tensor_type.name in _PLAIN for tensor in stored.values())
    whole = not plain or any(t.tensor_type.name == "F32" and t.n_elements > 2**16
                             for t in stored.values())  # fmt: skip
    matrices = next((t for t in stored.values() if t.tensor_type.name != "F32"), None)
    dtype = torch.float32
    if not whole and matrices is not None:  # norms are F32 in any file: the matrices decide
        dtype = {"F16": torch.float16, "BF16": torch.bfloat16}[matrices.tensor_type.name]
    for gguf_name, tensor in stored.items():
        try:
            numbers = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        except (NotImplementedError, ValueError) as error:
            raise CheckpointError(
                f"{metadata.path}: {gguf_name} is {tensor.tensor_type.name}, which the package "
                f"gguf can't dequantise ({error})"
            ) from error
        values = torch.from_numpy(numbers.copy()).to(dtype)
        name = ours.get(gguf_name, gguf_name)
        if metadata.architecture == "llama":
            values = _unpermuted(name, values, config)
        yield name, values


def _unpermuted(name: str, values: Tensor, config: ModelConfig) -> Tensor:
    """Undo llama's order of rotary pairs in GGUF: (k, k + K/2) lie side by side there."""
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    kind = name.split(".")[-2] if "." in name else ""
    if kind not in heads:
        return values
    rest = values.shape[1:]
    pairs = values.reshape(heads[kind], config.head_dim // 2, 2, *rest)
    return pairs.transpose(1, 2).reshape(values.shape)
