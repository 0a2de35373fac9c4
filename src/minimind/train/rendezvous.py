"""Processes that start again meet each other, not what the last attempt left behind.

torchrun keeps one key-value store for all of a run's attempts, and a backend writes a rank's
address under the same key each time. A rank that is quicker than the others reads an address where
nobody listens any more, and the whole attempt fails (on a busy machine most restarts did, torch
2.13). So the ranks agree on a prefix of their own first.
"""

from __future__ import annotations

import time
import uuid
from datetime import timedelta

from torch.distributed import distributed_c10d as c10d

from minimind.errors import LostRankError

_PAUSE = 0.02  # seconds between two looks


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
