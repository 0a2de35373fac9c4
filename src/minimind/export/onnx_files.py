"""The directory around the .onnx files, as optimum, transformers.js and onnxruntime-genai want it.

OUT/
    config.json  generation_config.json  genai_config.json
    tokenizer.json  tokenizer_config.json  chat_template.jinja
    onnx/model.onnx  onnx/model_fp16.onnx  onnx/model_quantized.onnx      those that were asked for
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from minimind.checkpoint import generation_config, hf_config
from minimind.config import ModelConfig
from minimind.tokenizer import Tokenizer

FILES = {"fp32": "model.onnx", "fp16": "model_fp16.onnx", "int8": "model_quantized.onnx"}
"""The name of each dtype's file below onnx/, by which transformers.js finds it."""

_JS_DTYPES = {"fp32": "fp32", "fp16": "fp16", "int8": "q8"}
_SMALLEST_FIRST = ("int8", "fp16", "fp32")


def write_files(
    directory: Path, *, config: ModelConfig, tokenizer: Tokenizer, dtypes: Sequence[str]
) -> None:
    """Write everything but the .onnx files."""
    preferred = next(dtype for dtype in _SMALLEST_FIRST if dtype in dtypes)
    values = hf_config(config, tokenizer)
    # What is loaded when a page names no dtype, and (for versions before 4) the cache's dtype.
    values["transformers.js_config"] = {
        "dtype": _JS_DTYPES[preferred],
        "kv_cache_dtype": {"fp16": "float16"},
    }
    tokenizer.save(directory)
    _template_into_config(directory)
    _write(directory / "config.json", values)
    _write(directory / "generation_config.json", generation_config(tokenizer))
    _write(directory / "genai_config.json", genai_config(config, tokenizer, dtype=preferred))


def genai_config(config: ModelConfig, tokenizer: Tokenizer, *, dtype: str) -> dict[str, Any]:
    """Return genai_config.json: how onnxruntime-genai runs the file of `dtype`."""
    stops = list(tokenizer.stop_ids)
    return {
        "model": {
            "type": config.model_type,
            "bos_token_id": tokenizer.document_start_id,
            "eos_token_id": stops,
            "pad_token_id": tokenizer.pad_id,
            "vocab_size": config.vocab_size,
            "context_length": config.max_position_embeddings,
            "decoder": {
                "session_options": {"provider_options": []},
                "filename": f"onnx/{FILES[dtype]}",
                "head_size": config.head_dim,
                "hidden_size": config.hidden_size,
                "num_attention_heads": config.num_attention_heads,
                "num_hidden_layers": config.num_hidden_layers,
                "num_key_value_heads": config.num_key_value_heads,
                "inputs": {
                    "input_ids": "input_ids",
                    "attention_mask": "attention_mask",
                    "position_ids": "position_ids",
                    "past_key_names": "past_key_values.%d.key",
                    "past_value_names": "past_key_values.%d.value",
                },
                "outputs": {
                    "logits": "logits",
                    "present_key_names": "present.%d.key",
                    "present_value_names": "present.%d.value",
                },
            },
        },
        "search": {
            "do_sample": False,
            "max_length": config.max_position_embeddings,
            # The cache grows by being concatenated: past and present can't be one buffer.
            "past_present_share_buffer": False,
        },
    }


def _template_into_config(directory: Path) -> None:
    """Repeat the chat template where readers of a single file look for it."""
    path, template = directory / "tokenizer_config.json", directory / "chat_template.jinja"
    if template.exists():
        values = json.loads(path.read_text(encoding="utf-8"))
        _write(path, values | {"chat_template": template.read_text(encoding="utf-8")})


def _write(path: Path, values: dict[str, Any]) -> None:
    text = json.dumps(values, ensure_ascii=False, indent=2) + "\n"
    path.write_text(text, encoding="utf-8")
