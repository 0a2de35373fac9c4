"""A sparse mixture of experts in place of one feed-forward: Qwen3-MoE's shape and names.

    router(x) -> softmax -> the `num_experts_per_tok` best experts of each token and their weights
    sort the (token, choice) pairs by expert -> three grouped matrix products -> back, weighted

No token is dropped and there is no Python loop over experts: a grouped product takes the rows of
all experts in one call. In the state dict every expert's matrices stand on their own, under the
names of Qwen3-MoE's files; in memory they are stacked.

Axes: B batch, T query, N = B*T tokens, D hidden, F ffn of an expert, E experts, C choices of a
token, S = N*C (token, choice) pairs sorted by expert.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from minimind.config import MoEConfig
from minimind.model.grouped import combine, dispatch, grouped_product, sort_by_expert
from minimind.model.layers import is_single_compiled, materialised, matrix_dtype

MATRICES = ("gate_proj", "up_proj", "down_proj")


class Routing(NamedTuple):
    """What one layer's router did with the tokens that count.

    Attributes:
        load_E: share of the tokens that chose each expert; the sum is `num_experts_per_tok`.
        balance: differentiable scalar; see `MoEConfig.router_balance`.
        z: differentiable scalar: mean square of the log-normaliser (Zoph et al. 2022, ST-MoE).
    """

    load_E: Tensor  # noqa: N815  (shapes in names)
    balance: Tensor
    z: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Auxiliary:
    """What a model asks an objective to minimise beside its own loss.

    Attributes:
        loss: differentiable scalar, a mean over tokens, its coefficients applied.
        metrics: detached scalars, for the report.
    """

    loss: Tensor
    metrics: dict[str, Tensor]


class Router(nn.Module):
    """Scores every expert for every token, in fp32 under autocast too (Fedus et al. 2021, 2.4)."""

    def __init__(self, hidden_size: int, config: MoEConfig) -> None:
        super().__init__()
        self.config = config
        self.weight = nn.Parameter(torch.empty(config.num_experts, hidden_size))

    def forward(self, x_ND: Tensor) -> Tensor:
        """Return logits (N, E), fp32."""
        with torch.autocast(x_ND.device.type, enabled=False):
            return F.linear(x_ND.float(), self.weight.float())

    def choose(self, logits_NE: Tensor) -> tuple[Tensor, Tensor]:
        """Return the experts of each token (N, C) int64 and their weights (N, C) fp32.

        With one expert a token, a normed weight is 1 whatever the router says, and the router would
        learn nothing from the text. So it is 1 = p / p with a gradient as of log p: the result is
        Qwen3-MoE's, and an expert that helps is chosen more often.
        """
        probs_NE = logits_NE.softmax(-1)
        probs_NC, chosen_NC = probs_NE.topk(self.config.num_experts_per_tok, dim=-1)
        if not self.config.norm_topk_prob:
            return chosen_NC, probs_NC
        if self.config.num_experts_per_tok == 1:
            return chosen_NC, probs_NC / probs_NC.detach()
        return chosen_NC, probs_NC / probs_NC.sum(-1, keepdim=True)

    def routing(
        self, x_ND: Tensor, logits_NE: Tensor, chosen_NC: Tensor, counted_N: Tensor
    ) -> Routing:
        """Return the statistics of the tokens for which `counted_N` (bool) is true."""
        E = self.config.num_experts
        counted_N1 = counted_N[:, None].float()
        tokens = counted_N1.sum().clamp(min=1)
        is_chosen_NE = (chosen_NC[..., None] == torch.arange(E, device=x_ND.device)).any(1)
        load_E = (is_chosen_NE * counted_N1).sum(0) / tokens
        z = (logits_NE.logsumexp(-1).square() * counted_N1[:, 0]).sum() / tokens
        if self.config.router_balance == "bias":
            mean_D = (x_ND.detach().float() * counted_N1).sum(0) / tokens
            excess_E = load_E - load_E.mean()
            return Routing(load_E, (excess_E * self(mean_D)).sum(), z)
        share_E = (logits_NE.softmax(-1) * counted_N1).sum(0) / tokens
        return Routing(load_E, E * (load_E * share_E).sum(), z)


class Experts(nn.Module):
    """SwiGLU feed-forwards of one shape, each for the tokens that chose it.

    Args:
        hidden_size: D.
        config: how many and how wide.
    """

    def __init__(self, hidden_size: int, config: MoEConfig) -> None:
        super().__init__()
        self.num_experts = config.num_experts
        wide = (config.num_experts, config.moe_intermediate_size, hidden_size)
        self.gate_proj = nn.Parameter(torch.empty(wide))
        self.up_proj = nn.Parameter(torch.empty(wide))
        self.down_proj = nn.Parameter(torch.empty(wide[0], wide[2], wide[1]))

    def forward(self, x_ND: Tensor, chosen_NC: Tensor, weights_NC: Tensor) -> Tensor:
        """Return (N, D): every token's experts, weighted."""
        if is_single_compiled(x_ND):
            return self._single(x_ND, chosen_NC[0], weights_NC[0])
        if x_ND.shape[0] == 1 and _in_plain_python(x_ND):
            return self._one_token(x_ND, chosen_NC[0], weights_NC[0])
        pairs = sort_by_expert(chosen_NC, num_experts=self.num_experts)
        dtype = matrix_dtype(x_ND)
        x_SD = dispatch(x_ND.to(dtype), pairs)
        gate_SF, up_SF = self._gate_and_up(x_SD, pairs.ends_E)
        # A weight goes in before the last product, which is linear: its gradient then comes from
        # what SwiGLU keeps anyway, and the (S, D) results needn't be kept or read again.
        weights_S = torch.zeros_like(weights_NC.flatten()).scatter(
            0, pairs.slot_NC.flatten(), weights_NC.flatten()
        )
        h_SF = (F.silu(gate_SF) * up_SF * weights_S[:, None]).to(dtype)
        y_SD = _grouped(h_SF, self.down_proj, pairs.ends_E)
        return combine(y_SD, pairs)

    def _gate_and_up(self, x_SD: Tensor, ends_E: Tensor) -> tuple[Tensor, Tensor]:
        """Return both products; in training as one of twice the width, forward and backward.

        Joining the weights copies them all, which autocast does anyway and many tokens repay; a
        single token that is decoded would not.
        """
        if not torch.is_grad_enabled():
            return _grouped(x_SD, self.gate_proj, ends_E), _grouped(x_SD, self.up_proj, ends_E)
        joined = torch.cat((self.gate_proj.to(x_SD.dtype), self.up_proj.to(x_SD.dtype)), 1)
        gate_SF, up_SF = grouped_product(x_SD, joined, ends_E).chunk(2, dim=-1)
        return gate_SF, up_SF

    def _one_token(self, x_1D: Tensor, chosen_C: Tensor, weights_C: Tensor) -> Tensor:
        """Go through the chosen experts: sorting two pairs costs more than it spares."""
        dtype = matrix_dtype(x_1D)
        x_1D, out_1D = x_1D.to(dtype), torch.zeros_like(x_1D, dtype=dtype)
        for expert, weight in zip(chosen_C.tolist(), weights_C.unbind(), strict=True):
            gate_1F = F.linear(x_1D, self.gate_proj[expert].to(dtype))
            up_1F = F.linear(x_1D, self.up_proj[expert].to(dtype))
            h_1F = (F.silu(gate_1F) * up_1F * weight).to(dtype)
            out_1D += F.linear(h_1F, self.down_proj[expert].to(dtype))
        return out_1D

    def _single(self, x_1D: Tensor, chosen_C: Tensor, weights_C: Tensor) -> Tensor:
        """Read the chosen experts only; see `layers.project` on why sums and not products."""
        x_D = materialised(x_1D)
        gate_CF = (self.gate_proj[chosen_C].float() * x_D).sum(-1)
        up_CF = (self.up_proj[chosen_C].float() * x_D).sum(-1)
        h_C1F = materialised(F.silu(gate_CF) * up_CF).view(chosen_C.shape[0], 1, -1)
        y_CD = (self.down_proj[chosen_C].float() * h_C1F).sum(-1)
        return (y_CD * weights_C[:, None]).sum(0, keepdim=True).to(x_1D.dtype)

    def extra_repr(self) -> str:
        """Return what `print(model)` shows."""
        _, ffn, hidden = self.gate_proj.shape
        return f"{self.num_experts} x ({hidden}, {ffn})"

    def _save_to_state_dict(
        self, destination: dict[str, Tensor], prefix: str, keep_vars: bool
    ) -> None:
        for number in range(self.num_experts):
            for name in MATRICES:
                stacked = getattr(self, name)
                matrix = (stacked if keep_vars else stacked.detach())[number]
                destination[f"{prefix}{number}.{name}.weight"] = matrix

    def _load_from_state_dict(
        self, state_dict: dict[str, Tensor], prefix: str, local_metadata: dict[str, Any],
        strict: bool, missing_keys: list[str], unexpected_keys: list[str], error_msgs: list[str],
    ) -> None:  # fmt: skip
        names = {f"{prefix}{n}.{m}.weight" for n in range(self.num_experts) for m in MATRICES}
        missing = sorted(names - state_dict.keys())
        missing_keys += missing
        unexpected_keys += sorted(
            key for key in state_dict if key.startswith(prefix) and key not in names
        )
        if missing:
            return
        for name in MATRICES:
            parts = [state_dict[f"{prefix}{n}.{name}.weight"] for n in range(self.num_experts)]
            stacked, place = torch.stack(parts), getattr(self, name)
            if stacked.shape != place.shape:
                error_msgs.append(
                    f"{prefix}*.{name}.weight: {tuple(stacked.shape)} instead of "
                    f"{tuple(place.shape)}"
                )
            elif local_metadata.get("assign_to_params_buffers", False):
                setattr(self, name, nn.Parameter(stacked, requires_grad=place.requires_grad))
            else:
                with torch.no_grad():
                    place.copy_(stacked)


class SparseMoE(nn.Module):
    """A router and its experts in place of a dense feed-forward."""

    def __init__(self, hidden_size: int, config: MoEConfig) -> None:
        super().__init__()
        self.gate = Router(hidden_size, config)
        self.experts = Experts(hidden_size, config)

    def forward(
        self, x_BTD: Tensor, counted_BT: Tensor | None = None
    ) -> Tensor | tuple[Tensor, Routing]:
        """Return (B, T, D); given which tokens count (bool), the router's statistics as well."""
        x_ND = x_BTD.flatten(0, 1)
        logits_NE = self.gate(x_ND)
        chosen_NC, weights_NC = self.gate.choose(logits_NE)
        out_BTD = self.experts(x_ND, chosen_NC, weights_NC).view(x_BTD.shape)
        if counted_BT is None:
            return out_BTD
        return out_BTD, self.gate.routing(x_ND, logits_NE, chosen_NC, counted_BT.flatten())


def auxiliary(routings: Sequence[Routing], config: MoEConfig) -> Auxiliary:
    """Return the loss that keeps the experts of every layer busy, and what each expert got.

    A metric `expert_load/L.E` is expert E's share of layer L's tokens, of which
    `num_experts_per_tok / num_experts` would be even; `largest_load` and `smallest_load` are the
    extremes of all layers, where 1 is even.
    """
    load_LE = torch.stack([routing.load_E for routing in routings]).detach()
    balance = torch.stack([routing.balance for routing in routings]).mean()
    z = torch.stack([routing.z for routing in routings]).mean()
    weight = 0.0 if config.router_balance == "none" else config.router_aux_loss_coef
    relative_LE = load_LE * (config.num_experts / config.num_experts_per_tok)
    metrics = {
        "balance_loss": balance.detach(),
        "z_loss": z.detach(),
        "largest_load": relative_LE.max(),
        "smallest_load": relative_LE.min(),
    }
    for layer, load_E in enumerate(load_LE):
        metrics |= {f"expert_load/{layer}.{e}": load for e, load in enumerate(load_E)}
    return Auxiliary(loss=weight * balance + config.router_z_loss_coef * z, metrics=metrics)


def _in_plain_python(x: Tensor) -> bool:
    """Tell whether values may decide what is computed: on a GPU the host would wait for each."""
    return (
        x.device.type == "cpu" and not torch.is_grad_enabled() and not torch.compiler.is_compiling()
    )


def _grouped(x_SI: Tensor, weights_EOI: Tensor, ends_E: Tensor) -> Tensor:
    """Return x W_e^T of each row with its expert's matrix, (S, O)."""
    return grouped_product(x_SI, weights_EOI.to(x_SI.dtype), ends_E)
