"""Two gloo processes make the same steps as one."""

import os
import socket

import pytest
import torch
import torch.multiprocessing as mp
from test_trainer import make_trainer, ragged

from minimind.config import OptimConfig
from minimind.train import distributed, optim
from minimind.train.distributed import World

STEPS = 4


def batches():
    return [ragged(torch.Generator().manual_seed(seed)) for seed in range(STEPS)]


# Uneven shares: a rank may have few rows, or none, of a step at the end of the data.
CASES = {
    "adamw": {"kind": "adamw", "shares": (0, 4, 8), "bucket": 2**24},
    "muon, small buckets": {"kind": "muon", "shares": (0, 5, 8), "bucket": 1000},
    "an idle rank": {"kind": "adamw", "shares": (0, 8, 8), "bucket": 2**24},
}


def train(world, *, kind, shares, bucket):
    """Train on this rank's rows of each step; return losses, norms and weights."""
    distributed.BUCKET_ELEMENTS = bucket
    optim.has_fast_bf16 = lambda device: False  # bf16 would hide differences under its rounding
    trainer = make_trainer(optim=OptimConfig(kind=kind, lr=1e-2), steps=STEPS)
    trainer.world = world
    reports = []
    for batch in batches():
        start, end = shares[world.rank], shares[world.rank + 1]
        mine = [part for row, part in enumerate(batch.split(1)) if start <= row < end]
        reports.append(trainer.train_step(mine))
    return {
        "losses": [report.loss for report in reports],
        "norms": [report.grad_norm for report in reports],
        "tokens": [(report.tokens, report.learnt_tokens) for report in reports],
        "weights": {name: p.detach() for name, p in trainer.model.named_parameters()},
    }


def as_rank(rank, address, results):
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": address}
    torch.set_num_threads(1)
    world = World.from_env(device="cpu")
    assert world.is_main == (rank == 0)
    torch.save({name: train(world, **case) for name, case in CASES.items()}, f"{results}/{rank}.pt")
    world.barrier()
    world.leave()


def free_port():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return str(server.getsockname()[1])


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """What two processes made of every case."""
    results = tmp_path_factory.mktemp("ranks")
    mp.spawn(as_rank, args=(free_port(), str(results)), nprocs=2, join=True)
    return [torch.load(results / f"{rank}.pt") for rank in range(2)]


@pytest.mark.parametrize("name", CASES)
def test_two_ranks_equal_one_process(name, ranks, monkeypatch):
    monkeypatch.setattr(distributed, "BUCKET_ELEMENTS", distributed.BUCKET_ELEMENTS)
    monkeypatch.setattr(optim, "has_fast_bf16", optim.has_fast_bf16)
    alone = train(World(), **CASES[name] | {"shares": (0, 8)})
    first, second = (one[name] for one in ranks)
    for one in (first, second):
        assert one["losses"] == pytest.approx(alone["losses"], rel=1e-6)
        assert one["norms"] == pytest.approx(alone["norms"], rel=1e-5)
        assert one["tokens"] == alone["tokens"]
    for parameter, weight in alone["weights"].items():
        mine = first["weights"][parameter]
        assert torch.equal(mine, second["weights"][parameter]), f"ranks drifted in {parameter}"
        # Adam divides by the root of the second moment, which amplifies the rounding of sums
        # where a gradient is nearly zero.
        torch.testing.assert_close(mine, weight, atol=1e-4, rtol=0, msg=parameter)


def test_alone_nothing_is_joined(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    world = World.from_env()
    assert world == World(rank=0, size=1)
    assert world.sum_values({"loss": 1.5}) == {"loss": 1.5}
    world.barrier()
    world.leave()
    assert not torch.distributed.is_initialized()
