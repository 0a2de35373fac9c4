"""The llama.cpp backend: a GGUF file instead of a checkpoint, for the last bit of CPU speed.

llama.cpp computes and remembers (`llama_decode`, its memory of sequences); which request runs when,
prefix reuse and sampling are those of the torch backend. Every parameter therefore means the same
there and here. The server inside the `xllamacpp` wheel would have done the batching too, but it
drops the ids and probabilities of tokens that end in half a character, applies presence and
frequency penalties to the prompt as well, and can't spare stop tokens from the repetition penalty.

Axes: B rows, V vocabulary.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from minimind.errors import ConfigError, RunError
from minimind.export.llamacpp import (
    attach_threads,
    last_messages,
    library,
    load_model,
    new_context,
)
from minimind.inference.batch import ALONE_TOKENS
from minimind.inference.batching import BatchBackend

_ALL = -1  # llama.cpp: from the first position, or to the last


class LlamaCppBackend(BatchBackend):
    """Generates with a GGUF file for many requests at once (see `BatchBackend`).

    Args:
        path: the GGUF file.
        slots: how many requests run side by side, each with the model's whole context.
        queue_limit: how many more may wait.
        threads: CPU threads; None: all cores.
        prefill_tokens: prompt tokens read in a step while others decode.
        exact: keys and values in fp32, no flash attention: slower, and closer to the torch backend.

    Raises:
        CheckpointError: llama.cpp can't load the file.
        ConfigError: a number is out of range.
        MissingExtraError: xllamacpp isn't installed, or another version than the tested one.
    """

    def __init__(
        self,
        path: Path,
        *,
        slots: int = 8,
        queue_limit: int = 64,
        threads: int | None = None,
        prefill_tokens: int = 128,
        exact: bool = False,
    ) -> None:
        for name, value in (("slots", slots), ("threads", threads)):
            if value is not None and value < 1:
                raise ConfigError(f"--{name} {value}: must be at least 1")
        rows = LlamaRows(path, count=slots, threads=threads or os.cpu_count() or 1, exact=exact)
        super().__init__(
            rows, kind="llama.cpp", queue_limit=queue_limit, prefill_tokens=prefill_tokens
        )


class _Slots:
    """The arrays of a llama.cpp batch, one sequence a token.

    The pointers are taken once: ctypes makes a new object each time that a struct is asked for one.
    """

    def __init__(self, batch: Any, size: int) -> None:
        self._token, self._position, self._wanted = batch.token, batch.pos, batch.logits
        self._sequence = [batch.seq_id[index] for index in range(size)]
        for index in range(size):
            batch.n_seq_id[index] = 1

    def fill(self, tokens: Sequence[tuple[int, int, int, bool]]) -> None:
        """Put (sequence, position, token, wanted) down."""
        for index, (sequence, position, token, wanted) in enumerate(tokens):
            self._sequence[index][0] = sequence
            self._position[index] = position
            self._token[index] = token
            self._wanted[index] = wanted


class LlamaRows:
    """Rows of tokens in llama.cpp's memory (see `inference.rows.Rows`).

    Each row is one of llama.cpp's sequences; rows are exchanged by renumbering them.
    """

    def __init__(self, path: Path, *, count: int, threads: int, exact: bool) -> None:
        self._lib = lib = library()
        self._model = load_model(path)
        self.count = count
        self.context = self.max_length = int(lib.llama_model_n_ctx_train(self._model))
        self.vocab_size = int(lib.llama_vocab_n_tokens(lib.llama_model_get_vocab(self._model)))
        self.device = torch.device("cpu")
        self._batch_tokens = max(ALONE_TOKENS, count)
        self._context = new_context(
            self._model, n_ctx=count * self.context, n_batch=self._batch_tokens,
            threads=threads, sequences=count, exact=exact,
        )  # fmt: skip
        self._threads = attach_threads(self._context, threads)
        self._memory = lib.llama_get_memory(self._context)
        self._batch = lib.llama_batch_init(self._batch_tokens, 0, 1)
        self._slots = _Slots(self._batch, self._batch_tokens)
        self._sequences = list(range(count))
        self._lengths = [0] * count
        self.nbytes = self._cache_bytes(4 if exact else 2)

    def read(self, first: int, pieces: Sequence[Sequence[int]]) -> Tensor:
        """Append tokens and return logits (see `Rows`)."""
        tokens = [
            (self._sequences[row], self._lengths[row] + number, token, number == len(piece) - 1)
            for row, piece in enumerate(pieces, start=first)
            for number, token in enumerate(piece)
        ]
        logits_BV = torch.empty(len(pieces), self.vocab_size)
        filled = 0
        for begin in range(0, len(tokens), self._batch_tokens):
            filled += self._decode(tokens[begin : begin + self._batch_tokens], logits_BV[filled:])
        for row, piece in enumerate(pieces, start=first):
            self._lengths[row] += len(piece)
        return logits_BV

    def cut(self, row: int, length: int) -> None:
        """Keep the first `length` tokens of a row."""
        # Also when the length is as it was: a decode that failed may have written beyond it.
        if not self._lib.llama_memory_seq_rm(self._memory, self._sequences[row], length, _ALL):
            raise RunError(f"llama.cpp could not cut a row back to {length} tokens")
        self._lengths[row] = length

    def keepable(self, row: int, length: int) -> int:
        """Return `length`: full attention forgets nothing."""
        return length

    def copy_prefix(self, source: int, target: int, length: int) -> None:
        """Make row `target` hold the first `length` tokens of row `source`."""
        to, memory = self._sequences[target], self._memory
        self._lib.llama_memory_seq_rm(memory, to, _ALL, _ALL)
        # Between sequences with buffers of their own llama.cpp copies all or nothing.
        self._lib.llama_memory_seq_cp(memory, self._sequences[source], to, _ALL, _ALL)
        self.cut(target, length)

    def swap(self, a: int, b: int) -> None:
        """Exchange two rows."""
        for numbers in (self._sequences, self._lengths):
            numbers[a], numbers[b] = numbers[b], numbers[a]

    def close(self) -> None:
        """Free model and memory."""
        self._lib.llama_batch_free(self._batch)
        self._lib.llama_detach_threadpool(self._context)
        self._lib.llama_free(self._context)
        self._lib.ggml_threadpool_free(self._threads)
        self._lib.llama_model_free(self._model)

    def _decode(self, tokens: Sequence[tuple[int, int, int, bool]], out_BV: Tensor) -> int:
        """Read (sequence, position, token, wanted) in one pass.

        The logits of those that are wanted go into the first rows of `out_BV`; returns how many.
        """
        self._batch.n_tokens = len(tokens)
        self._slots.fill(tokens)
        code = self._lib.llama_decode(self._context, self._batch)
        if code != 0:
            raise RunError(f"llama_decode failed with {code}: {last_messages()}")
        wanted = [index for index, token in enumerate(tokens) if token[3]]
        size = 4 * self.vocab_size
        for row, index in enumerate(wanted):
            source = self._lib.llama_get_logits_ith(self._context, index)
            ctypes.memmove(out_BV.data_ptr() + row * size, source, size)
        return len(wanted)

    def _cache_bytes(self, number_bytes: int) -> int:
        lib, model = self._lib, self._model
        heads, kv_heads = lib.llama_model_n_head(model), lib.llama_model_n_head_kv(model)
        head_dim = self._metadata("attention.key_length")
        head_dim = int(head_dim) if head_dim else lib.llama_model_n_embd(model) // heads
        positions = self.count * lib.llama_n_ctx_seq(self._context)
        return 2 * lib.llama_model_n_layer(model) * positions * kv_heads * head_dim * number_bytes

    def _metadata(self, key: str) -> str:
        """Return a value of the file's metadata, of the model's architecture; "" if not there."""
        value = ctypes.create_string_buffer(64)
        get = self._lib.llama_model_meta_val_str
        get(self._model, b"general.architecture", value, len(value))
        name = f"{value.value.decode()}.{key}".encode()
        return value.value.decode() if get(self._model, name, value, len(value)) >= 0 else ""
