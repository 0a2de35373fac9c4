"""`train.parallel = "shard"`: each rank has its share of weights, gradients and optimizer (FSDP2).

Rows of every parameter are spread over the ranks. A layer's weights are gathered just before it
runs, forward and backward, and its gradients go to the ranks that own them. What needs whole
weights on one rank (validation, samples, the checkpoint) gets a copy that is refreshed then: the
main rank runs its hooks and the others follow, gathering when it asks.

Muon orthogonalises whole matrices: those of one shape are dealt out to the ranks, each gathers its
own, orthogonalises them, and sends the rows back to where they live (`ShardedMuon`).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from minimind.config import TrainConfig
from minimind.data.batch import IGNORE, Batch
from minimind.errors import ConfigError
from minimind.model import CausalLM
from minimind.train.device import has_fast_bf16
from minimind.train.distributed import World
from minimind.train.optim import Muon, Optimizer, orthogonalize
from minimind.train.sharded_state import write_sharded

if TYPE_CHECKING:
    from minimind.train.trainer import Trainer

_GO_ON, _GATHER, _WRITE = "go on", "gather", "write"


class ShardedMuon(Muon):
    """Muon whose parameters are rows of matrices: each matrix is orthogonalised whole, once.

    Matrices of one shape are dealt out evenly. Two exchanges: rows to the rank that orthogonalises
    their matrix, and back. Stacks of experts are spread by expert, so each rank has whole matrices
    already. Element by element the update is that of `Muon` on one process.
    """

    def _update(self, parameters: list[nn.Parameter], group: dict[str, Any]) -> None:
        shards = [cast("DTensor", parameter).to_local() for parameter in parameters]
        work = torch.bfloat16 if has_fast_bf16(shards[0].device) else torch.float32
        ahead = [
            cast("DTensor", self._look_ahead(p, momentum=group["momentum"])).to_local().to(work)
            for p in parameters
        ]
        if parameters[0].ndim > 2:
            directions = [orthogonalize(one) if one.numel() else one for one in ahead]
        else:
            directions = _orthogonalize_dealt(torch.stack(ahead), rows=parameters[0].shape[0])
        rows, columns = parameters[0].shape[-2:]
        scale = math.sqrt(max(1.0, rows / columns))
        for shard, direction in zip(shards, directions, strict=True):
            shard.mul_(1 - group["lr"] * group["weight_decay"])
            shard.add_(direction, alpha=-group["lr"] * scale)


def _orthogonalize_dealt(mine_NrC: Tensor, *, rows: int) -> Tensor:
    """Orthogonalise N matrices of which each rank has some rows; return this rank's rows of them.

    Args:
        mine_NrC: (N, this rank's rows, columns).
        rows: of a whole matrix. Rank r has rows as `torch.chunk` deals them.
    """
    N, _, C = mine_NrC.shape
    size, rank = dist.get_world_size(), dist.get_rank()
    rows_of = _chunks(rows, size)
    matrices_of = _chunks(N, size)
    mine = mine_NrC.contiguous().flatten()
    # Rank r gets my rows of its matrices; I get everyone's rows of mine.
    sent = [count * rows_of[rank] * C for count in matrices_of]
    received = [matrices_of[rank] * count * C for count in rows_of]
    gathered = mine.new_empty(sum(received))
    dist.all_to_all_single(gathered, mine, received, sent)
    parts = [
        part.view(matrices_of[rank], count, C)
        for part, count in zip(gathered.split(received), rows_of, strict=True)
    ]
    whole_nRC = torch.cat(parts, dim=1)
    if whole_nRC.numel():
        whole_nRC = orthogonalize(whole_nRC)
    back = torch.cat([part.flatten() for part in whole_nRC.split(rows_of, dim=1)])
    mine_NrC = torch.empty_like(mine).view_as(mine_NrC)  # what was given stays as it is
    dist.all_to_all_single(mine_NrC.view(-1), back, sent, received)
    return mine_NrC


def _chunks(total: int, parts: int) -> list[int]:
    """Return the sizes of `torch.chunk`, with zeros for the parts that get nothing."""
    size = -(-total // parts)
    return [max(0, min(size, total - size * part)) for part in range(parts)]


@dataclass(frozen=True, kw_only=True)
class ShardedWorld(World):
    """The processes of a run, each with a share of the model."""

    muon: ClassVar[type[Muon]] = ShardedMuon
    compiles_layers: ClassVar[bool] = True
    _copies: list[CausalLM] = field(default_factory=list, compare=False)

    def spread(self, model: CausalLM, config: TrainConfig) -> CausalLM:
        """Shard each layer and the rest; return the copy that the main rank's hooks use.

        Raises:
            ConfigError: something that needs whole weights is asked for.
        """
        _check(model, config)
        whole = copy.deepcopy(model) if self.is_main else model
        if self.is_main:
            self._copies.append(whole.requires_grad_(requires_grad=False))
        mesh = init_device_mesh(next(model.parameters()).device.type, (self.size,))
        for layer in model.model.layers:
            if config.compile:  # what is compiled can't gather, so layer by layer
                layer.compile(dynamic=False)
            fully_shard(layer, mesh=mesh)
        fully_shard(model, mesh=mesh)
        for module in model.modules():
            if isinstance(module, FSDPModule):
                # Sums, which the loop divides once; gloo and NCCL both know how.
                module.set_gradient_divide_factor(1.0)
                module.set_force_sum_reduction_for_comms(True)
        return whole

    def whole(self, model: CausalLM) -> CausalLM:
        """Gather the weights; the main rank gets its copy of the model with them."""
        self._command(_GATHER)
        return self._gather(model)

    def even(self, micro_batches: Sequence[Batch]) -> Sequence[Batch]:
        """Add micro-batches in which nothing is learnt: every rank must run every layer as often.

        Weights are gathered by all ranks together, so a rank with fewer rows still takes part.
        """
        counts: list[int] = [0] * self.size
        dist.all_gather_object(counts, len(micro_batches))
        missing = max(counts) - len(micro_batches)
        return [*micro_batches, *([_nothing(micro_batches)] * missing)]

    def after_hooks(self, trainer: Trainer) -> None:
        """The main rank tells that its hooks are done; the others do what it asks until then."""
        if self.is_main:
            self._command(_GO_ON)
            return
        while (said := self._hear())[0] != _GO_ON:
            if said[0] == _GATHER:
                self._gather(trainer.model)
            else:
                write_sharded(Path(said[1]), trainer.optimizer.state_dict())

    def optimizer_writer(self, state: dict[str, Any]) -> Callable[[Path], None]:
        """Return what lets every rank write its share below a folder."""
        shares = state.pop("optimizer")

        def write(folder: Path) -> None:
            self._command(_WRITE, str(folder.resolve()))
            write_sharded(folder, shares)

        return write

    def read_optimizer(self, folder: Path, state: dict[str, Any], optimizer: Optimizer) -> None:
        """Read this rank's share, whoever wrote the checkpoint."""
        if "optimizer" not in state:
            super().read_optimizer(folder, state, optimizer)
            return
        parameters = optimizer.by_name
        for name, values in state["optimizer"].items():
            like = parameters.get(name)
            if not isinstance(like, DTensor):
                continue
            for key, value in values.items():
                if value.shape == like.shape:
                    values[key] = distribute_tensor(
                        value.to(like.device),
                        like.device_mesh,
                        like.placements,
                        src_data_rank=None,  # every rank read the same file
                    )

    def sum_gradients(self, parameters: object) -> None:
        """Do nothing: each backward pass has summed its gradients already."""

    def norm(self, gradients: Sequence[Tensor]) -> Tensor:
        """Return the norm of the whole gradient."""
        total = super().norm(gradients)
        return total.full_tensor() if isinstance(total, DTensor) else total

    def _gather(self, model: CausalLM) -> CausalLM:
        into = dict(self._copies[0].named_parameters()) if self.is_main else {}
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                full = cast("DTensor", parameter).full_tensor()
                if self.is_main:
                    into[name].copy_(full)
        return self._copies[0] if self.is_main else model

    def _command(self, what: str, where: str = "") -> None:
        if not self.is_main:
            raise RuntimeError("only the main rank's hooks ask for whole weights")
        dist.broadcast_object_list([(what, where)], src=0)

    def _hear(self) -> tuple[str, str]:
        said: list[Any] = [None]
        dist.broadcast_object_list(said, src=0)
        return said[0]


def _nothing(like: Sequence[Batch]) -> Batch:
    """Return a micro-batch without labels: it adds zero to every sum."""
    if like:
        return replace(like[0], labels=torch.full_like(like[0].labels, IGNORE))
    ids = torch.zeros(2, 8, dtype=torch.int64)  # two rows: a pair
    return Batch(input_ids=ids, labels=torch.full_like(ids, IGNORE))


def _check(model: CausalLM, config: TrainConfig) -> None:
    if config.precision == "fp16":
        raise ConfigError(
            "train.parallel = 'shard' with train.precision = 'fp16': the scaler of fp16 needs "
            "whole gradients. Take --train.precision bf16, or --train.parallel replicate"
        )
    if config.average_decay:
        raise ConfigError(
            f"train.parallel = 'shard' with train.average_decay = {config.average_decay}: the mean "
            "is of whole weights. Leave the average out, or take --train.parallel replicate"
        )
    if config.precision == "fp8":
        raise ConfigError(
            "train.parallel = 'shard' with train.precision = 'fp8' is not built: take "
            "--train.precision bf16, or --train.parallel replicate"
        )
    frozen = [name for name, weight in model.named_parameters() if not weight.requires_grad]
    if frozen or model.config.vision is not None:
        raise ConfigError(
            "train.parallel = 'shard' trains every weight of a language model: adapters ([lora]) "
            "and images ([vision]) are small beside their frozen parts; --train.parallel replicate"
        )
