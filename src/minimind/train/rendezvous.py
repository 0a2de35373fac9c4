"""Processes that start again meet each other, not what the last attempt left behind.

torchrun keeps one key-value store for all of a run's attempts, and a backend writes a rank's
address under the same key each time. A rank that is quicker than the others reads an address where
nobody listens any more, and the whole attempt fails (on a busy machine most restarts did, torch
2.13). So the ranks agree on a prefix of their own first.

Who they are, torchrun says in the environment of each (`Place`).
"""

from __future__ import annotations

import os
import time
import uuid
from dataclasses import dataclass
from datetime import timedelta

from torch.distributed import distributed_c10d as c10d

from minimind.errors import ConfigError, LostRankError

_PAUSE = 0.02  # seconds between two looks


@dataclass(frozen=True, kw_only=True)
class Place:
    """Which of a run's processes this one is, as torchrun tells it.

    Attributes:
        rank: number of this process, from 0.
        size: how many there are.
        local_rank: number of this process on its machine.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @classmethod
    def from_env(cls) -> Place:
        """Read WORLD_SIZE, RANK and LOCAL_RANK; without WORLD_SIZE this process is alone.

        Raises:
            ConfigError: one is missing beside the others, or isn't a number that can be.
        """
        if "WORLD_SIZE" not in os.environ:
            if "RANK" in os.environ:
                raise _wrong("WORLD_SIZE", f"but RANK = {os.environ['RANK']!r}", alone="RANK")
            return cls()
        size = _number("WORLD_SIZE", least=1)
        if size == 1:
            return cls()
        place = cls(size=size, rank=_number("RANK"), local_rank=_number("LOCAL_RANK"))
        if place.rank >= size:
            raise _wrong("RANK", f"with WORLD_SIZE = {size} it is from 0 to {size - 1}")
        for name in ("MASTER_ADDR", "MASTER_PORT"):
            if not os.environ.get(name):
                raise _wrong(name, f"with WORLD_SIZE = {size} the processes meet there")
        _number("MASTER_PORT", least=1)
        return place


def _number(name: str, *, least: int = 0) -> int:
    value = os.environ.get(name, "")
    if not (value.isascii() and value.isdigit()) or int(value) < least:
        raise _wrong(name, f"it must be a whole number, at least {least}")
    return int(value)


def _wrong(name: str, why: str, *, alone: str = "WORLD_SIZE") -> ConfigError:
    value = os.environ.get(name)
    said = "is not set" if value is None else f"= {value!r}"
    return ConfigError(
        f"{name} {said}, {why}. torchrun sets these variables for each process: start with "
        f"`torchrun --nproc-per-node 2 -m minimind train ...`, or unset {alone} to train alone"
    )


def attempt_store(store: c10d.Store, rank: int, size: int, *, timeout: timedelta) -> c10d.Store:
    """Return a part of the store that only this attempt's processes write to.

    The first rank opens an attempt under a name that nobody had before. Each other one calls with a
    name of its own under the newest attempt that it sees and goes on when that very call is
    answered: an attempt of the past can't answer it, so a stale name costs only another look.

    Args:
        store: of all attempts.
        rank: number of this process, from 0.
        size: processes of the run.
        timeout: how long to wait for the others.

    Raises:
        LostRankError: a process didn't come.
    """
    name = uuid.uuid4().hex
    deadline = time.monotonic() + timeout.total_seconds()
    if rank == 0:
        _open(store, name, size, deadline)
    else:
        name = _follow(store, rank, name, deadline)
    return c10d.PrefixStore(name, store)


def _open(store: c10d.Store, name: str, size: int, deadline: float) -> None:
    store.set("attempt", name)
    for rank in range(1, size):
        while not store.check([f"{name}/{rank}"]):
            _rest(deadline, f"process {rank} of {size}")
        caller = store.get(f"{name}/{rank}").decode()
        store.set(f"{name}/{rank}/{caller}", "")


def _follow(store: c10d.Store, rank: int, name: str, deadline: float) -> str:
    attempt = ""
    while not (attempt and store.check([f"{attempt}/{rank}/{name}"])):
        newest = store.get("attempt").decode() if store.check(["attempt"]) else ""
        if newest != attempt:
            attempt = newest
            store.set(f"{attempt}/{rank}", name)
        _rest(deadline, "process 0")
    return attempt


def _rest(deadline: float, missing: str) -> None:
    if time.monotonic() > deadline:
        raise LostRankError(
            f"{missing} never came: did all machines start the same command, with the same "
            "--rdzv-endpoint? Their own messages say more"
        )
    time.sleep(_PAUSE)
