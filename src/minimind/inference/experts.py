"""Which experts of a mixture take which tokens: what the routers decide, read without training.

Axes: B batch, T query, N tokens, L layers, E experts, C choices of a token.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from minimind.data.batch import Batch
from minimind.errors import ConfigError
from minimind.model import CausalLM
from minimind.model.moe import Router


def routers_of(model: CausalLM) -> list[Router]:
    """Return the routers of a model, a layer each.

    Raises:
        ConfigError: it has none.
    """
    routers = [module for module in model.modules() if isinstance(module, Router)]
    if not routers:
        raise ConfigError("the model is dense: no router chooses experts for its tokens")
    return routers


@contextmanager
def recorded(routers: Sequence[Router]) -> Iterator[list[list[Tensor]]]:
    """Collect the logits (N, E) of every call of each router while the context is open."""
    seen: list[list[Tensor]] = [[] for _ in routers]

    def keep(logits: list[Tensor]) -> object:
        def hook(_module: nn.Module, _inputs: object, output: Tensor) -> None:
            logits.append(output.detach())

        return hook

    handles = [
        router.register_forward_hook(keep(logits))  # pyright: ignore[reportArgumentType]
        for router, logits in zip(routers, seen, strict=True)
    ]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def chosen_experts(model: CausalLM, ids: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Return the experts of each token of a text (L, T, C) int64, and their weights, fp32.

    Args:
        model: in eval mode.
        ids: its tokens.

    Raises:
        ConfigError: the model has no experts.
    """
    routers = routers_of(model)
    device = next(model.parameters()).device
    with recorded(routers) as seen:
        model(torch.tensor([list(ids)], device=device), logits="none")
    pairs = [router.choose(logits[0]) for router, logits in zip(routers, seen, strict=True)]
    return torch.stack([c for c, _ in pairs]).cpu(), torch.stack([w for _, w in pairs]).cpu()


@torch.no_grad()
def expert_loads(model: CausalLM, batches: Iterable[Batch]) -> Tensor:
    """Return the share of the choices that each expert gets, (L, E) fp32: rows sum to 1.

    Args:
        model: any mode; it is read in eval mode and left as it was.
        batches: padding (document -1) is not counted.

    Raises:
        ConfigError: the model has no experts.
    """
    routers = routers_of(model)
    device, was_training = next(model.parameters()).device, model.training
    counts_LE = torch.zeros(len(routers), routers[0].config.num_experts)
    model.eval()
    for batch in batches:
        with recorded(routers) as seen:
            model(
                batch.input_ids.to(device),
                position_ids=None if batch.position_ids is None else batch.position_ids.to(device),
                document_ids=None if batch.document_ids is None else batch.document_ids.to(device),
                logits="none",
            )
        real_N = torch.ones(batch.input_ids.numel(), dtype=torch.bool)
        if batch.document_ids is not None:
            real_N = batch.document_ids.flatten().cpu() >= 0
        for layer, (router, logits) in enumerate(zip(routers, seen, strict=True)):
            chosen_NC, _ = router.choose(logits[0])
            counts_LE[layer] += torch.bincount(
                chosen_NC.cpu()[real_N].flatten(), minlength=counts_LE.shape[1]
            )
    model.train(was_training)
    return counts_LE / counts_LE.sum(1, keepdim=True).clamp(min=1)
