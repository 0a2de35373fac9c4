"""Several processes, one step: sums over ranks by hand, so that the loop stays the only divider.

`torchrun --nproc-per-node 2 -m minimind train ...` sets RANK, WORLD_SIZE and LOCAL_RANK;
`World.from_env` joins that group. With one process every method is a no-op.

Two ways to share a step, `train.parallel`:

    replicate   each process holds the whole model; gradients are summed once a step (here)
    shard       each holds its share of weights, gradients and optimizer (`train.sharding`, FSDP2)

Both give the losses of one process, up to the rounding of sums in another order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.rendezvous import rendezvous

from minimind.config import TrainConfig
from minimind.data.batch import Batch
from minimind.errors import ConfigError
from minimind.model import CausalLM
from minimind.train.optim import Muon, Optimizer
from minimind.train.rendezvous import Place, attempt_store

if TYPE_CHECKING:
    from minimind.train.trainer import Trainer

BUCKET_ELEMENTS = 16 * 2**20
"""Gradients travel in flat buckets of this many elements (64 MB of fp32): few messages, and the
copy stays small beside the model."""

PATIENCE = timedelta(minutes=30)
"""How long a rank waits for the others: the first validates, samples and saves while they wait. A
process that died is noticed at once; this is for a machine that fell silent."""


@dataclass(frozen=True, kw_only=True)
class World:
    """The processes of a run, each with the whole model.

    Attributes:
        rank: number of this process, from 0.
        size: how many there are.
        local_rank: number of this process on its machine; its CUDA device.
        muon: the Muon that is right for how weights lie on the ranks.
        compiles_layers: `spread` compiles each layer, so the loop doesn't compile the whole.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    muon: ClassVar[type[Muon]] = Muon
    compiles_layers: ClassVar[bool] = False

    @classmethod
    def from_env(cls, *, device: str = "auto") -> World:
        """Join the group that torchrun describes in the environment, or stay alone.

        Args:
            device: `cuda` (NCCL), `cpu` (gloo), or `auto`: CUDA where there is one.

        Raises:
            ConfigError: a machine has more processes than GPUs; or the environment is not what
                torchrun makes of it.
            LostRankError: a process didn't come within half an hour.
        """
        place = Place.from_env()
        if place.size == 1:
            return cls()
        world = cls(rank=place.rank, size=place.size, local_rank=place.local_rank)
        on_gpu = device == "cuda" or (device == "auto" and torch.cuda.is_available())
        if on_gpu:
            if world.local_rank >= torch.cuda.device_count():
                raise ConfigError(
                    f"process {world.local_rank} of this machine has no GPU of its own: there are "
                    f"{torch.cuda.device_count()}. torchrun --nproc-per-node at most that many"
                )
            torch.cuda.set_device(world.local_rank)
        if not dist.is_initialized():
            store, rank, size = next(rendezvous("env://", timeout=PATIENCE))
            dist.init_process_group(
                "nccl" if on_gpu else "gloo",
                store=attempt_store(store, rank, size, timeout=PATIENCE),
                rank=rank,
                world_size=size,
                timeout=PATIENCE,
            )
        return world

    @property
    def is_main(self) -> bool:
        """Tell whether this process logs, validates and saves."""
        return self.rank == 0

    def spread(self, model: CausalLM, config: TrainConfig) -> CausalLM:
        """Lay the weights out over the ranks; return a whole model for the main rank's hooks."""
        return model

    def whole(self, model: CausalLM) -> CausalLM:
        """Return the model with all weights, as they are now, on the main rank."""
        return model

    def even(self, micro_batches: Sequence[Batch]) -> Sequence[Batch]:
        """Return this rank's micro-batches; as many on all ranks if they need each other."""
        return micro_batches

    def after_hooks(self, trainer: Trainer) -> None:
        """Called on each rank behind the main rank's hooks."""

    def optimizer_writer(self, state: dict[str, Any]) -> Callable[[Path], None] | None:
        """Return what writes the optimizer's state if no rank has all of it; it leaves `state`."""
        return None

    def read_optimizer(self, folder: Path, state: dict[str, Any], optimizer: Optimizer) -> None:
        """Put the optimizer's state of a checkpoint into `state`, as this rank needs it.

        Args:
            folder: the checkpoint; sharded state is read from its `optimizer` folder.
            state: from `load_trainer_state`; it has the whole optimizer's state or none.
            optimizer: of this run.
        """
        if "optimizer" not in state:
            from minimind.train.sharded_state import read_sharded

            state["optimizer"] = read_sharded(folder, optimizer)

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

    def norm(self, gradients: Sequence[Tensor]) -> Tensor:
        """Return the norm of the whole gradient."""
        return torch.nn.utils.get_total_norm(gradients)

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


def join(config: TrainConfig) -> World:
    """Return the world of a run: alone, replicated or sharded (`train.parallel`)."""
    if config.parallel == "shard" and Place.from_env().size > 1:
        from minimind.train.sharding import ShardedWorld

        return ShardedWorld.from_env(device=config.device)
    return World.from_env(device=config.device)


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
