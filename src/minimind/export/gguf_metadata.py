"""What a GGUF file calls the parts of a model, what it says of them, and what it can't say.

`refuse_inexpressible` knows what llama.cpp's architecture has no words for: writing such a model
would make a file that loads and computes something else.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from minimind.config import ModelConfig
from minimind.errors import ExportError, require
from minimind.tokenizer import SPECIAL_TOKENS, Tokenizer
from minimind.tokenizer.chat import CHAT_TEMPLATE
from minimind.tokenizer.tokenizer import VISIBLE_TOKENS

PRE_TOKENIZER = "qwen2"
"""llama.cpp's name of our pre-tokenizer's pattern."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """How a model family is called in GGUF.

    Attributes:
        name: `general.architecture`.
        tensors: the name of its tensor list in `gguf.MODEL_ARCH`.
    """

    name: str
    tensors: str


ARCHITECTURES: dict[str, Architecture] = {
    "qwen3": Architecture(name="qwen3", tensors="QWEN3"),
    "qwen3_moe": Architecture(name="qwen3moe", tensors="QWEN3MOE"),
}
"""By the `model_type` of a Hugging Face config.json."""


def architecture_of(config: ModelConfig) -> Architecture:
    """Return how the family of a model is called in GGUF.

    Raises:
        ExportError: it is one whose GGUF isn't written here.
    """
    kind = config.model_type if config.moe is None else f"{config.model_type}_moe"
    if kind not in ARCHITECTURES:
        raise ExportError(
            f"GGUF: model_type {kind!r} is not exported here; "
            f"{', '.join(ARCHITECTURES)} is. For a model that was imported, "
            "take the GGUF that its own makers publish"
        )
    return ARCHITECTURES[kind]


def gguf_tensors(config: ModelConfig, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of a model under llama.cpp's names; the experts of a layer are stacked.

    Raises:
        ExportError: a tensor that the architecture has no name for.
    """
    gguf = require("gguf", extra="gguf")
    listed = gguf.MODEL_ARCH[architecture_of(config).tensors]
    names = gguf.get_tensor_name_map(listed, config.num_hidden_layers)
    renamed: dict[str, Tensor] = {}
    for name, tensor in _stacked(state).items():
        new = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if new is None:
            raise ExportError(f"GGUF: llama.cpp's {listed.name} has no tensor for {name}")
        renamed[new] = tensor
    return renamed


_EXPERT = re.compile(r"\.experts\.(\d+)\.")


def expert_number(name: str) -> int | None:
    """Return which expert of its layer a tensor of our state belongs to, if any."""
    found = _EXPERT.search(name)
    return int(found[1]) if found else None


def _stacked(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the state with `experts.0.X`, `experts.1.X`, ... as one `experts.X`, (E, O, I)."""
    joined: dict[str, Tensor] = {}
    experts: dict[str, list[Tensor]] = defaultdict(list)
    for name, tensor in state.items():
        if expert_number(name) is None:
            joined[name] = tensor
        else:  # a state dict has them in order
            experts[_EXPERT.sub(".experts.", name)].append(tensor)
    return joined | {name: torch.stack(parts) for name, parts in experts.items()}


def refuse_inexpressible(config: ModelConfig, tokenizer: Tokenizer) -> None:
    """Refuse a model that llama.cpp would read as another one.

    Raises:
        ExportError: names the setting, its value and what to do.
    """
    architecture_of(config)
    length = config.max_position_embeddings
    windows = [config.window_of(layer) for layer in range(config.num_hidden_layers)]
    short = [window for window in windows if window is not None and window < length]
    if short:
        raise ExportError(
            f"GGUF: sliding_window = {short[0]} is shorter than the context of {length}, and "
            "llama.cpp's qwen3 has no sliding window: it would attend further than the model "
            "learnt to. Export to Hugging Face or ONNX, or train with full attention"
        )
    if config.rope_scaling is not None and config.rope_scaling.rope_type == "dynamic":
        raise ExportError(
            "GGUF: rope_scaling.rope_type = 'dynamic' changes with the length at hand, which "
            "llama.cpp doesn't do. Stretch the checkpoint by yarn or linear instead"
        )
    moe = config.moe
    if moe is not None and not moe.norm_topk_prob:
        raise ExportError(
            "GGUF: model.moe.norm_topk_prob = false, and llama.cpp's qwen3moe always norms the "
            "weights of a token's experts: it would compute something else. Export to Hugging Face"
        )
    if config.attention_bias:
        raise ExportError(
            "GGUF: attention_bias = true, and llama.cpp's qwen3 has no biases in attention. "
            "Export to Hugging Face or ONNX"
        )
    if type(tokenizer) is not Tokenizer:
        raise ExportError(
            "GGUF: the tokenizer is not one of minimind's (the model was imported), and llama.cpp "
            "must know its pre-tokenizer by name. Take the GGUF that the model's makers publish"
        )


def write_metadata(
    writer: Any, config: ModelConfig, tokenizer: Tokenizer, *, name: str, licence: str | None
) -> None:
    """Write names, shape and vocabulary to a `gguf.GGUFWriter`."""
    writer.add_type("model")
    writer.add_name(name)
    writer.add_languages(["zh"])
    if licence is not None:
        writer.add_license(licence)
    writer.add_quantization_version(2)
    _write_shape(writer, config)
    _write_vocabulary(writer, config, tokenizer)


def chat_template_of(directory: Path) -> str:
    """Return the chat template of a checkpoint for programs other than transformers."""
    path = directory / "chat_template.jinja"
    template = path.read_text(encoding="utf-8") if path.exists() else CHAT_TEMPLATE
    return without_generation_marks(template)


def without_generation_marks(template: str) -> str:
    """Take out `{% generation %}` and its end, which only transformers' Jinja knows."""
    return re.sub(r"\{%-?\s*(?:end)?generation\s*-?%\}", "", template)


def tokenizer_content(tokenizer: Tokenizer) -> dict[str, Any]:
    """Return what the tokenizer writes as its tokenizer.json."""
    with tempfile.TemporaryDirectory() as directory:
        tokenizer.save(directory)
        return json.loads((Path(directory) / "tokenizer.json").read_text(encoding="utf-8"))


def merges_of(content: dict[str, Any]) -> list[str]:
    """Return the merges of a tokenizer.json as `left right`, in their order.

    llama.cpp doesn't load a vocabulary without any; a tokenizer of bare bytes gets one of tokens
    that no text is ever cut into, so it never applies.
    """
    merges: Sequence[str | Sequence[str]] = content["model"]["merges"]
    joined = [merge if isinstance(merge, str) else " ".join(merge) for merge in merges]
    return joined or [f"{SPECIAL_TOKENS[0]} {SPECIAL_TOKENS[0]}"]


def _write_shape(writer: Any, config: ModelConfig) -> None:
    gguf = require("gguf", extra="gguf")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_theta)
    writer.add_vocab_size(config.vocab_size)
    if config.moe is not None:
        writer.add_expert_count(config.moe.num_experts)
        writer.add_expert_used_count(config.moe.num_experts_per_tok)
        writer.add_expert_feed_forward_length(config.moe.moe_intermediate_size)
    scaling = config.rope_scaling
    if scaling is None:
        return
    writer.add_rope_scaling_type(gguf.RopeScalingType[scaling.rope_type.upper()])
    writer.add_rope_scaling_factor(scaling.factor)
    if scaling.rope_type == "yarn":
        # llama.cpp derives the temperature from the factor by the formula that ours has too.
        writer.add_rope_scaling_orig_ctx_len(scaling.original_max_position_embeddings)
        writer.add_rope_scaling_yarn_beta_fast(scaling.beta_fast)
        writer.add_rope_scaling_yarn_beta_slow(scaling.beta_slow)


def _write_vocabulary(writer: Any, config: ModelConfig, tokenizer: Tokenizer) -> None:
    gguf = require("gguf", extra="gguf")
    content = tokenizer_content(tokenizer)
    by_id = {token_id: token for token, token_id in content["model"]["vocab"].items()}
    tokens: list[str] = []
    kinds: list[int] = []
    for token_id in range(config.vocab_size):
        kind = gguf.TokenType.NORMAL
        token = by_id.get(token_id)
        if token is None:  # a spare row of the embedding
            token, kind = f"[PAD{token_id}]", gguf.TokenType.UNUSED
        elif token_id < len(SPECIAL_TOKENS):
            # Visible ones are shown to the reader, as in Qwen3's own files.
            visible = token in VISIBLE_TOKENS
            kind = gguf.TokenType.USER_DEFINED if visible else gguf.TokenType.CONTROL
        tokens.append(token)
        kinds.append(int(kind))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(PRE_TOKENIZER)
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges(merges_of(content))
    # Without one of its own, llama.cpp takes GPT-2's number for the token that opens a text.
    writer.add_bos_token_id(tokenizer.endoftext_id)
    writer.add_eos_token_id(tokenizer.im_end_id)
    writer.add_eot_token_id(tokenizer.im_end_id)
    writer.add_pad_token_id(tokenizer.pad_id)
    writer.add_add_bos_token(False)
    writer.add_add_eos_token(False)
