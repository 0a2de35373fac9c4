"""A mixture of experts from a run to OpenAI's own client."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from serve_doubles import running

import minimind
from minimind.config import ModelConfig, MoEConfig, RunConfig
from minimind.errors import ConfigError
from minimind.inference import SamplingParams
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
    assert curve(run_directory(halved)) == curve(whole)


def test_openais_client_gets_what_the_model_says(trained: RunConfig) -> None:
    directory = run_directory(trained)
    params = SamplingParams(temperature=0, repetition_penalty=1.0, max_new_tokens=12)
    expected = minimind.generate(*minimind.load(directory), "春天", params=params)
    with running(directory, slots=2, queue=8) as server:
        client = server.client()
        (model,) = client.models.list().data
        answer = client.completions.create(
            model=model.id, prompt="春天", temperature=0, max_tokens=12
        )
        assert answer.choices[0].text == expected
        parts = client.completions.create(
            model=model.id, prompt="春天", temperature=0, max_tokens=12, stream=True
        )
        assert "".join(part.choices[0].text for part in parts) == expected


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
    with pytest.raises(ConfigError, match="init.upcycle makes experts of a dense model"):
        run(replace(grown, name="b", init=replace(grown.init, checkpoint=None)))
