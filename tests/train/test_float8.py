"""Products in 8 bits: refused where they can't be, and what is converted where they can."""

from dataclasses import replace

import pytest
import torch

from doubles import tiny_config
from minimind.config import LoraConfig, TrainConfig
from minimind.errors import ConfigError
from minimind.model import CausalLM, inject_lora
from minimind.train.device import check_float8, pick_precision
from minimind.train.run import run
from run_doubles import tiny_run

CUDA = torch.device("cuda")


def test_a_cpu_is_told_what_to_use(tmp_path):
    config = tiny_run(tmp_path)
    with pytest.raises(ConfigError, match=r"this run is on cpu.*--train\.precision bf16"):
        run(replace(config, train=replace(config.train, precision="fp8")))


def test_an_older_card_is_told_its_capability(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: (8, 6))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _device: "RTX 3090")
    with pytest.raises(ConfigError, match=r"8\.9 or more.*RTX 3090 has 8\.6"):
        pick_precision(TrainConfig(precision="fp8"), CUDA)


def test_without_torchao_there_is_a_command(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: (9, 0))
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(ConfigError, match=r"pip install 'minimind\[fp8\]'"):
        check_float8(CUDA)


def test_layers_multiply_in_8_bits_and_the_rest_does_not():
    pytest.importorskip("torchao")
    from minimind.train.float8 import use_float8

    config = replace(tiny_config(), hidden_size=64, intermediate_size=96, head_dim=16)
    torch.manual_seed(0)
    model = CausalLM(config).train()
    before = {name: (id(weight), weight.shape) for name, weight in model.named_parameters()}
    ids = torch.randint(0, 60, (2, 32))
    exact = model(ids).logits
    names = use_float8(model, emulate=True)
    assert len(names) == 7 * config.num_hidden_layers
    after = {name: (id(weight), weight.shape) for name, weight in model.named_parameters()}
    assert after == before
    rounded = model(ids).logits
    assert not torch.equal(rounded, exact)
    # e4m3 keeps 3 bits of the mantissa: each product is off by some percent at most.
    assert (rounded - exact).norm() / exact.norm() < 0.1
    rounded.sum().backward()
    assert all(weight.grad is not None for weight in model.parameters())


def test_odd_sides_and_adapters_are_left_out():
    pytest.importorskip("torchao")
    from minimind.train.float8 import use_float8

    model = CausalLM(replace(tiny_config(), hidden_size=64, head_dim=16, intermediate_size=100))
    assert not any("mlp" in name for name in use_float8(model, emulate=True))
    model = CausalLM(tiny_config())
    inject_lora(model, LoraConfig(rank=2))
    with pytest.raises(ConfigError, match=r"\[lora\]"):
        use_float8(model, emulate=True)
