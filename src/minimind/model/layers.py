"""The small layers: a matrix product, RMSNorm and the SwiGLU feed-forward.

Axes: B batch, T query, D hidden, F ffn.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from minimind.config import ModelConfig


def matrix_dtype(x: Tensor) -> torch.dtype:
    """Return the dtype in which a matrix product with `x` is computed: autocast's, if it is on."""
    device_type = x.device.type
    if torch.is_autocast_enabled(device_type):
        return torch.get_autocast_dtype(device_type)
    return x.dtype


def project(x: Tensor, weight_OI: Tensor, bias_O: Tensor | None = None) -> Tensor:
    """Return `x W^T + b`, (..., O).

    A single token on a CPU inside `torch.compile` becomes a product and a sum over a row, which
    inductor turns into one loop that reads the matrix faster than the library's product does (64M
    model, tokens/s, whole answers: fp32 107 against 38, bf16 143 against 59; `bench/decode.py`).
    """
    if is_single_compiled(x):
        out = (weight_OI.float() * materialised(x)).sum(-1).to(x.dtype).view(*x.shape[:-1], -1)
        return out if bias_O is None else out + bias_O
    return F.linear(x, weight_OI, bias_O)


def project_together(x: Tensor, layers: Sequence[nn.Linear]) -> list[Tensor]:
    """Return what each layer makes of `x`, (..., O) each, by one product with all their weights.

    The weights are rounded to the product's dtype anyway, here into one matrix; as parameters they
    stay apart, under their own names.
    """
    dtype = matrix_dtype(x)
    weight_OI = torch.cat([layer.weight.to(dtype) for layer in layers])
    biases = [layer.bias.to(dtype) for layer in layers if layer.bias is not None]
    out = F.linear(x, weight_OI, torch.cat(biases) if biases else None)
    return list(out.split([layer.out_features for layer in layers], dim=-1))


def is_single_compiled(x: Tensor) -> bool:
    """Tell whether `x` is a single token on a CPU inside a compiled step without gradients."""
    single = x.numel() == x.shape[-1] and x.device.type == "cpu"
    return single and torch.compiler.is_compiling() and not torch.is_grad_enabled()


def materialised(x: Tensor) -> Tensor:
    """Return `x` flat and fp32, computed once.

    Left to itself inductor puts what makes `x` (a norm, a SiLU) into the loop over the rows of the
    matrix and computes it again for every row. It can't look through `as_strided`.
    """
    return x.reshape(-1).float().as_strided((x.numel(),), (1,))


def replace_module(model: nn.Module, name: str, module: nn.Module) -> None:
    """Put `module` where `name` is."""
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)


class Linear(nn.Linear):
    """`nn.Linear` by way of `project`."""

    def forward(self, input: Tensor) -> Tensor:
        """Return (..., O)."""
        return project(input, self.weight, self.bias)


class RMSNorm(nn.Module):
    """Divide by the root mean square and scale (Zhang & Sennrich 2019); fp32 inside.

    Under autocast the result has autocast's dtype. The matrices that follow would round it to that
    anyway, each for itself, and each would keep its own copy for the backward pass. The residual
    stream stays fp32.
    """

    def __init__(self, size: int, *, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last axis; without autocast the dtype of `x` is kept."""
        x32 = x.float()
        scale = torch.rsqrt(x32.square().mean(-1, keepdim=True) + self.eps)
        return (x32 * scale * self.weight).to(matrix_dtype(x))

    def extra_repr(self) -> str:
        """Return what `print(model)` shows."""
        return f"{self.weight.shape[0]}, eps={self.eps}"


class SwiGLU(nn.Module):
    """`down(silu(gate(x)) * up(x))` (Shazeer 2020), without biases."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.fused = False
        hidden, ffn = config.hidden_size, config.intermediate_size
        self.gate_proj = Linear(hidden, ffn, bias=False)
        self.up_proj = Linear(hidden, ffn, bias=False)
        self.down_proj = Linear(ffn, hidden, bias=False)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """Return (B, T, D)."""
        if self.fused and self.training:
            gate_BTF, up_BTF = project_together(x_BTD, self.together)
        else:
            gate_BTF, up_BTF = self.gate_proj(x_BTD), self.up_proj(x_BTD)
        return self.down_proj(F.silu(gate_BTF) * up_BTF)

    @property
    def together(self) -> list[nn.Linear]:
        """Return the layers that read the same input."""
        return [self.gate_proj, self.up_proj]
