"""Loops over experts that the mixture is measured beside: transformers', the original project's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from minimind.config import ModelConfig
from minimind.model.layers import SwiGLU, replace_module
from minimind.model.moe import Experts


class MaskedExperts(nn.Module):
    """A loop as the original project trains with: repeated rows and boolean masks."""

    def __init__(self, experts: Experts, config: ModelConfig) -> None:
        super().__init__()
        width = experts.gate_proj.shape[1]
        self.experts = nn.ModuleList()
        for number in range(experts.num_experts):
            expert = SwiGLU(replace(config, moe=None, intermediate_size=width))
            for name in ("gate_proj", "up_proj", "down_proj"):
                matrix = experts.get_parameter(name)[number].detach().clone()
                expert.get_submodule(name).weight = nn.Parameter(matrix)
            self.experts.append(expert)

    def forward(self, x_ND: Tensor, chosen_NC: Tensor, weights_NC: Tensor) -> Tensor:
        """Return (N, D)."""
        rows_SD = x_ND.repeat_interleave(chosen_NC.shape[1], dim=0)
        y_SD, expert_S = torch.empty_like(rows_SD), chosen_NC.flatten()
        for number, expert in enumerate(self.experts):
            mine_S = expert_S == number
            y_SD[mine_S] = expert(rows_SD[mine_S]).to(y_SD.dtype)
        return (y_SD.view(*chosen_NC.shape, -1) * weights_NC[..., None]).sum(1)


def loop_of_transformers(experts: Experts, config: ModelConfig) -> nn.Module:
    """Return transformers' experts with these weights; called as ours are."""
    from transformers import Qwen3MoeConfig
    from transformers.models.qwen3_moe.modeling_qwen3_moe import Qwen3MoeExperts

    assert config.moe is not None
    shape: dict[str, Any] = {
        "hidden_size": config.hidden_size,
        "num_experts": config.moe.num_experts,
        "num_experts_per_tok": config.moe.num_experts_per_tok,
        "moe_intermediate_size": config.moe.moe_intermediate_size,
        "experts_implementation": "eager",
    }
    theirs = Qwen3MoeExperts(Qwen3MoeConfig(**shape))
    joined = torch.cat((experts.gate_proj, experts.up_proj), 1)
    theirs.load_state_dict({"gate_up_proj": joined, "down_proj": experts.down_proj})
    return theirs


LOOPS = {"loop": loop_of_transformers, "masks": MaskedExperts}


def replace_experts(
    model: nn.Module, config: ModelConfig, loop: Callable[[Experts, ModelConfig], nn.Module]
) -> None:
    """Put a loop with the same weights in the place of all experts of a model."""
    for path, module in list(model.named_modules()):
        if isinstance(module, Experts):
            replace_module(model, path, loop(module, config))
