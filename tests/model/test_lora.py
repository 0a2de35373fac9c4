"""Adapters against the real peft on transformers' Qwen3 of the same weights."""

import dataclasses
import json
from pathlib import Path

import peft
import pytest
import torch
from model_doubles import random_ids, random_model, transformers_twin
from safetensors.torch import load_file, save_file

from doubles import tiny_config
from minimind.config import LoraConfig
from minimind.errors import CheckpointError, ConfigError
from minimind.model import (
    CausalLM,
    LoRALinear,
    adapter_config,
    inject_lora,
    linear_cross_entropy,
    load_lora_state_dict,
    lora_config_from_adapter,
    lora_state_dict,
    merge_lora,
)

PLAIN = LoraConfig(rank=4, alpha=8.0)
RSLORA = LoraConfig(rank=3, alpha=5.0, rslora=True, target_modules=("q_proj", "down_proj"))


def adapted_model(config: LoraConfig, *, seed: int = 0) -> CausalLM:
    """A model whose adapters do something."""
    model = random_model(tiny_config(), seed=seed)
    inject_lora(model, config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.normal_(std=0.1)
    return model


def save_adapter(model: CausalLM, config: LoraConfig, folder: Path) -> None:
    save_file(lora_state_dict(model), folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps(adapter_config(config)))


@pytest.mark.parametrize("config", [PLAIN, RSLORA], ids=["plain", "rslora"])
@torch.no_grad()
def test_peft_loads_our_adapter_and_gives_the_same_logits(config, tmp_path: Path) -> None:
    model = adapted_model(config)
    save_adapter(model, config, tmp_path)
    base = random_model(tiny_config())
    ids = random_ids(base.config, 2, 20)
    twin = peft.PeftModel.from_pretrained(transformers_twin(base), str(tmp_path)).eval()
    ours = model(ids).logits
    assert (ours - twin(ids).logits).abs().max() < 1e-4
    assert (ours - base(ids).logits).abs().max() > 0.1  # the adapter does something


@torch.no_grad()
def test_we_load_pefts_adapter_and_give_the_same_logits(tmp_path: Path) -> None:
    base = random_model(tiny_config())
    ids = random_ids(base.config, 2, 20)
    wanted = peft.LoraConfig(
        r=4, lora_alpha=8, target_modules=["v_proj", "up_proj"], task_type="CAUSAL_LM"
    )
    twin = peft.get_peft_model(transformers_twin(base), wanted).eval()
    for name, parameter in twin.named_parameters():
        if "lora_" in name:
            parameter.normal_(std=0.1)
    twin.save_pretrained(str(tmp_path))
    values = json.loads((tmp_path / "adapter_config.json").read_text())
    config = lora_config_from_adapter(values)
    inject_lora(base, config)
    load_lora_state_dict(base, load_file(tmp_path / "adapter_model.safetensors"))
    assert (base(ids).logits - twin(ids).logits).abs().max() < 1e-4


@pytest.mark.parametrize("config", [PLAIN, RSLORA], ids=["plain", "rslora"])
@torch.no_grad()
def test_merging_is_exact_and_gives_the_plain_keys_back(config: LoraConfig) -> None:
    base = random_model(tiny_config())
    model = adapted_model(config)
    ids = random_ids(base.config, 2, 20)
    expected = model(ids).logits
    merge_lora(model)
    assert (model(ids).logits - expected).abs().max() < 1e-5
    assert model.state_dict().keys() == base.state_dict().keys()
    assert not any(isinstance(module, LoRALinear) for module in model.modules())
    assert all(p.requires_grad for p in model.parameters())


@torch.no_grad()
def test_one_layer_merges_and_unmerges() -> None:
    model = adapted_model(PLAIN)
    layer = model.model.layers[0].self_attn.q_proj
    before, x = layer.weight.clone(), torch.randn(3, layer.weight.shape[1])
    expected = layer(x)
    layer.merge()
    layer.merge()  # a second time changes nothing
    torch.testing.assert_close(layer(x), expected, rtol=0, atol=1e-5)
    layer.unmerge()
    layer.unmerge()
    torch.testing.assert_close(layer.weight, before, rtol=0, atol=1e-6)
    torch.testing.assert_close(layer(x), expected, rtol=0, atol=1e-5)


def test_fresh_adapters_change_nothing_and_alone_are_trained() -> None:
    model = random_model(tiny_config())
    ids = random_ids(model.config, 2, 12)
    expected = model(ids).logits
    names = inject_lora(model, PLAIN)
    assert len(names) == 2 * 7
    assert torch.equal(model(ids).logits, expected)
    frozen = {n: p.clone() for n, p in model.named_parameters() if not p.requires_grad}
    trained = [p for p in model.parameters() if p.requires_grad]
    assert len(trained) == 2 * len(names)
    optimizer = torch.optim.SGD(trained, lr=0.1)
    losses = []
    for _ in range(10):
        hidden_ND = model(ids[:, :-1], logits="none").hidden_BTD.flatten(0, 1)
        labels_N = ids[:, 1:].flatten()
        total, count = linear_cross_entropy(hidden_ND, model.output_weight, labels_N)
        (total / count).backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append((total / count).item())
    assert losses[-1] < losses[0] - 0.1
    for name, parameter in model.named_parameters():
        if name in frozen:
            assert torch.equal(parameter, frozen[name]), name


def test_dropout_works_in_training_only_and_reaches_the_adapter_only() -> None:
    config = dataclasses.replace(PLAIN, dropout=0.5)
    model = adapted_model(config)
    ids = random_ids(model.config, 1, 8)
    assert torch.equal(model.eval()(ids).logits, model(ids).logits)
    model.train()
    assert not torch.equal(model(ids).logits, model(ids).logits)
    layer = model.model.layers[0].self_attn.q_proj
    with torch.no_grad():
        layer.lora_B.zero_()
    x = torch.randn(2, layer.weight.shape[1])
    torch.testing.assert_close(layer(x), x @ layer.weight.T)


def test_adapters_work_with_checkpointed_layers_and_dropout() -> None:
    config = dataclasses.replace(PLAIN, dropout=0.5)
    model = adapted_model(config).train()
    ids = random_ids(model.config, 2, 8)
    grads = []
    for layers in ("none", "all"):
        model.set_gradient_checkpointing(layers)
        model.zero_grad()
        torch.manual_seed(3)
        model(ids).logits.square().mean().backward()
        grads.append([p.grad.clone() for p in model.parameters() if p.requires_grad])
    for plain, recomputed in zip(*grads, strict=True):
        assert torch.equal(plain, recomputed)


def test_what_does_not_fit_is_refused() -> None:
    model = CausalLM(tiny_config())
    with pytest.raises(ConfigError, match=r"'q_prj'.*Did you mean 'q_proj'"):
        inject_lora(model, dataclasses.replace(PLAIN, target_modules=("q_prj",)))
    with pytest.raises(ConfigError, match="rank = 0"):
        inject_lora(model, dataclasses.replace(PLAIN, rank=0))
    assert all(p.requires_grad for p in model.parameters())  # nothing was changed yet
    inject_lora(model, PLAIN)
    with pytest.raises(ConfigError, match="already"):
        inject_lora(model, PLAIN)
    state = lora_state_dict(model)
    name = next(iter(state))
    with pytest.raises(CheckpointError, match="lacks"):
        load_lora_state_dict(model, {n: t for n, t in state.items() if n != name})
    with pytest.raises(CheckpointError, match="another base model or rank"):
        load_lora_state_dict(model, state | {name: torch.zeros(1, 1)})
    with pytest.raises(CheckpointError, match="use_dora"):
        lora_config_from_adapter(adapter_config(PLAIN) | {"use_dora": True})
    assert lora_config_from_adapter(adapter_config(PLAIN)) == dataclasses.replace(
        PLAIN, target_modules=tuple(sorted(PLAIN.target_modules))
    )
