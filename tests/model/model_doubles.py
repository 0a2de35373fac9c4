"""Foreign oracles: transformers' Qwen3 with our weights."""

from __future__ import annotations

from typing import Any

import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from minimind.config import ModelConfig
from minimind.model import CausalLM

SHAPES: dict[str, dict[str, Any]] = {
    "nano": {
        "vocab_size": 4096, "hidden_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4,
        "num_key_value_heads": 2, "intermediate_size": 768,
    },
    "26m": {"num_key_value_heads": 2, "intermediate_size": 1216},
    "64m": {},
    "64m-wide": {
        "hidden_size": 768, "num_attention_heads": 12, "num_key_value_heads": 4,
        "intermediate_size": 2304,
    },
    "104m": {
        "hidden_size": 768, "num_hidden_layers": 16, "num_attention_heads": 12,
        "num_key_value_heads": 6, "intermediate_size": 1792,
    },
}  # fmt: skip
"""The preset shapes of DESIGN section 1 (the 64m one is `ModelConfig`'s default)."""


def preset_shape(name: str) -> ModelConfig:
    return ModelConfig(**SHAPES[name])


def qwen3_config(config: ModelConfig, **changes: Any) -> Qwen3Config:
    """transformers' config of the same model, written from its documentation."""
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": config.rope_theta}
    if config.rope_scaling is not None:
        scaling = config.rope_scaling
        rope |= {"rope_type": scaling.rope_type, "factor": scaling.factor}
        if scaling.rope_type == "yarn":
            rope |= {
                "original_max_position_embeddings": scaling.original_max_position_embeddings,
                "beta_fast": scaling.beta_fast,
                "beta_slow": scaling.beta_slow,
            }
    layers = range(config.num_hidden_layers)
    return Qwen3Config(
        vocab_size=config.vocab_size,
        hidden_size=config.hidden_size,
        intermediate_size=config.intermediate_size,
        num_hidden_layers=config.num_hidden_layers,
        num_attention_heads=config.num_attention_heads,
        num_key_value_heads=config.num_key_value_heads,
        head_dim=config.head_dim,
        max_position_embeddings=config.max_position_embeddings,
        rms_norm_eps=config.rms_norm_eps,
        tie_word_embeddings=config.tie_word_embeddings,
        rope_parameters=rope,
        use_sliding_window=config.sliding_window is not None,
        sliding_window=config.sliding_window,
        layer_types=[
            "sliding_attention" if config.window_of(layer) else "full_attention" for layer in layers
        ],
        **changes,
    )


def random_model(config: ModelConfig, *, seed: int = 0) -> CausalLM:
    """A model whose every part matters: norm weights differ from 1, logits are of order 1."""
    torch.manual_seed(seed)
    model = CausalLM(config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith("norm.weight"):
                weight.uniform_(0.5, 1.5)
            else:
                weight.normal_(std=0.05)
    return model.eval()


def transformers_twin(model: CausalLM, **changes: Any) -> Qwen3ForCausalLM:
    """transformers' Qwen3 with the same weights; every name must be there."""
    twin = Qwen3ForCausalLM(qwen3_config(model.config, **changes)).eval()
    missing, unexpected = twin.load_state_dict(model.state_dict(), strict=False)
    tied = {"lm_head.weight"} if model.config.tie_word_embeddings else set()
    assert set(missing) == tied
    assert not unexpected
    twin.tie_weights()
    return twin


def random_ids(config: ModelConfig, *shape: int, seed: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(config.vocab_size, shape, generator=generator)
