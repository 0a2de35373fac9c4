"""The tokenizer of a .gguf file, from the file's own metadata."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from minimind.errors import CheckpointError, require
from minimind.importing.gguf_vocabulary import PRE_TOKENIZERS, gguf_tokenizer
from minimind.tokenizer import SPECIAL_TOKENS, Tokenizer

OURS = "qwen2"
"""The name in GGUF of our pre-tokenizer's pattern."""


def tokenizer_of(path: Path) -> Tokenizer:
    """Return the tokenizer whose vocabulary and merges a file holds.

    For our own models it gives the ids of the checkpoint's tokenizer, and the chat format with its
    protection against special tokens in messages; for other makers' models what `minimind import`
    would make of the file.

    Raises:
        CheckpointError: the file can't be read.
        TokenizerError: its vocabulary is of a kind that isn't known here.
        MissingExtraError: the package gguf is missing.
    """
    gguf = require("gguf", extra="gguf")
    try:
        fields = gguf.GGUFReader(path).fields
        values = {name: field.contents() for name, field in fields.items()}
    except (ValueError, IndexError, KeyError, OSError) as error:
        raise CheckpointError(f"{path} is truncated or no GGUF file: {error}") from error
    tokens = values.get("tokenizer.ggml.tokens", [])
    if (
        tuple(tokens[: len(SPECIAL_TOKENS)]) == SPECIAL_TOKENS
        and values.get("tokenizer.ggml.pre") == OURS
    ):
        return Tokenizer(_tokenizer_json(values), origin=str(path))
    return gguf_tokenizer(values, origin=str(path))


def _tokenizer_json(values: dict[str, Any]) -> str:
    import tokenizers
    from tokenizers import decoders, models

    vocab = {token: number for number, token in enumerate(values["tokenizer.ggml.tokens"])}
    pairs = [tuple(merge.split(" ")) for merge in values["tokenizer.ggml.merges"]]
    # llama.cpp wants at least one merge; a vocabulary without any is written with one that can't be
    merges = [pair for pair in pairs if "".join(pair) in vocab]
    backend = tokenizers.Tokenizer(models.BPE(vocab=vocab, merges=merges))
    backend.pre_tokenizer = PRE_TOKENIZERS[OURS]()
    backend.decoder = decoders.ByteLevel()
    return backend.to_str()
