"""Matrices of 8 and 4 bits in place of `nn.Linear` and `nn.Embedding`: weights only.

Activations are not quantised.

Which product is taken was chosen by CPU time, one thread, 4096 x 512 (ms, for 1 / 16 / 128 tokens):

| | 1 | 16 | 128 |
|---|---|---|---|
| bf16 weights, `F.linear` | 0.23 | 1.07 | 3.2 |
| int8, bf16, `_weight_int8pack_mm` | 0.11 | 1.03 | 7.8 |
| int8, bf16, convert, then `F.linear` | 0.98 | 1.17 | 3.9 |
| int4, bf16, `_weight_int4pack_mm_for_cpu` | 0.12 | 0.85 | 7.7 |
| int8, fp32, `_weight_int8pack_mm` | 1.75 | 28 | 226 |
| int8, fp32, convert, then `F.linear` | 0.34 | 1.2 | 7.2 |
| int4, fp32, `_weight_int4pack_mm_for_cpu` | 3.7 | 58 | 481 |

In fp32 torch's kernels are plain loops. So int8 takes its kernel for up to `KERNEL_TOKENS` tokens
in bf16, and converts for a library product else; int4 takes its kernel always, in bf16: converting
needs the weights in another order, a second time in memory.

Axes: O out, I in, G groups of a row, g weights of a group.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from minimind.model.layers import is_single_compiled, materialised

KERNEL_TOKENS = 16
_ALIGNED = 16
"""torch's int8 kernel reads so many weights at once, from such an address only: others crash it."""
_ROWS_MULTIPLE = 16
"""The int4 kernel packs so many rows together."""


class QuantizedMatrix(nn.Module):
    """An (O, I) matrix of few bits, with an optional bias (O,)."""

    bias: Tensor | None
    out_features: int
    in_features: int

    def dequantize(self) -> Tensor:
        """Return the (O, I) matrix that this stands for."""
        raise NotImplementedError

    def product(self, x: Tensor) -> Tensor:
        """Return `x W^T`, (..., O), in the dtype of `x`."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """Return `x W^T + b`, (..., O)."""
        out = self.product(x)
        return out if self.bias is None else out + self.bias.to(out.dtype)

    def extra_repr(self) -> str:
        """Return what `print(model)` shows."""
        return f"{self.in_features}, {self.out_features}"


class Int8Linear(QuantizedMatrix):
    """Rows of int8, each with one scale: `W[o, i] = weight[o, i] * scale[o]`.

    Args:
        weight_OI: (O, I) int8.
        scale_O: (O,), of the dtype that is computed in.
        bias_O: (O,) or None.
    """

    weight: Tensor
    scale: Tensor

    def __init__(self, weight_OI: Tensor, scale_O: Tensor, bias_O: Tensor | None = None) -> None:
        super().__init__()
        self.out_features, self.in_features = weight_OI.shape
        self.register_buffer("weight", weight_OI)
        self.register_buffer("scale", scale_O)
        self.register_buffer("bias", bias_O)

    @classmethod
    def of(cls, weight_OI: Tensor, bias_O: Tensor | None = None) -> Int8Linear:
        """Round a matrix. The scale is rounded to bf16 first: no later cast changes the weights."""
        w_OI = weight_OI.detach().float()
        scale_O = _as_scale(w_OI.abs().amax(1) / 127)
        q_OI = (w_OI / scale_O[:, None]).round().clamp(-127, 127).to(torch.int8)
        bias = None if bias_O is None else bias_O.detach()
        return cls(q_OI, scale_O.to(weight_OI.dtype), bias)

    def pack(self) -> None:
        """Move weights that lie at an odd address, as those in a mapped file may."""
        if self.weight.device.type == "cpu" and self.weight.data_ptr() % _ALIGNED:
            self.weight = self.weight.clone()

    def dequantize(self) -> Tensor:
        """Return the (O, I) matrix that this stands for, in the dtype of its scales."""
        return self.weight.to(self.scale.dtype) * self.scale[:, None]

    def product(self, x: Tensor) -> Tensor:
        """Return `x W^T`, (..., O), in the dtype of `x`."""
        tokens = x.numel() // self.in_features
        scale_O = self.scale.to(x.dtype)
        if is_single_compiled(x):  # one loop over the matrix, as in `layers.project`
            out_O = (self.weight.float() * materialised(x)).sum(-1) * scale_O
            return out_O.to(x.dtype).view(*x.shape[:-1], -1)
        few = tokens <= KERNEL_TOKENS and self.in_features % _ALIGNED == 0
        if few and x.device.type == "cpu" and x.dtype == torch.bfloat16:
            out = torch.ops.aten._weight_int8pack_mm(x.reshape(tokens, -1), self.weight, scale_O)
            return out.view(*x.shape[:-1], -1)
        return F.linear(x, self.weight.to(x.dtype)) * scale_O


class Int8Embedding(Int8Linear):
    """An embedding with rows of int8; `product` is the output matrix of a tied head."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the rows of ids `x` (...), (..., D), in the dtype of the scales."""
        return self.weight[x].to(self.scale.dtype) * self.scale[x][..., None]


class Int4Linear(QuantizedMatrix):
    """Groups of `I / G` nibbles: `W = (nibble - 8) * scale + zero`, one scale and zero a group.

    Column i of the left half lies in the low nibble of byte i, column `I / 2 + i` in the high one.
    That is the state. On a CPU `pack` puts it in the order that torch's kernel wants on this
    processor instead, and a state is made from that again when it is asked for: to keep both would
    take as much memory as 8 bits.

    Args:
        packed: (O, I / 2) uint8.
        scale_OG: (O, G), of values that bf16 holds, as the kernel wants.
        zero_OG: (O, G), likewise.
        bias_O: (O,) or None.
    """

    packed: Tensor | None
    scale: Tensor | None
    zero: Tensor | None
    kernel_weight: Tensor | None
    kernel_scales: Tensor | None

    def __init__(
        self, packed: Tensor, scale_OG: Tensor, zero_OG: Tensor, bias_O: Tensor | None = None
    ) -> None:
        super().__init__()
        self.out_features, self.in_features = packed.shape[0], packed.shape[1] * 2
        self.group_size = self.in_features // scale_OG.shape[1]
        self.register_buffer("packed", packed)
        self.register_buffer("scale", scale_OG)
        self.register_buffer("zero", zero_OG)
        self.register_buffer("bias", bias_O)
        self.register_buffer("kernel_weight", None, persistent=False)
        self.register_buffer("kernel_scales", None, persistent=False)

    @staticmethod
    def fits(weight_OI: Tensor, group_size: int) -> bool:
        """Tell whether the kernel has this shape: whole groups in a row, a multiple of 16 rows."""
        out_features, in_features = weight_OI.shape
        return in_features % group_size == 0 and out_features % _ROWS_MULTIPLE == 0

    @classmethod
    def of(cls, weight_OI: Tensor, bias_O: Tensor | None = None, *, group_size: int) -> Int4Linear:
        """Round a matrix: the 16 values of a group lie evenly from its lowest to highest weight.

        Narrower grids that clip the extremes have a smaller squared error, and were no better in
        bits per byte (docs/LOG.md).
        """
        half = weight_OI.shape[1] // 2
        w_OGg = weight_OI.detach().float().unflatten(1, (-1, group_size))
        low_OG1, high_OG1 = w_OGg.amin(-1, keepdim=True), w_OGg.amax(-1, keepdim=True)
        step_OG1 = (high_OG1 - low_OG1) / 15
        # Nibbles 0 to 15 are -8 to 7: the middle lies half a step below the zero.
        zero_OG1 = ((high_OG1 + low_OG1 + step_OG1) / 2).bfloat16().float()
        scale_OG1 = _as_scale(step_OG1)
        q_OGg = ((w_OGg - zero_OG1) / scale_OG1).round() + 8
        q_OI = q_OGg.clamp(0, 15).flatten(1).to(torch.uint8)
        packed = q_OI[:, :half] | (q_OI[:, half:] << 4)
        scale_OG, zero_OG = (t[..., 0].bfloat16() for t in (scale_OG1, zero_OG1))
        return cls(packed, scale_OG, zero_OG, None if bias_O is None else bias_O.detach())

    def pack(self) -> None:
        """Put the weights in the kernel's order, on a CPU; does nothing if they are."""
        if self.packed is None or self.packed.device.type != "cpu":
            return
        packed, scale_OG, zero_OG = self.plain()
        nibbles_OI = _unpack(packed).to(torch.int32)
        self.kernel_weight = torch.ops.aten._convert_weight_to_int4pack_for_cpu(nibbles_OI, 1)
        scales_OG2 = torch.stack((scale_OG, zero_OG), -1).bfloat16()
        self.kernel_scales = scales_OG2.transpose(0, 1).contiguous()
        self.packed = self.scale = self.zero = None

    def unpack(self) -> None:
        """Put the weights back in the order of the state."""
        self.packed, self.scale, self.zero = self.plain()
        self.kernel_weight = self.kernel_scales = None

    def plain(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return `packed`, `scale` and `zero` as in the state, whatever order they are in."""
        if self.packed is not None and self.scale is not None and self.zero is not None:
            return self.packed, self.scale, self.zero
        assert self.kernel_weight is not None
        assert self.kernel_scales is not None
        # The kernel's order differs between processors. It says itself which nibble is where: with
        # scales of 1 and zeros of 0, its product with the identity is the nibbles less 8.
        units = torch.ones_like(self.kernel_scales)
        units[..., 1] = 0
        identity = torch.eye(self.in_features, dtype=torch.bfloat16)
        nibbles_IO = self._kernel(identity, self.kernel_weight, units) + 8
        nibbles_OI = nibbles_IO.T.to(torch.uint8)
        left, right = nibbles_OI.chunk(2, dim=1)
        scale_OG, zero_OG = self.kernel_scales.transpose(0, 1).unbind(-1)
        return left | (right << 4), scale_OG.contiguous(), zero_OG.contiguous()

    def dequantize(self) -> Tensor:
        """Return the (O, I) matrix that this stands for, in fp32."""
        packed, scale_OG, zero_OG = self.plain()
        q_OGg = _unpack(packed).unflatten(1, (-1, self.group_size)).float()
        return ((q_OGg - 8) * scale_OG[..., None] + zero_OG[..., None]).flatten(1)

    def product(self, x: Tensor) -> Tensor:
        """Return `x W^T`, (..., O), in the dtype of `x`; on a CPU it is computed in bf16."""
        if self.kernel_weight is None or self.kernel_scales is None:
            return F.linear(x, self.dequantize().to(x.dtype))
        x_TI = x.reshape(-1, self.in_features).bfloat16()
        out_TO = self._kernel(x_TI, self.kernel_weight, self.kernel_scales)
        return out_TO.to(x.dtype).view(*x.shape[:-1], -1)

    def _kernel(self, x_TI: Tensor, weight: Tensor, scales_GO2: Tensor) -> Tensor:
        return torch.ops.aten._weight_int4pack_mm_for_cpu(x_TI, weight, self.group_size, scales_GO2)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Move or cast (`to`, `float`, ...): other devices don't know this kernel's order."""
        if fn(torch.empty(0)).device.type != "cpu" and self.kernel_weight is not None:
            self.unpack()
        kernel_scales = self.kernel_scales
        super()._apply(fn, recurse)
        self.kernel_scales = kernel_scales  # bf16 in whatever dtype the activations are
        self.pack()
        return self

    def _save_to_state_dict(
        self, destination: dict[str, Tensor], prefix: str, keep_vars: bool
    ) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        for name, tensor in zip(("packed", "scale", "zero"), self.plain(), strict=True):
            destination[prefix + name] = tensor


def _unpack(packed: Tensor) -> Tensor:
    """Return the (O, I) nibbles, uint8."""
    return torch.cat((packed & 15, packed >> 4), dim=1)


def _as_scale(x: Tensor) -> Tensor:
    """Round to what bf16 holds; a group of zeros gets a scale that can be divided by."""
    return x.bfloat16().float().where(x.abs() > 1e-30, 1.0)
