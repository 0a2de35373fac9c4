"""Two gloo processes make the same steps as one."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp
import yaml
from test_trainer import make_trainer, ragged

from doubles import free_ports, join_ranks
from minimind.cli import main
from minimind.config import OptimConfig
from minimind.settings import load_run_config
from minimind.train import distributed, optim
from minimind.train.distributed import World
from minimind.train.metrics import read_metrics
from minimind.train.run import RunResult
from run_doubles import curve, tiny_run, write_settings

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
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(address)}
    torch.set_num_threads(1)
    world = World.from_env(device="cpu")
    assert world.is_main == (rank == 0)
    torch.save({name: train(world, **case) for name, case in CASES.items()}, f"{results}/{rank}.pt")
    world.barrier()
    world.leave()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """What two processes made of every case."""
    results = tmp_path_factory.mktemp("ranks")
    address = (*free_ports(1), str(results))
    # Forked, so that torch is imported once.
    join_ranks(mp.start_processes(as_rank, address, nprocs=2, join=False, start_method="fork"))
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


@pytest.mark.parametrize("rank", [0, 1])
def test_one_process_speaks(rank, tmp_path, monkeypatch, capsys):
    found = {"WORLD_SIZE": 2, "RANK": rank, "LOCAL_RANK": rank, "MASTER_ADDR": "a"}
    for name, value in (found | {"MASTER_PORT": 1}).items():
        monkeypatch.setenv(name, str(value))
    done = RunResult(directory=tmp_path / "runs" / "tiny", last=None)
    monkeypatch.setattr("minimind.train.run.run", lambda *_, **__: done)
    settings = write_settings(tiny_run(tmp_path), tmp_path / "tiny.toml")
    assert main(["train", str(settings)]) == 0
    said = capsys.readouterr().out
    assert ("pretraining: learn" in said, "the run is complete" in said) == (rank == 0, rank == 0)
    assert said == "" or rank == 0


def workers(launcher):
    """Return the process ids of the ranks below a torchrun."""
    children = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()
    return [int(child) for child in children if b"minimind" in _command(child)]


def _command(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except FileNotFoundError:
        return b""


@pytest.mark.slow
@pytest.mark.parametrize("parallel", ["shard", "replicate"])
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_torchrun_starts_again_where_a_killed_rank_left_off(parallel, tmp_path):
    config = tiny_run(tmp_path, steps=200)
    config = replace(config, train=replace(config.train, parallel=parallel))
    run = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]

    def launch(name, *, restarts):
        settings = write_settings(replace(config, name=name), tmp_path / f"{name}.toml")
        command = [*run, "--master-port", str(*free_ports(1)), "--max-restarts", str(restarts)]
        command += ["-m", "minimind", "train", str(settings), "--resume"]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    whole = launch("whole", restarts=0)
    said, _ = whole.communicate()
    assert whole.returncode == 0
    assert said.count("pretraining: learn") == said.count("done: ") == 1
    assert "nothing left to do" not in said
    for name, restarts in (("ends", 0), ("restarts", 1)):
        launcher = launch(name, restarts=restarts)
        metrics = tmp_path / "runs" / name / "metrics.jsonl"
        while not metrics.exists() or len(read_metrics(metrics)) < 30:
            assert launcher.poll() is None
            time.sleep(0.02)
        os.kill(workers(launcher)[1], signal.SIGKILL)
        _, errors = launcher.communicate()
        assert (launcher.returncode == 0) == (restarts > 0), errors
        if restarts == 0:
            assert "process 0 of 2 can't reach the others any more" in errors
            assert "--resume" in errors
    expected, found = (curve(tmp_path / "runs" / name) for name in ("whole", "restarts"))
    assert found == expected


def test_the_examples_are_what_their_programs_read():
    examples = Path(__file__).parents[2] / "examples"
    script = examples / "slurm" / "train.sbatch"
    subprocess.run(["bash", "-n", str(script)], check=True)
    assert "torchrun" in script.read_text()
    assert "--resume" in script.read_text()
    kinds = {}
    for document in yaml.safe_load_all((examples / "kubernetes" / "train.yaml").read_text()):
        kinds[document["kind"]] = document
    job, service = kinds["Job"]["spec"], kinds["Service"]
    pod = job["template"]["spec"]
    arguments = pod["containers"][0]["args"]
    assert f"--nnodes={job['completions']}" in arguments
    assert job["completions"] == job["parallelism"]
    assert pod["subdomain"] == service["metadata"]["name"]
    stage = arguments[arguments.index("train") + 1 :]
    config = load_run_config(stage[:2], [flag for flag in stage[2:] if flag != "--resume"])
    assert config.train.tokens == 1_300_000_000
