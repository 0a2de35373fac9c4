"""Attempts that share one store, as torchrun's do, don't meet each other's leavings."""

import random
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
import torch.distributed as dist

from minimind.cli import main
from minimind.errors import ConfigError, LostRankError
from minimind.train.rendezvous import Place, attempt_store

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


SET = {"WORLD_SIZE": "4", "RANK": "3", "LOCAL_RANK": "1", "MASTER_ADDR": "a", "MASTER_PORT": "1"}


def place(monkeypatch, **changes):
    for name, value in {**SET, **changes}.items():
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)
    return Place.from_env()


def test_the_place_is_what_torchrun_says(monkeypatch):
    assert place(monkeypatch) == Place(rank=3, size=4, local_rank=1)
    assert place(monkeypatch, WORLD_SIZE="1", RANK=None, LOCAL_RANK=None) == Place()
    assert place(monkeypatch, WORLD_SIZE=None, RANK=None) == Place()


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("WORLD_SIZE", "", "WORLD_SIZE = '', it must be a whole number, at least 1"),
        ("WORLD_SIZE", "two", "WORLD_SIZE = 'two', it must be a whole number, at least 1"),
        ("WORLD_SIZE", "0", "WORLD_SIZE = '0', it must be a whole number, at least 1"),
        ("WORLD_SIZE", None, "WORLD_SIZE is not set, but RANK = '3'"),
        ("RANK", None, "RANK is not set, it must be a whole number, at least 0"),
        ("RANK", "-1", "RANK = '-1', it must be a whole number, at least 0"),
        ("RANK", "4", "RANK = '4', with WORLD_SIZE = 4 it is from 0 to 3"),
        ("LOCAL_RANK", None, "LOCAL_RANK is not set, it must be a whole number, at least 0"),
        ("LOCAL_RANK", "1.0", "LOCAL_RANK = '1.0', it must be a whole number, at least 0"),
        ("MASTER_ADDR", None, "MASTER_ADDR is not set, with WORLD_SIZE = 4 the processes meet"),
        ("MASTER_PORT", "http", "MASTER_PORT = 'http', it must be a whole number, at least 1"),
    ],
)
def test_a_wrong_place_says_which_variable_and_what_to_do(name, value, said, monkeypatch):
    with pytest.raises(ConfigError, match="torchrun --nproc-per-node") as error:
        place(monkeypatch, **{name: value})
    assert str(error.value).startswith(said)
    assert "unset" in str(error.value)


def test_the_command_line_says_so_without_a_traceback(monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    for name in ("RANK", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    assert main(["train", "pretrain", "nano", "--train.steps", "1"]) == 2
    assert "RANK is not set" in capsys.readouterr().err
