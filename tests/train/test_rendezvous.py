"""Attempts that share one store, as torchrun's do, don't meet each other's leavings."""

import random
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
import torch.distributed as dist

from minimind.errors import LostRankError
from minimind.train.rendezvous import attempt_store

SIZE = 3


@pytest.fixture
def server():
    return dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)


def join(server, rank, *, late=0.0, seconds=300.0):
    time.sleep(late)
    store = dist.TCPStore("127.0.0.1", server.port, is_master=False, timeout=timedelta(seconds=300))
    patience = timedelta(seconds=seconds)
    store.set_timeout(patience)  # of a `get`, too: one rank may be met and another not
    ours = attempt_store(store, rank, SIZE, timeout=patience)
    stale = ours.check([f"address/{rank}"])
    ours.set(f"address/{rank}", f"{rank}")
    met = [ours.get(f"address/{other}").decode() for other in range(SIZE)]
    return stale, met


@pytest.mark.parametrize("seed", range(3))
def test_each_attempt_meets_itself_whoever_comes_first(server, seed):
    draw = random.Random(seed)
    with ThreadPoolExecutor(SIZE) as pool:
        for _ in range(3):
            lates = [draw.random() / 4 for _ in range(SIZE)]
            joined = [pool.submit(join, server, rank, late=late) for rank, late in enumerate(lates)]
            assert [each.result() for each in joined] == [(False, ["0", "1", "2"])] * SIZE


@pytest.mark.parametrize("absent", range(SIZE))
def test_an_attempt_that_not_all_reached_leaves_nothing_behind(server, absent):
    with ThreadPoolExecutor(SIZE) as pool:
        for rank in set(range(SIZE)) - {absent}:
            pool.submit(join, server, rank, seconds=0.3)
    with ThreadPoolExecutor(SIZE) as pool:
        joined = pool.map(lambda rank: join(server, rank), range(SIZE))
        assert list(joined) == [(False, ["0", "1", "2"])] * SIZE


def test_who_waits_in_vain_says_for_whom(server):
    with pytest.raises(LostRankError, match="process 1 of 3 never came"):
        join(server, 0, seconds=0.1)
    with pytest.raises(LostRankError, match="process 0 never came"):
        join(server, 2, seconds=0.1)
