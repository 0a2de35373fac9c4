"""Faults in small: the bench's own injections, and what a run says of them."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from minimind import checkpoint
from minimind.config import SaveConfig
from minimind.errors import LostRankError, NotEnoughMemoryError, RunError
from minimind.model.transformer import DecoderLayer
from minimind.train.distributed import World
from minimind.train.failures import explained
from minimind.train.metrics import read_metrics
from minimind.train.run import run
from run_doubles import curve, run_directory, tiny_run, write_settings

BENCH = Path(__file__).parents[2] / "bench" / "faults.py"
SOME = [
    "killed: update",
    "killed: a file operation",
    "killed: half a file",
    "damaged checkpoint",
    "file size limit",
    "out of memory",
    "data hangs",
]


def injected(*flags):
    done = subprocess.run(
        [sys.executable, str(BENCH), "--json", *flags],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode in (0, 1), done.stderr
    return json.loads(done.stdout)


def check(rows, kinds):
    assert rows.keys() == set(kinds)
    for kind, row in rows.items():
        assert not row["problems"], (kind, row["problems"])
        assert row["injections"] == row["recovered"] == row["identical"] > 0, kind
        assert row["lost"] == 0, kind


def test_nothing_reported_as_saved_is_lost():
    check(injected("--times", "1", "--only", *SOME), SOME)


@pytest.mark.slow
def test_no_kind_of_fault_loses_anything():
    rows = injected("--short")
    assert len(rows) >= 20  # without root there is no disk of our own to fill
    check(rows, rows)


def test_a_run_whose_data_falls_silent_ends_at_the_first_signal(tmp_path):
    config = replace(tiny_run(tmp_path, steps=40), save=SaveConfig(every=0))
    settings = write_settings(config, tmp_path / "run.toml")
    silent = (
        "import time, sys; from minimind.data.loader import Loader; from minimind import cli\n"
        "usual, calls = Loader._batches, []\n"
        "def batches(self, rows):\n"
        "    calls.append(self.split == 'train')\n"
        "    time.sleep(3600 if sum(calls) == 9 and calls[-1] else 0)\n"
        "    return usual(self, rows)\n"
        "Loader._batches = batches\n"
        f"sys.exit(cli.main(['train', {str(settings)!r}]))"
    )
    process = subprocess.Popen([sys.executable, "-c", silent], stdout=subprocess.DEVNULL)
    metrics = run_directory(config) / "metrics.jsonl"
    while not metrics.exists() or len(read_metrics(metrics)) < 9:  # 8 steps and a validation
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=300) == 130
    saved = checkpoint.list_checkpoints(run_directory(config))
    assert checkpoint.step_of(saved[-1]) == 8
    run(config, resume=True)
    unbroken = replace(config, name="unbroken")
    run(unbroken)
    steps = [
        [line for line in curve(run_directory(c)) if "loss" in line] for c in (config, unbroken)
    ]
    assert steps[0] == steps[1]


def test_a_compiled_file_that_was_cut_short_is_named(tmp_path):
    """As torch 2.13 says it after a kill while g++ wrote."""
    cut = tmp_path / "kernel.main.so"
    cut.touch()
    spec = importlib.util.spec_from_file_location("kernel", cut)
    assert spec is not None
    with pytest.raises(ImportError) as refused:
        importlib.util.module_from_spec(spec)
    raised = RuntimeError(f"ImportError: {refused.value}\n\nSet TORCHDYNAMO_VERBOSE=1 ...")
    with pytest.raises(RunError) as said, explained(tiny_run(tmp_path), World()):
        raise raised
    assert str(said.value).startswith(f"{cut} is not whole")
    assert "--resume" in str(said.value)


def test_an_allocator_that_fails_is_explained(tmp_path, monkeypatch):
    config = tiny_run(tmp_path)

    def forward(*args, **named):
        torch.empty(2**50, dtype=torch.uint8)

    monkeypatch.setattr(DecoderLayer, "forward", forward)
    with pytest.raises(NotEnoughMemoryError, match=r"--train.micro-batch-rows 1 needs about"):
        run(config)
    monkeypatch.undo()
    less = replace(config, train=replace(config.train, micro_batch_rows=1))
    assert run(less, resume=True).last.step == 12


@pytest.mark.parametrize("error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory")])
def test_every_kind_of_no_memory_is_known(error, tmp_path):
    with (
        pytest.raises(NotEnoughMemoryError, match="there are"),
        explained(tiny_run(tmp_path), World()),
    ):
        raise error


def test_a_failed_collective_is_a_lost_rank_only_among_several(tmp_path):
    config, error = tiny_run(tmp_path), RuntimeError("gloo: Connection closed by peer")
    among = World(rank=1, size=2)
    with pytest.raises(LostRankError, match=r"process 1 of 2.*--resume"), explained(config, among):
        raise error
    with pytest.raises(RuntimeError, match="gloo"), explained(config, World()):
        raise error
