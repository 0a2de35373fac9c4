"""What a run says when memory or the disk runs out, or another process is gone: no traceback."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import sys
from collections.abc import Iterator

import torch
import torch.distributed as dist

from minimind.config import RunConfig
from minimind.errors import ConfigError, LostRankError, NotEnoughMemoryError, RunError
from minimind.model.accounting import training_memory
from minimind.train.device import pick_device
from minimind.train.distributed import World
from minimind.train.fit import HEADROOM, largest_micro_batch

# What the allocators of torch and C++ say on a CPU, where no exception class tells it.
_NO_MEMORY = ("can't allocate memory", "bad_alloc", "not enough memory", "Cannot allocate memory")
_NO_DISK = {errno.ENOSPC, errno.EROFS, errno.EFBIG, errno.EDQUOT, errno.EIO}
_NO_PEER = ("gloo", "NCCL", "Connection closed by peer", "Connection reset by peer")


@contextlib.contextmanager
def explained(config: RunConfig, world: World) -> Iterator[None]:
    """Turn what torch raises inside into an error that says what to do.

    Raises:
        NotEnoughMemoryError: says which setting to lower, and by how much.
        LostRankError: a collective failed.
        RunError: the disk is full, read-only or broken; or what was compiled before is damaged.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _NO_DISK:
            raise
        raise RunError(
            f"{error.filename or config.out} can't be written: {error.strerror}. Checkpoints saved "
            "before are untouched. Make room (delete old runs, or set save.keep_last lower) or "
            "choose another disk with --out, then continue with --resume"
        ) from error
    except (RuntimeError, MemoryError) as error:  # torch.OutOfMemoryError is a RuntimeError
        if is_out_of_memory(error):
            raise NotEnoughMemoryError(advice(config, memory=total_memory(config))) from error
        if (library := damaged_library(error)) is not None:
            raise RunError(
                f"{library} is not whole: a compiler was killed while it wrote it, and "
                "torch.compile takes what is there. Delete this file, then continue with --resume"
            ) from error
        if world.size > 1 and is_lost_rank(error):
            raise LostRankError(
                f"process {world.rank} of {world.size} can't reach the others any more: one of "
                "them ended, and the run ends with it. Its own message says why, if it had the "
                "time for one. What was saved is there: the same command with --resume goes on "
                f"from the newest checkpoint ({str(error).strip().splitlines()[0][:200]})"
            ) from error
        raise


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error means that memory ran out, on a GPU or a CPU."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _NO_MEMORY)


def damaged_library(error: BaseException) -> str | None:
    """Return the compiled file that can't be loaded because it was cut short, or None."""
    found = re.search(r"ImportError: (\S+\.so): (?:file too short|invalid ELF header)", str(error))
    return found and found[1]


def is_lost_rank(error: BaseException) -> bool:
    """Tell whether an error comes from a collective that lost another process."""
    if isinstance(error, dist.DistError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _NO_PEER)


def total_memory(config: RunConfig) -> int:
    """Return the bytes that this process may have: the GPU's, or the machine's or its limit."""
    if pick_device(config.train).type == "cuda":
        return torch.cuda.mem_get_info()[1]
    if sys.platform == "win32":
        return sys.maxsize
    import resource

    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    return total if limit == resource.RLIM_INFINITY else min(total, limit)


def advice(config: RunConfig, *, memory: int) -> str:
    """Say what a step needs, and the settings with which it would fit.

    Args:
        config: of the run, with the model's shape.
        memory: bytes that there are.
    """
    train, length = config.train, config.data.sequence_length
    averaged = train.average_decay > 0
    # A pair is two rows.
    sequences = 2 if config.data.kind == "preference" else 1

    def needs(rows: int, *, checkpointed: bool) -> int:
        predicted = training_memory(
            config.model, micro_batch_rows=rows * sequences, sequence_length=length,
            device=pick_device(train).type,
        )  # fmt: skip
        return predicted.total(
            optimizer=config.optim.kind, checkpointed=checkpointed, averaged=averaged
        )

    now, all_layers = train.micro_batch_rows, train.gradient_checkpointing == "all"
    wanted = needs(now, checkpointed=all_layers)
    others = "Other programs take their part of it. " if wanted < HEADROOM * memory else ""
    head = (
        f"out of memory: train.micro_batch_rows = {now} of {length} tokens needs "
        f"{_about(wanted)}; there are {memory / 1e9:.2g} GB in all. {others}"
    )
    tail = (
        " The step stays the same (train.batch_rows), and the run can go on: add --resume. "
        "`minimind params PRESET` shows what takes how much."
    )
    if now == 1 and all_layers:
        return head + ("Lower it with a shorter --data.sequence-length, or take a smaller preset.")
    if now == 1:
        less = needs(1, checkpointed=True)
        return f"{head}Set --train.gradient-checkpointing all: {_about(less)}.{tail}"
    try:
        rows, layers = largest_micro_batch(
            config.model,
            sequence_length=length * sequences,
            most_rows=now // 2,
            optimizer=config.optim.kind,
            memory=int(memory * HEADROOM),
            averaged=averaged,
        )
    except ConfigError:
        rows, layers = 1, "all"
    layers = "all" if all_layers else layers
    also = " --train.gradient-checkpointing all" if layers == "all" and not all_layers else ""
    less = needs(rows, checkpointed=layers == "all")
    return f"{head}Lower it: --train.micro-batch-rows {rows}{also} needs {_about(less)}.{tail}"


def _about(size: int) -> str:
    return f"about {size / 1e9:.2g} GB"
