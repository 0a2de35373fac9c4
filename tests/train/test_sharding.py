"""Ranks that share a model train what one process trains; what they save, any number resumes."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from doubles import free_ports, join_ranks
from minimind import checkpoint
from minimind.config import LoraConfig, SaveConfig
from minimind.errors import CheckpointError, ConfigError
from minimind.model import CausalLM, inject_lora
from minimind.train import optim, sharding
from minimind.train.failures import advice
from minimind.train.run import run
from run_doubles import curve, run_directory, tiny_run

CLOSE = 1e-5
"""Measured: 3e-7 apart in loss after 8 steps in fp32; sums are made in another order."""


def as_rank(rank, size, ports, work):
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size)}
    torch.set_num_threads(1)
    for port, (task, arguments) in zip(ports, work, strict=True):
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        task(*arguments)


def together(size, *work, start="fork"):
    """Do each (function, arguments) on `size` ranks.

    Forked, torch is imported once; ranks that compile are to be spawned: inductor's compiling
    threads don't come along into a fork, and it waits for them for ever.
    """
    ports = free_ports(len(work))
    ranks = mp.start_processes(
        as_rank, args=(size, ports, work), nprocs=size, join=False, start_method=start
    )
    join_ranks(ranks)


def resumed(config):
    run(config, resume=True)


def drop_last(config):
    shutil.rmtree(checkpoint.resolve(run_directory(config)))


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The same run by 1, 2 and 4 ranks, sharded and not, and resumed by another number of them."""
    patch = pytest.MonkeyPatch()
    for module in (optim, sharding):  # bf16 would hide differences under its rounding
        patch.setattr(module, "has_fast_bf16", lambda device: False)
    base = tiny_run(tmp_path_factory.mktemp("ranks"), steps=8)
    base = replace(
        base,
        train=replace(base.train, micro_batch_rows=1, parallel="shard"),
        save=SaveConfig(every=4, keep_last=5),
        log=replace(base.log, sample_every=8, prompts=("春",)),
    )

    def named(name, parallel="shard"):
        return replace(base, name=name, train=replace(base.train, parallel=parallel))

    names = ["1", "2", "4", "replicate4", "4to2", "4to1", "1to2", "1to2fused"]
    configs = {name: named(name) for name in names}
    fused = configs["1to2fused"]
    configs["1to2fused"] = replace(fused, train=replace(fused.train, fuse_projections=True))
    configs["replicate4"] = named("replicate4", "replicate")
    run(configs["1"])
    together(4, (run, [configs["4"]]), (run, [configs["replicate4"]]))
    for source, name in (("4", "4to2"), ("4", "4to1"), ("1", "1to2"), ("1", "1to2fused")):
        shutil.copytree(run_directory(configs[source]), run_directory(configs[name]))
        drop_last(configs[name])
    resumed(configs["4to1"])
    others = [(resumed, [configs[name]]) for name in ("4to2", "1to2", "1to2fused")]
    together(2, (run, [configs["2"]]), *others)
    patch.undo()
    return {name: run_directory(config) for name, config in configs.items()}


@pytest.mark.parametrize("name", ["2", "4", "replicate4", "4to2", "4to1", "1to2", "1to2fused"])
def test_any_number_of_ranks_gives_the_curve_of_one(name, runs):
    alone, found = curve(runs["1"]), curve(runs[name])
    assert len(found) == len(alone) == 10
    for expected, line in zip(alone, found, strict=True):
        for exact in ("step", "tokens", "learnt_tokens"):  # the same rows in the same order
            assert line.get(exact) == expected.get(exact)
        assert line == pytest.approx(expected, rel=5e-4, abs=1e-6)
        loss = "loss" if "loss" in line else "validation_loss"
        assert line[loss] == pytest.approx(expected[loss], rel=CLOSE)


def test_the_checkpoint_is_the_same_directory(runs):
    alone, sharded = checkpoint.resolve(runs["1"]), checkpoint.resolve(runs["4"])
    names = {path.name for path in sharded.iterdir()} - {"optimizer"}
    assert names == {path.name for path in alone.iterdir()}
    ours, _ = checkpoint.load(sharded)
    theirs, _ = checkpoint.load(alone)
    for (name, mine), other in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine, other, atol=2e-4, rtol=0, msg=name)
    written = {path.name for path in (sharded / "optimizer").iterdir()}
    assert written == {".metadata", *(f"__{rank}_0.distcp" for rank in range(4))}
    assert (runs["4"] / "samples.txt").read_text() == (runs["1"] / "samples.txt").read_text()


def test_a_damaged_share_is_noticed(runs, tmp_path):
    directory = shutil.copytree(runs["4"], tmp_path / "run")
    newest = checkpoint.resolve(directory, trainer_state=True)
    share = newest / "optimizer" / "__2_0.distcp"
    data = bytearray(share.read_bytes())
    data[len(data) // 2] ^= 1
    share.write_bytes(data)
    assert checkpoint.resolve(directory) == newest  # weights alone are whole
    with pytest.raises(CheckpointError, match=r"__2_0.distcp is corrupted"):
        checkpoint.resolve(newest, trainer_state=True)
    with pytest.warns(checkpoint.DamagedCheckpointWarning, match=r"__2_0.distcp"):
        assert checkpoint.resolve(directory, trainer_state=True) != newest


def dealt(folder):
    generator = torch.Generator().manual_seed(0)
    for number, (count, rows, columns) in enumerate([(3, 5, 4), (4, 8, 8), (1, 3, 7), (5, 2, 3)]):
        whole = torch.randn(count, rows, columns, generator=generator)
        sizes = sharding._chunks(rows, dist.get_world_size())
        start = sum(sizes[: dist.get_rank()])
        mine = whole[:, start : start + sizes[dist.get_rank()]]
        out = sharding._orthogonalize_dealt(mine, rows=rows)
        expected = optim.orthogonalize(whole)[:, start : start + sizes[dist.get_rank()]]
        torch.testing.assert_close(out, expected, atol=1e-6, rtol=1e-5)
        Path(folder, f"{number}-{dist.get_rank()}").touch()


def in_group(folder):
    dist.init_process_group("gloo")
    dealt(folder)
    dist.destroy_process_group()


@pytest.mark.parametrize("size", [2, 4])
def test_matrices_dealt_to_the_ranks_are_orthogonalised_whole(size, tmp_path):
    together(size, (in_group, [str(tmp_path)]))
    assert len(list(tmp_path.iterdir())) == 4 * size


def test_what_cannot_be_sharded_is_refused(tmp_path):
    config = tiny_run(tmp_path).train
    model = CausalLM(tiny_run(tmp_path).model)
    with pytest.raises(ConfigError, match=r"--train.precision bf16"):
        sharding._check(model, replace(config, precision="fp16"))
    sharding._check(model, config)
    inject_lora(model, LoraConfig(rank=2))
    with pytest.raises(ConfigError, match=r"--train.parallel replicate"):
        sharding._check(model, config)


@pytest.mark.parametrize(
    ("rows", "gigabytes", "words"),
    [
        (64, 12, "--train.micro-batch-rows 32"),
        (64, 1.4, "--train.micro-batch-rows 8 --train.gradient-checkpointing all"),
        (1, 2, "Set --train.gradient-checkpointing all"),
    ],
)
def test_out_of_memory_says_what_to_lower(rows, gigabytes, words, tmp_path):
    config = tiny_run(tmp_path)
    shape = replace(type(config.model)(), vocab_size=12_000)  # 64m
    config = replace(
        config,
        model=shape,
        data=replace(config.data, sequence_length=512),
        train=replace(config.train, micro_batch_rows=rows, batch_rows=64),
    )
    said = advice(config, memory=int(gigabytes * 1e9))
    assert f"train.micro_batch_rows = {rows} of 512 tokens needs about" in said
    assert words in said, said
