"""The composition root: every stage from its preset, and what a run leaves behind."""

import json
import math
import shutil
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console

from minimind import checkpoint
from minimind.config import LoraConfig, RopeScaling, RunConfig, TrainConfig
from minimind.settings import load_run_config
from minimind.train import run as run_module
from minimind.train.hooks import evaluate
from minimind.train.metrics import read_metrics
from minimind.train.run import run
from run_doubles import curve, following, run_directory, tiny_run, write_rows


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    config = tiny_run(tmp_path_factory.mktemp("stages"), steps=60)
    run(config)
    return config


def losses(config: RunConfig) -> list[float]:
    return [line["loss"] for line in curve(run_directory(config)) if "loss" in line]


def stage(preset: str, pretrained: RunConfig, *, kind: str) -> RunConfig:
    """The packaged preset, on a tiny model and data; its rates and schedule stay."""
    small = following(pretrained, kind=kind, name=preset)
    preset_config = load_run_config([preset])
    train = replace(
        preset_config.train, batch_rows=8, micro_batch_rows=4,
        compile=False, precision="fp32", device="cpu",
    )  # fmt: skip
    return replace(
        preset_config, out=small.out, init=small.init, train=train, log=small.log, save=small.save,
        data=replace(preset_config.data, train=small.data.train, sequence_length=64,
                     validation_share=0.05),
    )  # fmt: skip


def test_pretraining_learns_and_leaves_what_it_promises(pretrained):
    directory = run_directory(pretrained)
    curve_of = losses(pretrained)
    assert len(curve_of) == 60
    assert curve_of[0] == pytest.approx(math.log(272), abs=0.05)
    assert curve_of[-1] < 0.6 * curve_of[0]
    validations = [line for line in curve(directory) if "validation_loss" in line]
    assert [line["step"] for line in validations] == list(range(6, 61, 6))
    assert validations[-1]["validation_bits_per_byte"] < validations[0]["validation_bits_per_byte"]
    assert load_run_config([str(directory / "run.toml")]) == pretrained

    ledger = json.loads((directory / "ledger.json").read_text())
    (data,) = ledger["data"]
    assert data["path"] == pretrained.data.train[0]
    assert data["bytes"] == Path(data["path"]).stat().st_size
    assert data["licences"] == ["unknown"]
    assert ledger["used"]["documents"] > 0
    best = json.loads((directory / "checkpoints/best.json").read_text())
    assert best["validation_loss"] == min(line["validation_loss"] for line in validations)


def test_the_ledger_knows_the_licences_of_built_data(tmp_path):
    data = write_rows(tmp_path / "corpus/pretrain/laws.jsonl", "text")
    entry = {"source": "laws", "licence": "MIT", "upstream": "free", "file": "pretrain/laws.jsonl"}
    (tmp_path / "corpus/ledger.json").write_text(json.dumps([entry]), encoding="utf-8")
    config = tiny_run(tmp_path, steps=1)
    config = replace(config, data=replace(config.data, train=(str(data),)))
    run(config)
    ledger = json.loads((run_directory(config) / "ledger.json").read_text())
    assert ledger["data"][0]["licences"] == ["MIT"]
    assert ledger["data"][0]["sources"][0]["source"] == "laws"


def test_running_run_toml_again_repeats_the_run(pretrained):
    again = load_run_config([str(run_directory(pretrained) / "run.toml")], ["--name", "again"])
    run(again)
    assert losses(again) == losses(pretrained)


@pytest.mark.parametrize(("preset", "kind"), [("sft", "chat"), ("lora", "chat")])
def test_a_stage_starts_from_the_checkpoint_and_learns(preset, kind, pretrained):
    config = stage(preset, pretrained, kind=kind)
    run(config)
    assert losses(config)[-1] < losses(config)[0] - 0.3
    directory = run_directory(config)
    stored = tomllib.loads((directory / "run.toml").read_text())
    assert Path(stored["init"]["checkpoint"]) == checkpoint.resolve(run_directory(pretrained))
    assert stored["model"]["hidden_size"] == 32
    adapter = checkpoint.resolve(directory) / "adapter_model.safetensors"
    assert adapter.exists() == (preset == "lora")


def test_dpo_starts_at_ln_2_and_its_preset_really_moves(pretrained):
    config = stage("dpo", pretrained, kind="preference")
    run(config)
    lines = curve(run_directory(config))
    first = next(line for line in lines if "loss" in line)
    assert first["loss"] == pytest.approx(math.log(2), abs=1e-6)
    last_validation = [line for line in lines if "validation_loss" in line][-1]
    assert last_validation["validation_loss"] < 0.65
    assert last_validation["validation_accuracy"] > 0.9


def test_distillation_comes_nearer_to_the_teacher(pretrained):
    config = stage("distill", pretrained, kind="chat")
    start = run_directory(pretrained) / "checkpoints"
    student = replace(config.init, checkpoint=str(sorted(start.glob("step-*"))[0]))
    teacher = replace(config.objective, teacher=str(run_directory(pretrained)))
    config = replace(config, init=student, objective=teacher)
    run(config)
    lines = [line for line in curve(run_directory(config)) if "validation_divergence" in line]
    assert lines[-1]["validation_divergence"] < lines[0]["validation_divergence"]


def test_full_training_may_start_from_adapters_which_are_merged(pretrained):
    lora = following(pretrained, kind="chat", name="adapters")
    lora = replace(lora, lora=LoraConfig(rank=2, target_modules=("q_proj",)))
    run(lora)
    config = following(lora, kind="chat", name="after-adapters")
    run(config)
    assert losses(config)[0] == pytest.approx(losses(lora)[-1], abs=0.5)
    model, _ = checkpoint.load(run_directory(config))
    assert not any("lora" in name for name in model.state_dict())


def test_the_context_is_stretched_on_the_way_in(pretrained):
    config = following(pretrained, kind="text", name="stretched")
    scaling = RopeScaling(rope_type="yarn", factor=2.0, original_max_position_embeddings=64)
    config = replace(
        config,
        init=replace(config.init, rope_scaling=scaling),
        data=replace(config.data, sequence_length=128),
    )
    run(config)
    model, _ = checkpoint.load(run_directory(config))
    assert model.config.max_position_embeddings == 128
    assert model.config.rope_scaling == scaling
    expected = curve(run_directory(config))
    shutil.rmtree(checkpoint.resolve(run_directory(config)))
    run(config, resume=True)
    assert curve(run_directory(config)) == expected


@pytest.mark.parametrize(
    ("changes", "steps"),
    [({"steps": 3, "tokens": 10**9}, 3), ({"tokens": 1000}, 4), ({"epochs": 2.0}, None)],
)
def test_how_long_a_run_is(changes, steps, tmp_path):
    config = tiny_run(tmp_path)
    train = replace(config.train, **({"steps": None} | changes))
    write_rows(tmp_path / "text.jsonl", "text", rows=40)
    config = replace(config, train=train)
    result = run(config)
    if steps is None:
        used = json.loads((run_directory(config) / "ledger.json").read_text())["used"]
        assert 70 <= used["documents"] <= 84  # two passes over 40, less what is held out
    else:
        assert result.last.step == steps


def test_progress_is_shown_on_the_console_that_is_given(tmp_path):
    console = Console(record=True, width=200, file=Path(tmp_path / "out").open("w"))  # noqa: SIM115
    run(tiny_run(tmp_path, steps=2), console=console)
    shown = console.export_text()
    assert "run 2/2 · loss" in shown
    assert "validation at step 2" in shown


def test_without_held_out_rows_there_is_no_validation(tmp_path):
    config = tiny_run(tmp_path, steps=2)
    data = replace(config.data, validation_share=0.0)
    console = Console(record=True, width=300, file=Path(tmp_path / "out").open("w"))  # noqa: SIM115
    run(replace(config, data=data), console=console)
    assert "no validation" in console.export_text()
    assert not any("validation_loss" in line for line in read_metrics(
        run_directory(config) / "metrics.jsonl"))  # fmt: skip


def test_the_saved_model_has_the_validation_loss_that_was_logged(pretrained):
    """What is loaded is what was trained: the same held-out rows give the same loss."""
    from minimind.data import validation_batches
    from minimind.train import NextToken, Trainer, build_optimizer, build_schedule

    model, tokenizer = checkpoint.load(run_directory(pretrained))
    batches = validation_batches(pretrained.data, tokenizer, rows=8, micro_batch_rows=2)
    trainer = Trainer(
        model=model,
        objective=NextToken(),
        optimizer=build_optimizer(model, pretrained.optim),
        schedule=build_schedule(pretrained.optim, steps=1),
        config=pretrained.train,
        steps=1,
    )
    logged = curve(run_directory(pretrained))[-1]["validation_loss"]
    assert evaluate(trainer, batches)["loss"] == logged


def test_compiling_is_off_and_said_where_the_gpus_compiler_is_missing(monkeypatch, capsys):
    monkeypatch.setattr(run_module, "cpp_compiler", lambda: ("g++", ["g++"]))
    monkeypatch.setattr(run_module, "compile_refusal", lambda device: "no Triton")
    asked, console = TrainConfig(compile=True), Console()
    for device, compiled in (("cpu", True), ("cuda", False)):
        given = run_module._compilable(asked, torch.device(device), console=console)
        assert given.compile is compiled
    assert capsys.readouterr().out == "train.compile is off: no Triton\n"
