"""The running mean of the weights: its formula, what a run leaves with it, and its resume."""

import shutil
from dataclasses import replace

import pytest
import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from doubles import tiny_config
from minimind import checkpoint
from minimind.config import InitConfig, LoraConfig, TrainConfig
from minimind.errors import CheckpointError, ConfigError
from minimind.model import CausalLM, inject_lora
from minimind.model.accounting import training_memory
from minimind.train.average import WeightAverage
from minimind.train.run import run
from run_doubles import curve, following, run_directory, tiny_run


def averaged_run(tmp_path, **changes):
    config = tiny_run(tmp_path, steps=12)
    return replace(config, train=replace(config.train, average_decay=0.9, **changes))


def moved(model):
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight) * 0.1)


def test_it_is_torchs_average_once_it_has_warmed_up():
    torch.manual_seed(0)
    model = CausalLM(tiny_config())
    ours = WeightAverage(model, 0.5)
    ours.updates = 100
    theirs = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.5))
    theirs.update_parameters(model)  # its first update copies
    for _ in range(5):
        moved(model)
        ours.update()
        theirs.update_parameters(model)
    expected = dict(theirs.module.named_parameters())
    for name, weight in ours.model.named_parameters():
        torch.testing.assert_close(weight, expected[name])


def test_the_first_updates_forget_the_random_weights():
    model = CausalLM(tiny_config())
    average = WeightAverage(model, 0.999)
    with torch.no_grad():
        for weight in model.parameters():
            weight.fill_(1.0)
    for _ in range(20):
        average.update()
    assert all(((w - 1).abs() < 0.02).all() for w in average.model.parameters())


def test_frozen_weights_are_shared():
    model = CausalLM(tiny_config())
    inject_lora(model, LoraConfig(rank=2))
    average = WeightAverage(model, 0.9)
    ours, theirs = dict(average.model.named_parameters()), dict(model.named_parameters())
    assert ours.keys() == theirs.keys()
    for name, weight in theirs.items():
        assert (ours[name] is weight) == ("lora" not in name)


def test_the_run_validates_and_saves_the_mean_and_trains_the_same_weights(tmp_path):
    plain = tiny_run(tmp_path, steps=12)
    averaged = replace(averaged_run(tmp_path), name="averaged")
    run(plain)
    run(averaged)
    losses = [
        [line["loss"] for line in curve(run_directory(one)) if "loss" in line]
        for one in (plain, averaged)
    ]
    assert losses[0] == losses[1]
    last = run_directory(averaged) / "checkpoints" / "step-000012"
    mean, _ = checkpoint.load(last)
    state = checkpoint.load_trainer_state(last)["average"]
    raw, _ = checkpoint.load(run_directory(plain) / "checkpoints" / "step-000012")
    for name, weight in raw.named_parameters():
        assert torch.equal(state["weights"][name], weight)
        assert not torch.equal(mean.get_parameter(name), weight)
    figures = [
        next(line for line in reversed(curve(run_directory(one))) if "validation_loss" in line)
        for one in (plain, averaged)
    ]
    assert figures[0]["validation_loss"] != figures[1]["validation_loss"]


@pytest.mark.parametrize("kind", ["text", "lora"])
def test_resumed_it_is_the_run_that_never_stopped(kind, tmp_path):
    config = averaged_run(tmp_path)
    if kind == "lora":
        run(config)
        config = following(config, kind="chat", name="adapters")
        train = replace(config.train, average_decay=0.9)
        config = replace(config, lora=LoraConfig(rank=2), train=train)
    run(config)
    whole, resumed = run_directory(config), run_directory(replace(config, name="resumed"))
    shutil.copytree(whole, resumed)
    shutil.rmtree(resumed / "checkpoints" / "step-000012")
    run(replace(config, name="resumed"), resume=True)
    name = "adapter_model.safetensors" if kind == "lora" else "model.safetensors"
    left = [one / "checkpoints" / "step-000012" for one in (whole, resumed)]
    assert (left[0] / name).read_bytes() == (left[1] / name).read_bytes()
    states = [checkpoint.load_trainer_state(one)["average"] for one in left]
    assert states[0]["updates"] == states[1]["updates"] == 12
    for weight, same in zip(*(state["weights"].values() for state in states), strict=True):
        assert torch.equal(weight, same)
    assert curve(whole) == curve(resumed)


def test_another_decay_is_another_run(tmp_path):
    config = averaged_run(tmp_path)
    run(replace(config, train=replace(config.train, steps=4)))
    other = replace(config, train=replace(config.train, average_decay=0.5))
    with pytest.raises(ConfigError, match=r"train\.average_decay: was 0\.9, now 0\.5"):
        run(other, resume=True)


def test_a_state_of_other_weights_is_refused():
    average = WeightAverage(CausalLM(tiny_config()), 0.9)
    with pytest.raises(CheckpointError, match=r"train\.average_decay"):
        average.load_state_dict({})


@pytest.mark.parametrize("decay", [-0.1, 1.0])
def test_a_decay_that_is_none(decay):
    with pytest.raises(ConfigError, match=r"train\.average_decay"):
        TrainConfig(average_decay=decay)


def test_shares_of_a_model_are_refused():
    from minimind.train.sharding import _check

    with pytest.raises(ConfigError, match=r"train\.average_decay.*--train\.parallel replicate"):
        _check(CausalLM(tiny_config()), TrainConfig(average_decay=0.9))


def test_a_run_starts_from_the_mean(tmp_path):
    config = averaged_run(tmp_path)
    run(config)
    after = replace(tiny_run(tmp_path, steps=4), name="after")
    after = replace(after, init=InitConfig(checkpoint=str(run_directory(config))))
    run(after)
    assert (run_directory(after) / "checkpoints" / "step-000004").exists()


def test_the_prediction_has_room_for_a_second_copy_of_the_weights():
    memory = training_memory(tiny_config(), micro_batch_rows=2, sequence_length=64)
    assert memory.total(averaged=True) - memory.total() == memory.weights
