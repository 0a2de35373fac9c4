"""Sharded and compiled, as presets have it: the losses of uncompiled ranks, one graph a layer."""

import functools
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from test_sharding import together

from flash_doubles import use_flash_on_cpu
from minimind.train import optim, sharding
from minimind.train.run import run
from run_doubles import curve, run_directory, tiny_run


def counted(config, folder, backend):
    """Train in a process of its own; write down what torch counted while it compiled there."""
    with pytest.MonkeyPatch.context() as patch:
        use_flash_on_cpu(patch)
        for module in (optim, sharding):  # bf16 would hide differences under its rounding
            patch.setattr(module, "has_fast_bf16", lambda device: False)
        # Breaks and recompiles are decided before the backend is called: one that is quick does.
        compile_module = functools.partialmethod(torch.nn.Module.compile, backend=backend)
        patch.setattr(torch.nn.Module, "compile", compile_module)
        _count(config, folder)


def _count(config, folder):
    torch.compiler.reset()
    found = torch._dynamo.utils.counters
    found.clear()
    with torch._dynamo.config.patch(error_on_recompile=True):
        run(config)
    counts = {"breaks": sum(found["graph_break"].values()), "graphs": found["stats"]}
    Path(folder, f"{config.name}-{os.environ['RANK']}.json").write_text(json.dumps(counts))


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_compiled_layers_of_two_ranks_train_as_uncompiled_ones(backend, tmp_path):
    base = tiny_run(tmp_path, steps=5)
    base = replace(base, model=replace(base.model, head_dim=16))
    runs = {}
    for attention, precision in (("auto", "fp32"), ("flash", "bf16")):
        for compiled in (False, True):
            train = replace(base.train, parallel="shard", micro_batch_rows=1, compile=compiled,
                            attention=attention, precision=precision)  # fmt: skip
            runs[attention, compiled] = replace(base, name=f"{attention}-{compiled}", train=train)
    work = ((counted, [config, str(tmp_path), backend]) for config in runs.values())
    together(2, *work, start="spawn")
    losses = {
        key: [line["loss"] for line in curve(run_directory(config)) if "loss" in line]
        for key, config in runs.items()
    }
    assert losses["auto", True] == pytest.approx(losses["auto", False], rel=1e-5)
    assert losses["flash", True] == pytest.approx(losses["flash", False], rel=1e-3)
    assert losses["flash", True] == pytest.approx(losses["auto", False], rel=1e-3)
    for (attention, compiled), config in runs.items():
        for rank in range(2):
            counts = json.loads((tmp_path / f"{config.name}-{rank}.json").read_text())
            assert counts["breaks"] == 0, (attention, rank)
            # Rows of many boundaries, layers of one shape: one graph for all of them.
            assert counts["graphs"].get("unique_graphs", 0) == compiled, (attention, rank)
