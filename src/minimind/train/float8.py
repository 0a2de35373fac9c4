"""`train.precision = "fp8"`: the layers' matrix products in 8 bits, by torchao.

Inputs, weights and gradients are scaled by their largest value and rounded just before each
product (Micikevicius et al. 2022: e4m3 forward, e5m2 for gradients). The weights themselves stay
fp32, under their names: the optimizer, checkpoints and exports know nothing of it.
"""

from __future__ import annotations

from torch import nn

from minimind.errors import ConfigError
from minimind.model import CausalLM

_MULTIPLE = 16
"""Sides of a matrix must be multiples of this (cuBLAS)."""


def use_float8(model: CausalLM, *, emulate: bool = False) -> list[str]:
    """Let the matrices of the layers multiply in 8 bits; return their names.

    Not the output head, not routers, not experts (whose products are grouped), no matrix with a
    side that isn't a multiple of 16.

    Args:
        model: its layers are replaced, its parameters are not.
        emulate: round as the 8 bits would and multiply in full: slow, runs anywhere, for measuring
            what the rounding costs (`bench/recipe.py --compare float8`).

    Raises:
        ConfigError: no layer of the model can.
    """
    from torchao.float8 import Float8LinearConfig, convert_to_float8_training  # pyright: ignore[reportMissingImports]

    names: list[str] = []

    def fits(module: nn.Module, name: str) -> bool:
        inside = name.startswith("model.layers.") and not name.endswith("mlp.gate")
        if not inside or not isinstance(module, nn.Linear):
            return False
        if module.in_features % _MULTIPLE or module.out_features % _MULTIPLE:
            return False
        names.append(name)
        return True

    # Padding is for a backward pass over a number of tokens that isn't a multiple of 16.
    config = Float8LinearConfig(emulate=emulate, pad_inner_dim=True)
    convert_to_float8_training(model, config=config, module_filter_fn=fits)
    if not names:
        raise ConfigError(
            "train.precision = 'fp8': no matrix of this model's layers can multiply in 8 bits; "
            "adapters ([lora]) can't either. Use --train.precision bf16"
        )
    return names
