"""Low-rank adapters: a frozen matrix plus a small trained product (Hu et al. 2021).

A `nn.Linear` is replaced by a `LoRALinear` that holds it; nothing else in the model changes.
Axes: D in, O out, R rank.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from minimind.config import LoraConfig
from minimind.errors import CheckpointError, ConfigError, did_you_mean
from minimind.model.layers import replace_module
from minimind.model.moe import MATRICES as EXPERT_MATRICES
from minimind.model.moe import SparseMoE

PEFT_PREFIX = "base_model.model."


class LoRALinear(nn.Module):
    """`x W^T + scale * dropout(x) A^T B^T`, with W frozen, A random and B zero at first.

    The parameters are `weight` (O, D) and, if there is one, `bias` (O,), under the names they had
    before, `lora_A` (R, D) and `lora_B` (O, R).
    """

    def __init__(self, linear: nn.Linear, config: LoraConfig) -> None:
        super().__init__()
        self.weight = linear.weight
        self.weight.requires_grad_(False)
        self.bias = linear.bias
        if linear.bias is not None:
            linear.bias.requires_grad_(False)
        options = {"dtype": linear.weight.dtype, "device": linear.weight.device}
        self.lora_A = nn.Parameter(torch.empty(config.rank, linear.in_features, **options))
        self.lora_B = nn.Parameter(torch.zeros(linear.out_features, config.rank, **options))
        nn.init.kaiming_uniform_(self.lora_A, a=math.sqrt(5))  # peft's choice: that of nn.Linear
        self.scale = config.alpha / (math.sqrt(config.rank) if config.rslora else config.rank)
        self.dropout = nn.Dropout(config.dropout)
        self.merged = False

    def forward(self, x: Tensor) -> Tensor:
        """Return (..., O)."""
        out = F.linear(x, self.weight, self.bias)
        if self.merged:
            return out
        return out + F.linear(F.linear(self.dropout(x), self.lora_A), self.lora_B) * self.scale

    @torch.no_grad()
    def merge(self) -> None:
        """Add the product to the weight; does nothing if it is there already."""
        if not self.merged:
            self.weight += self._product()
            self.merged = True

    @torch.no_grad()
    def unmerge(self) -> None:
        """Take the product out of the weight again."""
        if self.merged:
            self.weight -= self._product()
            self.merged = False

    def to_linear(self) -> nn.Linear:
        """Return the merged matrix as a plain layer."""
        self.merge()
        out_features, in_features = self.weight.shape
        linear = nn.Linear(in_features, out_features, bias=False, device="meta")
        linear.weight = nn.Parameter(self.weight.detach())
        if self.bias is not None:
            linear.bias = nn.Parameter(self.bias.detach())
        return linear

    def extra_repr(self) -> str:
        """Return what `print(model)` shows."""
        rank, in_features = self.lora_A.shape
        return f"{in_features}, {self.lora_B.shape[0]}, rank={rank}, scale={self.scale:g}"

    def _product(self) -> Tensor:
        # In fp32: a sum of products rounded to bf16 twice would not be exact.
        product_OD = self.lora_B.float() @ self.lora_A.float() * self.scale
        return product_OD.to(self.weight.dtype)


def inject_lora(model: nn.Module, config: LoraConfig) -> list[str]:
    """Replace the target layers, freeze everything but the adapters, return the replaced names.

    Raises:
        ConfigError: a target that the model doesn't have, a rank below 1, or adapters are in.
    """
    if config.rank < 1:
        raise ConfigError(f"lora.rank = {config.rank}: must be at least 1")
    if any(isinstance(module, LoRALinear) for module in model.modules()):
        raise ConfigError("the model has LoRA adapters already: merge_lora(model) first")
    linears = {n: m for n, m in model.named_modules() if isinstance(m, nn.Linear)}
    known = sorted({name.rpartition(".")[2] for name in linears})
    for target in config.target_modules:
        if target not in known and target in EXPERT_MATRICES and _has_experts(model):
            raise ConfigError(
                f"lora.target_modules has {target!r}: the experts of a mixture can't have adapters."
                f" Leave those out: --lora.target-modules {' '.join(known)}"
            )
        if target not in known:
            raise ConfigError(
                f"lora.target_modules has {target!r}, which the model doesn't have."
                f"{did_you_mean(target, known)} It has: {', '.join(known)}"
            )
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    names = [n for n in linears if n.rpartition(".")[2] in config.target_modules]
    for name in names:
        replace_module(model, name, LoRALinear(linears[name], config))
    return names


def merge_lora(model: nn.Module) -> None:
    """Put plain layers with the merged weights back: the keys are those of the base model again."""
    for name, adapter in _adapters(model).items():
        replace_module(model, name, adapter.to_linear())
    for parameter in model.parameters():
        parameter.requires_grad_(True)


def lora_state_dict(model: nn.Module) -> dict[str, Tensor]:
    """Return the adapters under the names that peft reads from adapter_model.safetensors."""
    state: dict[str, Tensor] = {}
    for name, adapter in _adapters(model).items():
        state[f"{PEFT_PREFIX}{name}.lora_A.weight"] = adapter.lora_A.detach().clone()
        state[f"{PEFT_PREFIX}{name}.lora_B.weight"] = adapter.lora_B.detach().clone()
    return state


def load_lora_state_dict(model: nn.Module, state: dict[str, Tensor]) -> None:
    """Fill injected adapters from `state` (peft's names).

    Raises:
        CheckpointError: names or shapes that don't fit the injected adapters.
    """
    wanted = lora_state_dict(model)
    odd = sorted(wanted.keys() ^ state.keys())
    if odd:
        where = "the adapter file lacks" if odd[0] in wanted else "the model has no place for"
        raise CheckpointError(
            f"{where} {odd[0]!r} ({len(odd)} names differ): inject with the adapter's own "
            "adapter_config.json"
        )
    for name, tensor in state.items():
        if tensor.shape != wanted[name].shape:
            raise CheckpointError(
                f"adapter {name!r} is {tuple(tensor.shape)}, the model needs "
                f"{tuple(wanted[name].shape)}: another base model or rank"
            )
    with torch.no_grad():
        for name, adapter in _adapters(model).items():
            adapter.lora_A.copy_(state[f"{PEFT_PREFIX}{name}.lora_A.weight"])
            adapter.lora_B.copy_(state[f"{PEFT_PREFIX}{name}.lora_B.weight"])


def adapter_config(config: LoraConfig, *, base: str | None = None) -> dict[str, Any]:
    """Return the content of peft's adapter_config.json; `base` is where the base model lies."""
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": config.rank,
        "lora_alpha": config.alpha,
        "lora_dropout": config.dropout,
        "use_rslora": config.rslora,
        "target_modules": list(config.target_modules),
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
    }


def lora_config_from_adapter(values: dict[str, Any]) -> LoraConfig:
    """Read an adapter_config.json (ours or peft's) back.

    Raises:
        CheckpointError: it isn't LoRA, or it uses something that we don't have.
    """
    if values.get("peft_type") != "LORA" or not isinstance(values.get("target_modules"), list):
        raise CheckpointError(
            f"adapter_config.json: peft_type {values.get('peft_type')!r} with target_modules "
            f"{values.get('target_modules')!r} can't be read: LoRA on a list of layer names can"
        )
    for key in ("use_dora", "rank_pattern", "alpha_pattern", "modules_to_save", "fan_in_fan_out"):
        if values.get(key):
            raise CheckpointError(f"adapter_config.json: {key} = {values[key]!r} is not supported")
    return LoraConfig(
        rank=values["r"],
        alpha=float(values["lora_alpha"]),
        dropout=float(values.get("lora_dropout", 0.0)),
        rslora=bool(values.get("use_rslora", False)),
        target_modules=tuple(sorted(values["target_modules"])),
    )


def _has_experts(model: nn.Module) -> bool:
    return any(isinstance(module, SparseMoE) for module in model.modules())


def _adapters(model: nn.Module) -> dict[str, LoRALinear]:
    return {name: m for name, m in model.named_modules() if isinstance(m, LoRALinear)}
