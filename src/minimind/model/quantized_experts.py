"""Experts of few bits: every matrix of every expert by itself, under the names of the plain ones.

Weights are only read here, so a loop over the experts that a few tokens chose costs little beside
reading them; there is no gradient, and no kernel that groups products of few bits.

Axes: N tokens, C choices of a token, D hidden, F ffn.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from minimind.model.moe import MATRICES, Experts
from minimind.model.quantized import QuantizedMatrix


class QuantizedExperts(nn.ModuleList):
    """In place of `Experts`: its children are `0`, `1`, ..., each with three matrices."""

    @classmethod
    def of(
        cls, experts: Experts, quantize: Callable[[Tensor], QuantizedMatrix]
    ) -> QuantizedExperts:
        """Round every matrix of `experts` by `quantize`, which gets an (O, I) matrix."""
        made = cls()
        for number in range(experts.num_experts):
            parts = {name: quantize(experts.get_parameter(name)[number]) for name in MATRICES}
            made.append(nn.ModuleDict(parts))
        return made

    def forward(self, x_ND: Tensor, chosen_NC: Tensor, weights_NC: Tensor) -> Tensor:
        """Return (N, D): every token's experts, weighted."""
        out_ND = torch.zeros(x_ND.shape, dtype=torch.float32, device=x_ND.device)
        for number in chosen_NC.unique().tolist():
            expert = self[number]
            token_n, choice_n = (chosen_NC == number).nonzero(as_tuple=True)
            gate_nF, up_nF = (
                expert.get_submodule(name)(x_ND[token_n]) for name in ("gate_proj", "up_proj")
            )
            y_nD = expert.get_submodule("down_proj")(F.silu(gate_nF) * up_nF)
            out_ND.index_add_(0, token_n, y_nD.float() * weights_NC[token_n, choice_n, None])
        return out_ND.to(x_ND.dtype)
