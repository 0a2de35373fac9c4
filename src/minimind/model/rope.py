"""Rotary positions: a pair of head dimensions turns with the token's position.

RoPE (Su et al. 2021) and the three ways to stretch it past the trained length. Frequencies and
angles are computed in fp32 with the formulas of transformers 5 (`rope_parameters`), so that an
exported checkpoint gives the same logits there. Nothing is stored in buffers: a model built on the
meta device or cast to bf16 keeps exact frequencies.

Axes: B batch, T query, K head dim.
"""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import Tensor

from minimind.config import ModelConfig, RopeScaling
from minimind.errors import ConfigError


def stretch(config: ModelConfig, scaling: RopeScaling) -> ModelConfig:
    """Return `config` with its context stretched by `scaling`.

    `linear` and `yarn` are fixed stretches: `max_position_embeddings` becomes the new length.
    `dynamic` depends on the length at hand and, in transformers, measures it from
    `max_position_embeddings`: that stays the trained length.
    """
    trained = scaling.original_max_position_embeddings
    length = trained if scaling.rope_type == "dynamic" else round(trained * scaling.factor)
    return dataclasses.replace(config, rope_scaling=scaling, max_position_embeddings=length)


def check_rope(config: ModelConfig) -> None:
    """Refuse a dynamic stretch whose trained length is ambiguous.

    Raises:
        ConfigError: `max_position_embeddings` is not the trained length.
    """
    scaling = config.rope_scaling
    if scaling is None or scaling.rope_type != "dynamic":
        return
    if scaling.original_max_position_embeddings != config.max_position_embeddings:
        raise ConfigError(
            f"model.max_position_embeddings = {config.max_position_embeddings}, but "
            "model.rope_scaling.original_max_position_embeddings = "
            f"{scaling.original_max_position_embeddings}: for rope_type dynamic both are the "
            "trained length (the stretch follows the length of each sequence); set them equal"
        )


def rotary_tables(config: ModelConfig, position_ids_BT: Tensor) -> tuple[Tensor, Tensor]:
    """Return cos and sin of every angle, (B, T, K) fp32; B is 1 if all rows share positions.

    With `dynamic` the frequencies depend on the largest position in this call. Through a cache,
    keys keep the frequencies of the call that wrote them (as in transformers), so past the trained
    length a sequence read in pieces differs from the same sequence read at once. Unlike
    transformers nothing is remembered from one call to the next.
    """
    frequencies_k = _frequencies(config, position_ids_BT)
    angles_BTk = position_ids_BT[..., None].float() * frequencies_k
    angles_BTK = torch.cat((angles_BTk, angles_BTk), dim=-1)
    factor = attention_factor(config.rope_scaling)
    return angles_BTK.cos() * factor, angles_BTK.sin() * factor


def rotate(x_BHTK: Tensor, cos_BTK: Tensor, sin_BTK: Tensor) -> Tensor:
    """Turn each pair (k, k + K/2) of `x` by its angle; fp32 inside, the dtype of `x` outside."""
    x32_BHTK = x_BHTK.float()
    first, second = x32_BHTK.chunk(2, dim=-1)
    turned_BHTK = torch.cat((-second, first), dim=-1)
    cos_B1TK, sin_B1TK = cos_BTK.unsqueeze(1), sin_BTK.unsqueeze(1)
    return (x32_BHTK * cos_B1TK + turned_BHTK * sin_B1TK).type_as(x_BHTK)


def attention_factor(scaling: RopeScaling | None) -> float:
    """Return YaRN's temperature on cos and sin, 0.1 ln(factor) + 1 (Peng et al. 2023, eq. 22)."""
    if scaling is None or scaling.rope_type != "yarn" or scaling.factor <= 1:
        return 1.0
    return 0.1 * math.log(scaling.factor) + 1.0


def _frequencies(config: ModelConfig, position_ids_BT: Tensor) -> Tensor:
    """Return radians a token for each of the K/2 pairs, fp32."""
    dim, device = config.head_dim, position_ids_BT.device
    exponent_k = torch.arange(0, dim, 2, dtype=torch.float32, device=device) / dim
    scaling = config.rope_scaling
    if scaling is None:
        return 1.0 / config.rope_theta**exponent_k
    if scaling.rope_type == "linear":
        return 1.0 / config.rope_theta**exponent_k / scaling.factor
    if scaling.rope_type == "dynamic":
        # The base grows just so that the lowest frequency covers the length at hand.
        trained = config.max_position_embeddings
        length = (position_ids_BT.max() + 1).clamp(min=trained)
        growth = (scaling.factor * length / trained) - (scaling.factor - 1)
        return 1.0 / (config.rope_theta * growth ** (dim / (dim - 2))) ** exponent_k
    return _yarn_frequencies(config, scaling, exponent_k)


def _yarn_frequencies(config: ModelConfig, scaling: RopeScaling, exponent_k: Tensor) -> Tensor:
    """Leave fast pairs alone, stretch slow ones by the factor, blend linearly between."""
    dim, theta = config.head_dim, config.rope_theta

    def pair_that_turns(times: float) -> float:
        trained = scaling.original_max_position_embeddings
        return dim * math.log(trained / (times * 2 * math.pi)) / (2 * math.log(theta))

    low = max(math.floor(pair_that_turns(scaling.beta_fast)), 0)
    high = min(math.ceil(pair_that_turns(scaling.beta_slow)), dim - 1)
    width = high - low if high != low else 0.001  # transformers' guard against a zero width
    pair_k = torch.arange(dim // 2, dtype=torch.float32, device=exponent_k.device)
    keep_k = 1 - ((pair_k - low) / width).clamp(0, 1)
    wavelength_k = theta**exponent_k
    return 1.0 / (scaling.factor * wavelength_k) * (1 - keep_k) + 1.0 / wavelength_k * keep_k
