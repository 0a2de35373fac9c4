"""Several processes, one step: sums over ranks by hand, so that the loop stays the only divider.

`torchrun --nproc-per-node 2 -m minimind train ...` sets RANK, WORLD_SIZE and LOCAL_RANK;
`World.from_env` joins that group. With one process every method is a no-op.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

BUCKET_ELEMENTS = 16 * 2**20
"""Gradients travel in flat buckets of this many elements (64 MB of fp32): few messages, and the
copy stays small beside the model."""


@dataclass(frozen=True, kw_only=True)
class World:
    """The processes of a run.

    Attributes:
        rank: number of this process, from 0.
        size: how many there are.
        local_rank: number of this process on its machine; its CUDA device.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @classmethod
    def from_env(cls, *, device: str = "auto") -> World:
        """Join the group that torchrun describes in the environment, or stay alone.

        Args:
            device: `cuda` (NCCL), `cpu` (gloo), or `auto`: CUDA where there is one.
        """
        size = int(os.environ.get("WORLD_SIZE", "1"))
        if size == 1:
            return cls()
        world = cls(
            rank=int(os.environ["RANK"]), size=size, local_rank=int(os.environ["LOCAL_RANK"])
        )
        on_gpu = device == "cuda" or (device == "auto" and torch.cuda.is_available())
        if on_gpu:
            torch.cuda.set_device(world.local_rank)
        if not dist.is_initialized():
            dist.init_process_group("nccl" if on_gpu else "gloo")
        return world

    @property
    def is_main(self) -> bool:
        """Tell whether this process logs, validates and saves."""
        return self.rank == 0

    def sum_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Replace each gradient by its sum over the ranks; a missing one counts as zero."""
        if self.size == 1:
            return
        gradients = []
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            gradients.append(parameter.grad)
        for bucket in _buckets(gradients):
            flat = torch.cat([gradient.reshape(-1) for gradient in bucket])
            dist.all_reduce(flat)
            parts = flat.split([gradient.numel() for gradient in bucket])
            for gradient, part in zip(bucket, parts, strict=True):
                gradient.copy_(part.view_as(gradient))

    def sum_values(self, values: dict[str, float]) -> dict[str, float]:
        """Return each value summed over the ranks; a key that a rank lacks counts as zero."""
        if self.size == 1:
            return values
        gathered: list[dict[str, float]] = [{}] * self.size
        dist.all_gather_object(gathered, values)
        totals: dict[str, float] = {}
        for one in gathered:
            for name, value in one.items():
                totals[name] = totals.get(name, 0.0) + value
        return totals

    def barrier(self) -> None:
        """Wait until every rank is here."""
        if self.size > 1:
            dist.barrier()

    def leave(self) -> None:
        """Leave the group, at the end of the run."""
        if self.size > 1 and dist.is_initialized():
            dist.destroy_process_group()


def _buckets(gradients: list[Tensor]) -> Iterable[list[Tensor]]:
    bucket: list[Tensor] = []
    elements = 0
    for gradient in gradients:
        same_kind = not bucket or bucket[0].dtype == gradient.dtype
        if bucket and (elements + gradient.numel() > BUCKET_ELEMENTS or not same_kind):
            yield bucket
            bucket, elements = [], 0
        bucket.append(gradient)
        elements += gradient.numel()
    if bucket:
        yield bucket
