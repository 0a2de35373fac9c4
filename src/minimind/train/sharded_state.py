"""The optimizer's state of a sharded run on disk: `torch.distributed.checkpoint`, any world size.

CHECKPOINT/optimizer/ has a file of each rank and an index. Whoever reads it says which rows it
wants: as many ranks as wrote it, more, fewer, or one process with the whole state.
"""

from __future__ import annotations

import logging
import warnings
from collections import defaultdict
from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor

from minimind.checkpoint.runs import OPTIMIZER
from minimind.errors import CheckpointError
from minimind.train.optim import Optimizer

_BETWEEN = "/"
"""Joins a parameter's name and a state's: neither has one."""


def write_sharded(folder: Path, shares: dict[str, dict[str, Tensor]]) -> None:
    """Write every rank's share of the optimizer's state below a checkpoint; all ranks call it.

    Raises:
        CheckpointError: a share was written to a disk that the main rank doesn't see.
    """
    where = folder / OPTIMIZER
    flat = {
        f"{parameter}{_BETWEEN}{name}": value
        for parameter, values in shares.items()
        for name, value in values.items()
    }
    dcp.save(flat, checkpoint_id=where)  # pyright: ignore[reportPrivateImportUsage]
    if dist.get_rank() != 0:
        return
    reader = dcp.FileSystemReader(where)  # pyright: ignore[reportPrivateImportUsage]
    index = reader.read_metadata()
    wanted = {info.relative_path for info in (index.storage_data or {}).values()}
    missing = sorted(name for name in wanted if not (where / name).exists())
    if missing:
        raise CheckpointError(
            f"{where / missing[0]} is not there: a rank on another machine wrote it to its own "
            "disk. Put the runs on a disk that all machines share: --out SHARED"
        )


def read_sharded(folder: Path, optimizer: Optimizer) -> dict[str, dict[str, Tensor]]:
    """Return the state that the weights of this rank need; all ranks call it.

    Args:
        folder: the checkpoint.
        optimizer: of this run; its parameters say which rows are wanted.

    Raises:
        CheckpointError: there is none, or it can't be read.
    """
    where = folder / OPTIMIZER
    if not where.is_dir():
        raise CheckpointError(f"{folder} has no optimizer's state: it can't be resumed from.")
    try:
        reader = dcp.FileSystemReader(where)  # pyright: ignore[reportPrivateImportUsage]
        index = reader.read_metadata()
        wanted: dict[str, Tensor] = {}
        for key, info in index.state_dict_metadata.items():
            like = optimizer.by_name.get(key.partition(_BETWEEN)[0])
            if like is not None and tuple(info.size) == tuple(like.shape):  # pyright: ignore[reportAttributeAccessIssue]
                wanted[key] = torch.zeros_like(like)
            else:  # a count of steps, or a parameter that this model hasn't: named on loading
                wanted[key] = torch.zeros(info.size)  # pyright: ignore[reportAttributeAccessIssue]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # one process alone is what was asked for
            logging.getLogger("torch.distributed.checkpoint").setLevel(logging.ERROR)
            dcp.load(wanted, checkpoint_id=where)  # pyright: ignore[reportPrivateImportUsage]
    except (dcp.api.CheckpointException, RuntimeError, OSError) as error:
        raise CheckpointError(f"{where} is damaged: {error}") from error
    state: dict[str, dict[str, Tensor]] = defaultdict(dict)
    for key, value in wanted.items():
        parameter, _, name = key.partition(_BETWEEN)
        state[parameter][name] = value
    return dict(state)
