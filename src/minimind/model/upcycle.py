"""A dense model made a mixture of experts: sparse upcycling (Komatsuzaki et al. 2022).

Every expert starts as a copy of the dense feed-forward. With weights that add up to 1 the mixture
then computes what the dense model computes, whatever the router says, and training goes on from
there; the experts part as they see different tokens.

Narrower experts start as slices of the feed-forward (He et al. 2024, fine-grained upcycling). Their
results are scaled so that the mean over all experts is the dense result; a token takes only some
of them, so the function changes, and training has to mend it.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from minimind.config import ModelConfig, MoEConfig
from minimind.errors import ConfigError
from minimind.model.moe import MATRICES, SparseMoE
from minimind.model.transformer import CausalLM, DecoderLayer


def upcycle(model: CausalLM, moe: MoEConfig, *, noise: float = 0.0) -> CausalLM:
    """Return a mixture of experts that starts from a dense model.

    Args:
        model: dense, with plain weights; left as it is.
        moe: `moe_intermediate_size` is the model's `intermediate_size`, or divides it; then
            `num_experts` is a multiple of the number of slices.
        noise: standard deviation of what is added to the experts, as a share of their weights' own.

    Raises:
        ConfigError: the model has experts already, or the sizes don't divide.
    """
    config = model.config
    slices = count_slices(config, moe)
    mixture = CausalLM(dataclasses.replace(config, moe=moe))
    state = model.state_dict()
    kept = {name: tensor for name, tensor in state.items() if ".mlp." not in name}
    fresh = {name: tensor for name, tensor in mixture.state_dict().items() if name not in kept}
    mixture.load_state_dict(fresh | kept)
    with torch.no_grad():
        for layer, dense in zip(mixture.model.layers, model.model.layers, strict=True):
            assert isinstance(layer, DecoderLayer)
            assert isinstance(layer.mlp, SparseMoE)
            for name in MATRICES:
                matrix = dense.get_submodule(f"mlp.{name}").get_parameter("weight")
                stacked = layer.mlp.experts.get_parameter(name)
                stacked.copy_(_experts(matrix, name, slices=slices, copies=len(stacked) // slices))
                stacked += noise * matrix.std() * torch.randn_like(stacked)
    return mixture.train(model.training)


def count_slices(config: ModelConfig, moe: MoEConfig) -> int:
    """Return into how many experts one feed-forward is cut: 1 where each gets a copy.

    Raises:
        ConfigError: see `upcycle`.
    """
    if config.moe is not None:
        raise ConfigError("init.upcycle: the checkpoint has experts already; leave it out")
    dense, width = config.intermediate_size, moe.moe_intermediate_size
    if dense % width:
        raise ConfigError(
            f"init.upcycle.moe_intermediate_size = {width} doesn't divide the checkpoint's "
            f"intermediate_size = {dense}: experts are copies ({dense}) or even slices of it"
        )
    if moe.num_experts % (dense // width):
        raise ConfigError(
            f"init.upcycle.num_experts = {moe.num_experts} can't be divided by {dense // width}, "
            f"the slices of {width} in the checkpoint's intermediate_size = {dense}"
        )
    return dense // width


def _experts(matrix_OI: Tensor, name: str, *, slices: int, copies: int) -> Tensor:
    """Return (E, O, I): the slices of one matrix, all of them `copies` times."""
    is_down = name == "down_proj"
    parts = torch.stack(matrix_OI.chunk(slices, dim=1 if is_down else 0))
    return parts.repeat(copies, 1, 1) * (slices if is_down else 1)
