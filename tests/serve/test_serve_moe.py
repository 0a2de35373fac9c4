"""A mixture of experts from a run to OpenAI's own client."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from serve_doubles import STORY, running, teach

import minimind
from doubles import byte_tokenizer, tiny_config
from minimind import checkpoint
from minimind.config import ModelConfig, MoEConfig, RunConfig
from minimind.errors import ConfigError
from minimind.model import CausalLM
from minimind.model.moe import SparseMoE
from minimind.train.metrics import read_metrics
from minimind.train.run import run
from run_doubles import curve, following, run_directory, tiny_run

MOE = MoEConfig(num_experts=4, moe_intermediate_size=32)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    config = tiny_run(tmp_path_factory.mktemp("moe"), steps=24)
    config = replace(config, model=replace(config.model, moe=MOE))
    run(config)
    return config


def test_a_run_tells_every_experts_load(trained: RunConfig) -> None:
    lines = read_metrics(run_directory(trained) / "metrics.jsonl")
    steps = [line for line in lines if "loss" in line]
    assert len(steps) == 24
    for layer in range(2):
        loads = [steps[-1][f"expert_load/{layer}.{expert}"] for expert in range(4)]
        assert sum(loads) == pytest.approx(2, abs=1e-4)
        assert max(loads) <= steps[-1]["largest_load"] * 0.5 + 1e-6
    assert steps[-1]["loss"] < steps[0]["loss"] - 0.5
    validation = [line for line in lines if "validation_loss" in line]
    assert "validation_balance_loss" not in validation[-1]  # held-out loss is the text's alone


def test_a_resumed_run_is_the_uninterrupted_one(trained: RunConfig, tmp_path: Path) -> None:
    whole = run_directory(trained)
    halved = replace(trained, out=str(tmp_path))
    shutil.copytree(whole, run_directory(halved))
    for step in ("000016", "000020", "000024"):
        shutil.rmtree(run_directory(halved) / "checkpoints" / f"step-{step}")
    run(halved, resume=True)
    told = ("loss", "grad_norm", "balance_loss", "expert_load/1.3", "validation_loss")
    again, first = (
        [[line.get(name) for name in told] for line in curve(directory)]
        for directory in (run_directory(halved), whole)
    )
    assert again == first


def test_openais_client_gets_what_the_model_says(tmp_path: Path) -> None:
    torch.manual_seed(0)
    tokenizer = byte_tokenizer()
    model = CausalLM(tiny_config(hidden_size=64, head_dim=16, moe=MOE))
    story = [0, *tokenizer.encode(STORY), 0]
    everything = [False] + [True] * (len(story) - 1)
    teach(model, [(story, everything)], steps=120, lr=5e-3, enough=0.02, at_most=0.3)
    path = checkpoint.save(tmp_path / "mixture", model=model.eval(), tokenizer=tokenizer)
    with running(path, slots=2, queue=8) as server:
        client = server.client()
        asked = {"model": "mini", "prompt": STORY[:3], "temperature": 0, "max_tokens": 40}
        assert client.completions.create(**asked).choices[0].text == STORY[3:]
        parts = client.completions.create(**asked, stream=True)
        assert "".join(part.choices[0].text for part in parts) == STORY[3:]


def test_a_dense_run_is_upcycled_by_a_flag(tmp_path: Path) -> None:
    dense = tiny_run(tmp_path, steps=8)
    run(dense)
    grown = following(dense, kind="text", name="grown")
    grown = replace(
        grown,
        model=ModelConfig(),
        init=replace(grown.init, upcycle=MoEConfig(num_experts=4, moe_intermediate_size=64)),
    )
    run(grown)
    model, _ = minimind.load(run_directory(grown))
    assert isinstance(model.get_submodule("model.layers.0.mlp"), SparseMoE)
    first = curve(run_directory(grown))[0]
    last = [line for line in curve(run_directory(dense)) if "loss" in line][-1]
    assert first["loss"] < last["loss"] + 0.3  # it starts from what the dense one knows
    run(replace(grown, train=replace(grown.train, steps=16)), resume=True)
    with pytest.raises(ConfigError, match="makes experts of a dense model"):
        run(replace(grown, name="b", init=replace(grown.init, checkpoint=None)))
