"""The real llama.cpp, as the `xllamacpp` wheel carries it, called through its C interface.

The wheel's Python side is a server; the checks here and `serve.llamacpp` need what lies under it:
token ids, the logits of a position, one tensor quantised. All of it is exported by the wheel's
shared library.

llama.cpp passes its settings as C structs by value, and their layout grows from version to version.
Only a handful of fields is set, at the offsets below, and only after the library's own defaults
were found at them: another layout is an error that names the version to install, never a crash.
"""

from __future__ import annotations

import ctypes
import functools
import struct
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from minimind.errors import CheckpointError, MissingExtraError, RunError, require

TESTED_VERSION = "2026.10.11549"
"""The xllamacpp whose struct layouts are written down here."""

_Struct = type("_Struct", (ctypes.Structure,), {"_fields_": [("bytes", ctypes.c_ubyte * 512)]})
"""Room for any settings struct: only its first bytes have a meaning to the callee."""

_MODEL_GPU_LAYERS = 16
_N_CTX, _N_BATCH, _N_UBATCH, _N_SEQ_MAX = 0, 4, 8, 12
_THREADS, _THREADS_BATCH, _FLASH_ATTENTION, _TYPE_K, _TYPE_V = 28, 32, 52, 104, 108
_CONTEXT_DEFAULTS = {
    _N_CTX: 512, _N_BATCH: 2048, _N_UBATCH: 512, _N_SEQ_MAX: 1, 40: -1, 44: -1, 48: -1,
    _FLASH_ATTENTION: -1, _TYPE_K: 1, _TYPE_V: 1,
}  # fmt: skip
_F32 = 0  # ggml's number of the type


class _Batch(ctypes.Structure):
    _fields_ = [
        ("n_tokens", ctypes.c_int32),
        ("token", ctypes.POINTER(ctypes.c_int32)),
        ("embd", ctypes.POINTER(ctypes.c_float)),
        ("pos", ctypes.POINTER(ctypes.c_int32)),
        ("n_seq_id", ctypes.POINTER(ctypes.c_int32)),
        ("seq_id", ctypes.POINTER(ctypes.POINTER(ctypes.c_int32))),
        ("logits", ctypes.POINTER(ctypes.c_int8)),
    ]


_P, _I, _B = ctypes.c_void_p, ctypes.c_int32, ctypes.c_bool
_SIGNATURES: dict[str, tuple[Any, list[Any]]] = {
    "llama_backend_init": (None, []),
    "llama_log_set": (None, [_P, _P]),
    "llama_model_default_params": (_Struct, []),
    "llama_context_default_params": (_Struct, []),
    "llama_model_load_from_file": (_P, [ctypes.c_char_p, _Struct]),
    "llama_model_free": (None, [_P]),
    "llama_model_get_vocab": (_P, [_P]),
    "llama_model_n_ctx_train": (_I, [_P]),
    "llama_init_from_model": (_P, [_P, _Struct]),
    "llama_free": (None, [_P]),
    "llama_get_memory": (_P, [_P]),
    "llama_memory_clear": (None, [_P, _B]),
    "llama_memory_seq_rm": (_B, [_P, _I, _I, _I]),
    "llama_memory_seq_cp": (None, [_P, _I, _I, _I, _I]),
    "llama_model_n_layer": (_I, [_P]),
    "llama_model_n_embd": (_I, [_P]),
    "llama_model_n_head": (_I, [_P]),
    "llama_model_n_head_kv": (_I, [_P]),
    "llama_model_meta_val_str": (_I, [_P, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_size_t]),
    "llama_n_ctx_seq": (ctypes.c_uint32, [_P]),
    "llama_vocab_n_tokens": (_I, [_P]),
    "llama_vocab_is_eog": (_B, [_P, _I]),
    "llama_tokenize": (_I, [_P, ctypes.c_char_p, _I, ctypes.POINTER(_I), _I, _B, _B]),
    "llama_batch_init": (_Batch, [_I, _I, _I]),
    "llama_batch_free": (None, [_Batch]),
    "llama_decode": (_I, [_P, _Batch]),
    "llama_get_logits_ith": (ctypes.POINTER(ctypes.c_float), [_P, _I]),
    "ggml_threadpool_params_init": (None, [_P, ctypes.c_int]),
    "ggml_threadpool_new": (_P, [_P]),
    "ggml_threadpool_free": (None, [_P]),
    "llama_attach_threadpool": (None, [_P, _P, _P]),
    "llama_detach_threadpool": (None, [_P]),
    "llama_adapter_lora_init": (_P, [_P, ctypes.c_char_p]),
    "llama_set_adapters_lora": (
        _I, [_P, ctypes.POINTER(_P), ctypes.c_size_t, ctypes.POINTER(ctypes.c_float)]
    ),
    "ggml_quantize_chunk": (
        ctypes.c_size_t, [_I, _P, _P, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64, _P]
    ),
    "ggml_row_size": (ctypes.c_size_t, [_I, ctypes.c_int64]),
}  # fmt: skip

_messages: list[str] = []
_LOG = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, _P)


@_LOG
def _remember(level: int, text: bytes, _: int) -> None:
    if level >= 3:  # warnings and errors, and lines that continue them
        _messages.append(text.decode(errors="replace").strip())
        del _messages[:-20]


@functools.cache
def library() -> ctypes.CDLL:
    """Load llama.cpp; its messages are kept for errors instead of printed.

    Raises:
        MissingExtraError: xllamacpp isn't installed, or is one whose library isn't known.
    """
    require("xllamacpp", extra="gguf")
    module = sys.modules["xllamacpp.xllamacpp"]
    lib = ctypes.CDLL(str(module.__file__))
    for name, (result, arguments) in _SIGNATURES.items():
        try:
            function = getattr(lib, name)
        except AttributeError:
            raise _unknown_library(f"it has no {name}") from None
        function.restype, function.argtypes = result, arguments
    defaults = bytes(lib.llama_context_default_params().bytes)
    for offset, value in _CONTEXT_DEFAULTS.items():
        if _read(defaults, offset) != value:
            raise _unknown_library("its settings are laid out differently")
    if _read(bytes(lib.llama_model_default_params().bytes), _MODEL_GPU_LAYERS) != -1:
        raise _unknown_library("its settings are laid out differently")
    lib.llama_log_set(_remember, None)
    lib.llama_backend_init()
    return lib


def quantise(rows: np.ndarray, ggml_type: int) -> np.ndarray:
    """Quantise (rows, columns) float32 to ggml blocks with llama.cpp's own code.

    Args:
        rows: C-contiguous; its columns are a multiple of the type's block.
        ggml_type: ggml's number, that of `gguf.GGMLQuantizationType`.

    Returns:
        (rows, bytes a row) uint8.
    """
    lib = library()
    count, columns = rows.shape
    source = np.ascontiguousarray(rows, dtype=np.float32)
    out = np.empty((count, lib.ggml_row_size(ggml_type, columns)), dtype=np.uint8)
    written = lib.ggml_quantize_chunk(
        ggml_type, source.ctypes.data, out.ctypes.data, 0, count, columns, None
    )
    if written != out.nbytes:
        raise RunError(f"llama.cpp wrote {written:,} bytes for a tensor, {out.nbytes:,} expected")
    return out


def load_model(path: Path) -> int:
    """Load a GGUF file for the CPU; return llama.cpp's model, to be freed with `llama_model_free`.

    Raises:
        CheckpointError: llama.cpp can't load it; has its own words.
    """
    lib = library()
    _messages.clear()
    settings = lib.llama_model_default_params()
    _write(settings, _MODEL_GPU_LAYERS, 0)
    model = lib.llama_model_load_from_file(str(path).encode(), settings)
    if not model:
        raise CheckpointError(f"llama.cpp can't load {path}: {last_messages()}")
    return model


def new_context(
    model: int, *, n_ctx: int, n_batch: int, threads: int, sequences: int = 1, exact: bool = False
) -> int:
    """Make llama.cpp's working memory for a model; the model is freed if that fails.

    Args:
        model: from `load_model`.
        n_ctx: positions of all sequences together; each gets an equal share.
        n_batch: tokens that one `llama_decode` may have.
        threads: CPU threads.
        sequences: how many independent rows of tokens there are.
        exact: F32 cache and no flash attention, so that runs repeat; llama.cpp's defaults if not.

    Raises:
        CheckpointError: llama.cpp can't run it; has its own words.
    """
    lib = library()
    settings = lib.llama_context_default_params()
    fields = {
        _N_CTX: n_ctx, _N_BATCH: n_batch, _N_UBATCH: min(n_batch, 512), _N_SEQ_MAX: sequences,
        _THREADS: threads, _THREADS_BATCH: threads,
    }  # fmt: skip
    if exact:
        fields |= {_FLASH_ATTENTION: 0, _TYPE_K: _F32, _TYPE_V: _F32}
    for offset, value in fields.items():
        _write(settings, offset, value)
    context = lib.llama_init_from_model(model, settings)
    if not context:
        lib.llama_model_free(model)
        raise CheckpointError(f"llama.cpp can't run the model: {last_messages()}")
    return context


def attach_threads(context: int, threads: int) -> int:
    """Give a context threads that stay between decodes; return the pool, to be freed after it.

    Without them llama.cpp starts and ends its threads at every token (0.6 ms of 3.4 at 64M, q4_0).
    """
    lib = library()
    settings = _Struct()  # ggml_threadpool_params: 512 bytes of CPU mask, then five small numbers
    ctypes.resize(settings, 1024)
    lib.ggml_threadpool_params_init(ctypes.byref(settings), threads)
    pool = lib.ggml_threadpool_new(ctypes.byref(settings))
    lib.llama_attach_threadpool(context, pool, pool)
    return pool


class LlamaCpp:
    """A GGUF file in llama.cpp on the CPU: F32 cache, no flash attention, so that runs repeat.

    Args:
        path: the GGUF file.
        n_ctx: positions of the cache; None: the model's own context length.
        threads: CPU threads.

    Raises:
        CheckpointError: llama.cpp can't load it; has its own words.
    """

    def __init__(self, path: Path, *, n_ctx: int | None = None, threads: int = 1) -> None:
        self._lib = lib = library()
        self._context: int | None = None
        self._model = load_model(path)
        self._vocab = lib.llama_model_get_vocab(self._model)
        self.n_ctx = n_ctx or int(lib.llama_model_n_ctx_train(self._model))
        self._context = new_context(
            self._model, n_ctx=self.n_ctx, n_batch=self.n_ctx, threads=threads, exact=True
        )
        self._batch = lib.llama_batch_init(self.n_ctx, 0, 1)

    @property
    def vocab_size(self) -> int:
        """Return the number of tokens, unused ones included."""
        return int(self._lib.llama_vocab_n_tokens(self._vocab))

    def is_end(self, token: int) -> bool:
        """Tell whether llama.cpp ends a generation at this token."""
        return bool(self._lib.llama_vocab_is_eog(self._vocab, token))

    def tokenize(self, text: str, *, parse_special: bool = False) -> list[int]:
        """Return the ids of a text, without anything added around it.

        Args:
            text: any; NUL characters too.
            parse_special: control tokens that the text spells become their ids.
        """
        data = text.encode("utf-8")
        ids = (ctypes.c_int32 * max(1, len(data)))()
        arguments = (self._vocab, data, len(data), ids, len(ids), False, parse_special)
        count = self._lib.llama_tokenize(*arguments)
        if count < 0:
            raise RunError(f"llama.cpp could not tokenize {text[:40]!r}")
        return list(ids[:count])

    def logits(self, ids: Sequence[int]) -> np.ndarray:
        """Return the logits after each token, (tokens, vocabulary) float32; read in one pass."""
        self._lib.llama_memory_clear(self._lib.llama_get_memory(self._context), True)
        return self._decode(ids, start=0, want=range(len(ids)))

    def greedy(self, prompt: Sequence[int], *, max_new_tokens: int) -> list[int]:
        """Continue with the likeliest token each time, one token a pass, to the end token."""
        self._lib.llama_memory_clear(self._lib.llama_get_memory(self._context), True)
        last = self._decode(prompt, start=0, want=[len(prompt) - 1])[0]
        made: list[int] = []
        while len(made) < max_new_tokens:
            token = int(last.argmax())
            if self.is_end(token):
                break
            made.append(token)
            if len(prompt) + len(made) > self.n_ctx or len(made) == max_new_tokens:
                break
            last = self._decode([token], start=len(prompt) + len(made) - 1, want=[0])[0]
        return made

    def use_adapter(self, path: Path, *, scale: float = 1.0) -> None:
        """Add a LoRA adapter (GGUF) to what follows.

        Raises:
            CheckpointError: llama.cpp refuses it; has its own words.
        """
        _messages.clear()
        adapter = self._lib.llama_adapter_lora_init(self._model, str(path).encode())
        if not adapter:
            raise CheckpointError(f"llama.cpp can't use the adapter {path}: {last_messages()}")
        adapters, scales = (_P * 1)(adapter), (ctypes.c_float * 1)(scale)
        if self._lib.llama_set_adapters_lora(self._context, adapters, 1, scales) != 0:
            raise RunError(f"llama.cpp could not apply {path}: {last_messages()}")

    def close(self) -> None:
        """Free the memory; nothing can be asked afterwards."""
        if self._context:
            self._lib.llama_batch_free(self._batch)
            self._lib.llama_free(self._context)
            self._lib.llama_model_free(self._model)
            self._context = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self.close()

    def _decode(self, ids: Sequence[int], *, start: int, want: Iterable[int]) -> np.ndarray:
        if start + len(ids) > self.n_ctx:
            raise RunError(f"{start + len(ids)} tokens don't fit a context of {self.n_ctx}")
        wanted = list(want)
        self._batch.n_tokens = len(ids)
        for index, token in enumerate(ids):
            self._batch.token[index] = token
            self._batch.pos[index] = start + index
            self._batch.n_seq_id[index] = 1
            self._batch.seq_id[index][0] = 0
            self._batch.logits[index] = 0
        for index in wanted:
            self._batch.logits[index] = 1
        if (code := self._lib.llama_decode(self._context, self._batch)) != 0:
            raise RunError(f"llama_decode failed with {code}: {last_messages()}")
        rows = [self._lib.llama_get_logits_ith(self._context, index) for index in wanted]
        return np.stack([np.ctypeslib.as_array(row, (self.vocab_size,)).copy() for row in rows])


def _read(data: bytes, offset: int) -> int:
    return struct.unpack_from("<i", data, offset)[0]


def _write(settings: Any, offset: int, value: int) -> None:
    struct.pack_into("<i", settings.bytes, offset, value)


def last_messages() -> str:
    """Return llama.cpp's latest warnings and errors."""
    return " ".join(_messages[-4:]) or "it says nothing"


def _unknown_library(what: str) -> MissingExtraError:
    return MissingExtraError(
        f"the installed xllamacpp carries a llama.cpp that isn't known here ({what}): "
        f"pip install xllamacpp=={TESTED_VERSION}, or export with --no-verify in one of the types "
        "f32, f16, bf16, q8_0"
    )
