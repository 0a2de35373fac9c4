"""The model: a Qwen3-shaped decoder, its cache, its losses and its adapters."""

from minimind.model.attention import BACKENDS
from minimind.model.cache import KVCache
from minimind.model.lora import (
    LoRALinear,
    adapter_config,
    inject_lora,
    load_lora_state_dict,
    lora_config_from_adapter,
    lora_state_dict,
    merge_lora,
)
from minimind.model.loss import linear_cross_entropy, token_log_probs
from minimind.model.rope import stretch
from minimind.model.transformer import CausalLM, CausalLMOutput

__all__ = [
    "BACKENDS",
    "CausalLM",
    "CausalLMOutput",
    "KVCache",
    "LoRALinear",
    "adapter_config",
    "inject_lora",
    "linear_cross_entropy",
    "load_lora_state_dict",
    "lora_config_from_adapter",
    "lora_state_dict",
    "merge_lora",
    "stretch",
    "token_log_probs",
]
