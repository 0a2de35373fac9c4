"""`ModelConfig` as a Hugging Face config.json, and back.

The fields are those that transformers 5 writes for Qwen3, Qwen3-MoE, Qwen2 and Llama; files of
transformers 4 are read too.
"""

from __future__ import annotations

import dataclasses
from typing import Any, get_args

from minimind.config import LayerType, ModelConfig, ModelType, MoEConfig, RopeScaling
from minimind.errors import CheckpointError
from minimind.tokenizer import Tokenizer

_SAME = (
    "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
    "head_dim", "intermediate_size", "max_position_embeddings", "rms_norm_eps",
    "tie_word_embeddings", "initializer_range",
)  # fmt: skip
"""Fields with the same name and meaning on both sides."""

_QWEN3_MOE = "qwen3_moe"
"""The `model_type` of a Qwen3 with experts, which to us is a `qwen3` with `moe`."""

_CLASSES: dict[ModelType, str] = {
    "qwen3": "Qwen3ForCausalLM", "qwen2": "Qwen2ForCausalLM", "llama": "LlamaForCausalLM",
}  # fmt: skip
_MOE_CLASS = "Qwen3MoeForCausalLM"


def hf_config(
    config: ModelConfig, tokenizer: Tokenizer, *, dtype: str = "float32"
) -> dict[str, Any]:
    """Return the config.json with which `AutoModelForCausalLM` loads our weights as they are."""
    fields: dict[str, Any] = {name: getattr(config, name) for name in _SAME}
    kind = config.model_type if config.moe is None else _QWEN3_MOE
    return {
        "architectures": [_CLASSES[config.model_type] if config.moe is None else _MOE_CLASS],
        "model_type": kind,
        **fields,
        **_experts(config),
        "hidden_act": "silu",
        # Qwen2 has its biases without saying so.
        **({} if config.model_type == "qwen2" else {"attention_bias": config.attention_bias}),
        "attention_dropout": 0.0,
        "rope_parameters": _rope_parameters(config),
        **({"mlp_bias": False} if config.model_type == "llama" else _sliding(config)),
        "bos_token_id": tokenizer.bos_id,
        "eos_token_id": tokenizer.stop_ids[0],
        "pad_token_id": tokenizer.pad_id,
        "use_cache": True,
        "dtype": dtype,
    }


def generation_config(tokenizer: Tokenizer) -> dict[str, Any]:
    """Return generation_config.json: where generation stops, and greedy unless asked otherwise."""
    return {
        "do_sample": False,
        "eos_token_id": list(tokenizer.stop_ids),
        "pad_token_id": tokenizer.pad_id,
    }


def config_from_hf(values: dict[str, Any]) -> ModelConfig:
    """Return the shape that a config.json describes: the inverse of `hf_config`.

    Raises:
        CheckpointError: another architecture, or a variant that this model doesn't have.
    """
    _refuse_other_models(values)
    moe = _moe_config(values)
    kind: ModelType = "qwen3" if moe is not None else values["model_type"]
    given = {name: values[name] for name in _SAME if values.get(name) is not None}
    given.setdefault("num_key_value_heads", given["num_attention_heads"])
    # What a file leaves out has the default of its class in transformers.
    derived = given["hidden_size"] // given["num_attention_heads"]
    given.setdefault("head_dim", 128 if kind == "qwen3" else derived)
    given.setdefault("tie_word_embeddings", False)
    rope: dict[str, Any] = {"partial_rotary_factor": values.get("partial_rotary_factor")}
    rope |= dict(values.get("rope_scaling") or {}) | dict(values.get("rope_parameters") or {})
    theta = rope.get("rope_theta", values.get("rope_theta", 10_000.0))
    scaling = _rope_scaling(rope, given)
    window, layer_types = None, None
    if kind != "llama":
        window, layer_types = _windows(values, given["num_hidden_layers"])
    return ModelConfig(
        **given,
        model_type=kind,
        attention_bias=bool(values.get("attention_bias")) and kind != "qwen2",
        rope_theta=float(theta),
        rope_scaling=scaling,
        sliding_window=window,
        layer_types=layer_types,
        moe=moe,
    )


def _experts(config: ModelConfig) -> dict[str, Any]:
    """Return what a Qwen3-MoE has beside a Qwen3; other programs pass over the two fields of ours.

    The fields of `MoEConfig` have the file's own names.
    """
    if config.moe is None:
        return {}
    return {
        **dataclasses.asdict(config.moe),
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
        "output_router_logits": False,
    }


def _moe_config(values: dict[str, Any]) -> MoEConfig | None:
    if values["model_type"] != _QWEN3_MOE:
        return None
    given: dict[str, Any] = {
        field.name: values[field.name]
        for field in dataclasses.fields(MoEConfig)
        if values.get(field.name) is not None
    }
    # transformers 5 knows the number by two names, and has other defaults for what a file omits.
    experts = values.get("num_experts", values.get("num_local_experts"))
    lacks = [name for name in ("num_experts_per_tok", "moe_intermediate_size") if name not in given]
    if experts is None or lacks:
        missing = ["num_experts"] * (experts is None) + lacks
        raise CheckpointError(f"config.json lacks {', '.join(missing)}")
    given["num_experts"] = experts
    given.setdefault("norm_topk_prob", False)
    return MoEConfig(**given)


def _sliding(config: ModelConfig) -> dict[str, Any]:
    if config.moe is not None:  # one window for all layers, or none
        window = config.sliding_window
        return {"use_sliding_window": window is not None, "sliding_window": window}
    windows = [config.window_of(layer) for layer in range(config.num_hidden_layers)]
    sliding = any(windows)
    return {
        "layer_types": ["sliding_attention" if w else "full_attention" for w in windows],
        "use_sliding_window": sliding,
        "sliding_window": config.sliding_window if sliding else None,
        "max_window_layers": 0 if sliding else config.num_hidden_layers,
    }


def _rope_parameters(config: ModelConfig) -> dict[str, Any]:
    parameters: dict[str, Any] = {"rope_type": "default", "rope_theta": config.rope_theta}
    scaling = config.rope_scaling
    if scaling is None:
        return parameters
    parameters |= {"rope_type": scaling.rope_type, "factor": scaling.factor}
    if scaling.rope_type == "yarn":
        yarn = dataclasses.asdict(scaling)
        parameters |= {name: yarn[name] for name in _YARN_ONLY}
    return parameters


_ROPE_WITHOUT_EFFECT = {"partial_rotary_factor": 1.0, "attention_factor": None, "mscale": None,
                        "mscale_all_dim": None, "truncate": True}  # fmt: skip
"""Variants that this model doesn't have, with the value that switches each off."""

_YARN_ONLY = ("original_max_position_embeddings", "beta_fast", "beta_slow")


def _rope_scaling(rope: dict[str, Any], given: dict[str, Any]) -> RopeScaling | None:
    kind = rope.get("rope_type", rope.get("type", "default"))
    for name, neutral in _ROPE_WITHOUT_EFFECT.items():
        if rope.get(name, neutral) not in (neutral, None):
            raise CheckpointError(
                f"config.json: {name} = {rope[name]!r} in the rope settings is not supported"
            )
    if kind == "default":
        return None
    if kind not in {"linear", "dynamic", "yarn"}:
        raise CheckpointError(
            f"config.json: rope_type {kind!r} is not supported; linear, dynamic and yarn are"
        )
    factor, length = float(rope["factor"]), int(given["max_position_embeddings"])
    # As in transformers: only linear, which doesn't use it, has no length of its own to go by.
    original = round(length / factor) if kind == "linear" else length
    return RopeScaling(
        rope_type=kind,
        factor=factor,
        original_max_position_embeddings=rope.get("original_max_position_embeddings") or original,
        beta_fast=float(rope.get("beta_fast") or 32.0),
        beta_slow=float(rope.get("beta_slow") or 1.0),
    )


def _windows(
    values: dict[str, Any], layers: int
) -> tuple[int | None, tuple[LayerType, ...] | None]:
    """Return `sliding_window` and `layer_types`, the latter only where layers differ."""
    window = values.get("sliding_window") if values.get("use_sliding_window") else None
    if window is None:
        return None, None
    if values["model_type"] == _QWEN3_MOE:
        return window, None
    first_sliding = values.get("max_window_layers", 28)
    by_number: list[LayerType] = [
        "sliding_attention" if n >= first_sliding else "full_attention" for n in range(layers)
    ]
    types: tuple[LayerType, ...] = tuple(values.get("layer_types") or by_number)
    if "sliding_attention" not in types:
        return None, None
    return window, types if "full_attention" in types else None


def _refuse_other_models(values: dict[str, Any]) -> None:
    kind = values.get("model_type")
    if kind not in (*get_args(ModelType), _QWEN3_MOE):
        raise CheckpointError(
            f"config.json: model_type is {kind!r}; this model can be {', '.join(_CLASSES)}, "
            f"{_QWEN3_MOE}"
        )
    if values.get("mlp_only_layers") or values.get("decoder_sparse_step", 1) != 1:
        raise CheckpointError(
            f"config.json: mlp_only_layers = {values.get('mlp_only_layers')!r}, decoder_sparse_step"
            f" = {values.get('decoder_sparse_step')!r}: every layer has experts here, or none"
        )
    if values.get("mlp_bias"):
        raise CheckpointError("config.json: mlp_bias is true; this feed-forward has no biases")
    if values.get("quantization_config"):
        method = values["quantization_config"].get("quant_method")
        raise CheckpointError(
            f"config.json: the weights are quantised ({method!r}); take the unquantised ones"
        )
    if values.get("hidden_act", "silu") != "silu":
        raise CheckpointError(
            f"config.json: hidden_act is {values['hidden_act']!r}; this model has 'silu'"
        )
    missing = [name for name in (*_SAME[:4], "intermediate_size", "max_position_embeddings")
               if name not in values]  # fmt: skip
    if missing:
        raise CheckpointError(f"config.json lacks {', '.join(missing)}")
