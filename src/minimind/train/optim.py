"""The optimizer: Muon for the hidden matrices and AdamW for the rest, or AdamW for all.

State is saved under parameter names, not numbers, so that a resume notices a model that changed.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from minimind.config import OptimConfig
from minimind.errors import CheckpointError
from minimind.train.device import has_fast_bf16

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""Quintic with the steepest slope at zero that still ends in [0.7, 1.2] (Jordan et al. 2024)."""


def orthogonalize(matrices_NRC: Tensor, *, steps: int = 5) -> Tensor:
    """Return about U V^T of each matrix's singular value decomposition U S V^T.

    Newton-Schulz iteration of Jordan et al. 2024 (the Muon post): singular values end between
    about 0.7 and 1.2, which trains as well as exactly 1. Stacked matrices share each product.

    Args:
        matrices_NRC: (N, rows, columns), any floating dtype; the iteration runs in it.
        steps: iterations; five carry singular values over 0.01 of the norm to about 1.
    """
    a, b, c = NEWTON_SCHULZ
    tall = matrices_NRC.shape[-2] > matrices_NRC.shape[-1]
    # The short side first: the Gram matrix is then the small one.
    x_NRC = matrices_NRC.mT if tall else matrices_NRC
    x_NRC = x_NRC / x_NRC.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)
    for _ in range(steps):
        gram_NRR = x_NRC @ x_NRC.mT
        polynomial_NRR = torch.baddbmm(gram_NRR, gram_NRR, gram_NRR, beta=b, alpha=c)
        x_NRC = torch.baddbmm(x_NRC, polynomial_NRR, x_NRC, beta=a)
    return x_NRC.mT if tall else x_NRC


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalised by Newton-Schulz (Jordan et al. 2024), for hidden matrices.

    The update has a spectral norm of about 1 and is scaled by sqrt(max(1, rows / columns)), as in
    the authors' code, so that one learning rate fits all shapes. Matrices of one shape are stacked
    and orthogonalised together: a tenth of the launches, and larger products.

    Args:
        parameters: matrices, or stacks of them: each is orthogonalised by itself.
        lr: the update's scale; 0.02 is the authors'.
        momentum: of the running mean of gradients; used as Nesterov's look-ahead.
        weight_decay: decoupled: each step shrinks the weights by lr * weight_decay.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        *,
        lr: float = 0.02,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Update every parameter that has a gradient."""
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[nn.Parameter]] = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    by_shape[parameter.shape].append(parameter)
            for parameters in by_shape.values():
                self._update(parameters, group)

    def _update(self, parameters: list[nn.Parameter], group: dict[str, Any]) -> None:
        """Update parameters of one shape."""
        work = torch.bfloat16 if has_fast_bf16(parameters[0].device) else torch.float32
        # Rounded one by one: at bf16 the largest group takes 8 bytes a weight instead of 22.
        stacked = torch.stack(
            [self._look_ahead(p, momentum=group["momentum"]).to(work) for p in parameters]
        )
        leading = stacked.shape[:-2]
        directions = orthogonalize(stacked.flatten(0, -3)).unflatten(0, leading)
        rows, columns = parameters[0].shape[-2:]
        scale = math.sqrt(max(1.0, rows / columns))
        for parameter, direction in zip(parameters, directions.unbind(), strict=True):
            parameter.mul_(1 - group["lr"] * group["weight_decay"])
            parameter.add_(direction, alpha=-group["lr"] * scale)

    def _look_ahead(self, parameter: nn.Parameter, *, momentum: float) -> Tensor:
        """Move the running mean of gradients, and return Nesterov's blend of it with the newest."""
        gradient = parameter.grad
        assert gradient is not None
        state = self.state[parameter]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        mean = state["momentum_buffer"].lerp_(gradient, 1 - momentum)
        return gradient.lerp(mean, momentum)


class Optimizer:
    """One handle on the optimizers of a model's trainable parameters.

    Args:
        parts: torch optimizers; together they hold each of `names` exactly once.
        names: the name of each parameter, as in the model's state dict.
    """

    def __init__(self, parts: list[torch.optim.Optimizer], names: dict[Tensor, str]) -> None:
        self.parts = parts
        self._names = names
        for group in self.param_groups:
            group["peak_lr"] = group["lr"]

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """Return the groups of all parts."""
        return [group for part in self.parts for group in part.param_groups]

    @property
    def parameters(self) -> list[Tensor]:
        """Return every parameter that is trained."""
        return list(self._names)

    @property
    def by_name(self) -> dict[str, Tensor]:
        """Return every parameter that is trained by its name."""
        return {name: parameter for parameter, name in self._names.items()}

    @property
    def lr(self) -> float:
        """Return the current learning rate of the first part."""
        return self.parts[0].param_groups[0]["lr"]

    def set_lr_factor(self, factor: float) -> None:
        """Set each group's rate to `factor` times its peak."""
        for group in self.param_groups:
            group["lr"] = group["peak_lr"] * factor

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for part in self.parts:
            part.zero_grad(set_to_none=True)

    def state_dict(self) -> dict[str, dict[str, Tensor]]:
        """Return `{parameter name: {state name: tensor}}`; tensors are not copied."""
        return {
            self._names[parameter]: dict(state)
            for part in self.parts
            for parameter, state in part.state.items()
        }

    def load_state_dict(self, state: dict[str, dict[str, Tensor]]) -> None:
        """Put back what `state_dict` returned.

        Raises:
            CheckpointError: it is the state of other parameters or of another kind of optimizer.
        """
        unknown = sorted(set(state) - set(self._names.values()))
        if unknown:
            raise CheckpointError(
                f"the optimizer state has {unknown[0]!r}, which this model doesn't train: "
                "resume with the same model and the same LoRA settings, or start a new run"
            )
        for part in self.parts:
            part.state.clear()
            expected = {"momentum_buffer"} if isinstance(part, Muon) else _ADAMW_STATE
            for group in part.param_groups:
                for parameter in group["params"]:
                    saved = state.get(self._names[parameter])
                    if saved is None:
                        continue
                    if set(saved) != expected:
                        raise CheckpointError(
                            f"the optimizer state of {self._names[parameter]!r} has "
                            f"{sorted(saved)}, this optimizer needs {sorted(expected)}: "
                            "resume with the same optim.kind"
                        )
                    part.state[parameter] = {
                        name: tensor.to(parameter.device, copy=True)
                        for name, tensor in saved.items()
                    }


_ADAMW_STATE = {"step", "exp_avg", "exp_avg_sq"}


def is_hidden_matrix(name: str, parameter: nn.Parameter) -> bool:
    """Tell whether Muon trains it: a matrix, or a stack of them (the experts of a layer).

    Not the embedding, the output head, or a router, whose rows are scores of their own.
    """
    others = ("embed_tokens", "lm_head", "mlp.gate.")
    return parameter.ndim >= 2 and not any(other in name for other in others)


def build_optimizer(model: nn.Module, config: OptimConfig, *, muon: type[Muon] = Muon) -> Optimizer:
    """Return the optimizer of everything in `model` that requires a gradient.

    Hidden matrices are decayed; embeddings, norms and biases are not.

    Args:
        model: what is trained.
        config: kind, rates, decay.
        muon: the Muon that fits how its weights lie (`train.sharding`).
    """
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    matrices = [p for name, p in trained.items() if is_hidden_matrix(name, p)]
    others = [p for name, p in trained.items() if not is_hidden_matrix(name, p)]
    parts: list[torch.optim.Optimizer] = []
    adamw_groups = [{"params": others, "weight_decay": 0.0}]
    if config.kind == "adamw":
        adamw_groups.insert(0, {"params": matrices, "weight_decay": config.weight_decay})
    elif matrices:
        parts.append(
            muon(
                matrices,
                lr=config.muon_lr,
                momentum=config.muon_momentum,
                weight_decay=config.weight_decay,
            )
        )
    adamw_groups = [group for group in adamw_groups if group["params"]]
    if adamw_groups:
        parts.insert(
            0,
            torch.optim.AdamW(
                adamw_groups, lr=config.lr, betas=config.betas, eps=config.eps, fused=True
            ),
        )
    return Optimizer(parts, {parameter: name for name, parameter in trained.items()})
