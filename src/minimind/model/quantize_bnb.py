"""bitsandbytes in place of `nn.Linear`: LLM.int8 (Dettmers et al. 2022) and nf4 (QLoRA, 2023).

The state has bitsandbytes' own names and the configuration transformers' layout, so each reads what
the other wrote. The embedding and the head stay as they are, as in transformers.

Axes: O out, I in.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from minimind.errors import CheckpointError, ConfigError, require

METHODS = ("bnb-int8", "bnb-nf4")
OUTLIER = 6.0
"""LLM.int8 multiplies activation columns beyond this in 16 bits: its paper's figure."""

BLOCK, CPU_ROWS = 64, 32
"""nf4: weights that share a scale; rows that its CPU kernel packs together."""


def converter(method: str) -> Callable[[nn.Linear], nn.Module]:
    """Return what turns a plain layer into bitsandbytes' layer of `method`.

    The converter raises ConfigError for a shape that bitsandbytes' CPU kernel can't multiply with.

    Raises:
        MissingExtraError: bitsandbytes is not installed.
    """
    bnb = _bitsandbytes()

    def int8(linear: nn.Linear) -> nn.Module:
        weight = linear.weight.detach()
        return _int8_layer(
            bnb.nn.Int8Params(weight, requires_grad=False).to(weight.device), linear.bias
        )

    def nf4(linear: nn.Linear) -> nn.Module:
        weight = linear.weight.detach()
        if weight.shape[0] % CPU_ROWS or weight.shape[1] % BLOCK:
            raise ConfigError(
                f"bnb-nf4: a matrix is {weight.shape[0]} x {weight.shape[1]}; bitsandbytes' CPU "
                f"kernel wants multiples of {CPU_ROWS} and {BLOCK}. Use int4 or bnb-int8"
            )
        quantized = bnb.nn.Params4bit(
            weight, requires_grad=False, quant_type="nf4", compress_statistics=False
        )
        return _nf4_layer(quantized.to(weight.device), linear.bias, tuple(weight.shape))

    return int8 if method == "bnb-int8" else nf4


def from_tensors(method: str, shape: tuple[int, int], tensors: Mapping[str, Tensor]) -> nn.Module:
    """Return the layer that was saved as `tensors` (`weight`, `SCB`, ..., without the prefix).

    Args:
        method: `bnb-int8` or `bnb-nf4`.
        shape: (O, I) of the plain matrix.
        tensors: what a file has of it.

    Raises:
        CheckpointError: something is missing, or of another shape.
        MissingExtraError: bitsandbytes is not installed.
    """
    bnb = _bitsandbytes()
    state = dict(tensors)
    try:
        weight, bias = state.pop("weight"), state.pop("bias", None)
        if method == "bnb-int8":
            scales = state.pop("SCB")
            _check(weight.shape == shape and scales.shape == shape[:1], weight, torch.int8)
            # Filled at once: the first forward pass takes both from the weight.
            return _int8_layer(
                bnb.nn.Int8Params(weight, requires_grad=False, CB=weight, SCB=scales), bias
            )
        _check(weight.numel() * 2 == shape[0] * shape[1], weight, torch.uint8)
        quantized = bnb.nn.Params4bit.from_prequantized(weight, state, device=str(weight.device))
        _check(tuple(quantized.quant_state.shape) == shape, weight, torch.uint8)
        return _nf4_layer(quantized, bias, shape)
    except (KeyError, ValueError, AssertionError) as error:
        raise CheckpointError(f"not a matrix of {method}: {error}") from error


def _check(fits: bool, weight: Tensor, dtype: torch.dtype) -> None:
    if not fits or weight.dtype != dtype:
        raise ValueError(f"its weight is {tuple(weight.shape)} {weight.dtype}")


def _int8_layer(weight: Any, bias: Tensor | None) -> nn.Module:
    bnb = _bitsandbytes()
    out_features, in_features = weight.shape
    layer = bnb.nn.Linear8bitLt(
        in_features, out_features, bias=bias is not None, has_fp16_weights=False,
        threshold=OUTLIER, device="meta",
    )  # fmt: skip
    layer.weight = weight
    return _with_bias(layer, bias)


def _nf4_layer(weight: Any, bias: Tensor | None, shape: tuple[int, ...]) -> nn.Module:
    bnb = _bitsandbytes()
    layer = bnb.nn.Linear4bit(
        shape[1], shape[0], bias=bias is not None, compute_dtype=torch.bfloat16,
        compress_statistics=False, quant_type="nf4", device="meta",
    )  # fmt: skip
    layer.weight, layer.quant_state = weight, weight.quant_state
    weight.module = layer
    return _with_bias(layer, bias)


def _with_bias(layer: nn.Module, bias: Tensor | None) -> nn.Module:
    if bias is not None:
        layer.bias = nn.Parameter(bias.detach(), requires_grad=False)
    return layer


def _bitsandbytes() -> Any:
    # One line for every product that isn't fp16, which it casts to as it should.
    logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)
    return require("bitsandbytes", extra="quantize")
