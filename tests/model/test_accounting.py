"""The figures of `minimind params` against models that are really built and really run."""

import dataclasses
import json

import pytest
import torch
from model_doubles import SHAPES, preset_shape, random_ids
from torch.utils.flop_counter import FlopCounterMode

from doubles import tiny_config
from minimind.cli import main as minimind
from minimind.config import ModelConfig, MoEConfig
from minimind.model import CausalLM, KVCache, accounting, linear_cross_entropy
from minimind.settings import load_model_config

MILLIONS = {"26m": 26.34, "64m": 64.87, "64m-wide": 64.28, "104m": 103.6}


def built(config: ModelConfig) -> CausalLM:
    with torch.device("meta"):
        return CausalLM(config)


@pytest.mark.parametrize("preset", MILLIONS)
def test_every_preset_has_the_size_it_claims(preset: str) -> None:
    config = load_model_config(preset)
    total = sum(p.numel() for p in built(config).parameters())
    assert total / 1e6 == pytest.approx(MILLIONS[preset], rel=5e-4)
    assert config == preset_shape(preset)  # so the parity tests are about the presets


def test_nano_is_a_4m_class_model() -> None:
    total = sum(p.numel() for p in built(load_model_config("nano")).parameters())
    assert 4e6 < total < 5e6


FAMILIES = {
    "tied": {},
    "untied": {"tie_word_embeddings": False},
    "qwen2": {"model_type": "qwen2"},
    "llama": {"model_type": "llama", "attention_bias": True},
    "experts": {"moe": MoEConfig(num_experts=6, moe_intermediate_size=64)},
}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("preset", SHAPES)
def test_the_parts_add_up_to_the_model(preset: str, family: str) -> None:
    config = dataclasses.replace(preset_shape(preset), **FAMILIES[family])
    parts = accounting.count_parameters(config)
    counted = dict.fromkeys(
        ("embedding", "output", "attention", "feed_forward", "norms", "biases", "router"), 0
    )
    for name, parameter in built(config).named_parameters():
        part = (
            "norms" if "norm" in name
            else "biases" if name.endswith("bias")
            else "embedding" if "embed" in name
            else "output" if "lm_head" in name
            else "attention" if "self_attn" in name
            else "router" if "mlp.gate." in name
            else "feed_forward"
        )  # fmt: skip
        counted[part] += parameter.numel()
    assert dataclasses.asdict(parts) == counted
    assert parts.total == sum(counted.values())


@pytest.mark.parametrize("tied", [True, False])
def test_flops_equal_what_torch_counts(tied: bool) -> None:
    """torch counts the whole T x T of eager attention; ours leaves the masked half out."""
    config = tiny_config(tie_word_embeddings=tied)
    model, ids, T = CausalLM(config), random_ids(config, 2, 16), 16
    model.set_attention("eager")
    counter = FlopCounterMode(display=False)
    with counter:
        model(ids).logits.sum().backward()
    width = config.num_attention_heads * config.head_dim
    masked = config.num_hidden_layers * 12 * width * (T - accounting.mean_keys(T, window=None))
    ours = accounting.training_flops_per_token(config, sequence_length=T)
    assert counter.get_total_flops() / ids.numel() == pytest.approx(ours + masked)


@pytest.mark.parametrize("window", [None, 1, 5, 16, 99])
def test_mean_keys_counts_the_mask(window: int | None) -> None:
    T = 16
    counted = [min(t + 1, window or T) for t in range(T)]
    assert accounting.mean_keys(T, window=window) == pytest.approx(sum(counted) / T)


def saved_bytes(config: ModelConfig, *, rows: int, length: int, layers: str) -> int:
    """Bytes that autograd keeps for the backward pass, weights and their bf16 copies left out."""
    model = CausalLM(config)
    model.set_gradient_checkpointing(layers)
    ids = random_ids(config, rows, length)
    kept: dict[int, torch.Tensor] = {}

    def pack(x: torch.Tensor) -> torch.Tensor:
        if rows * length in (x.numel() // x.shape[-1], x.shape[0]) or x.shape[:1] == (rows,):
            kept[x.untyped_storage().data_ptr()] = x
        return x

    with (
        torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x),
        torch.autocast("cpu", torch.bfloat16),
    ):
        hidden_ND = model(ids, logits="none").hidden_BTD.flatten(0, 1)
        loss = linear_cross_entropy(hidden_ND, model.output_weight, ids.flatten())[0]
    assert loss.requires_grad
    return sum(x.untyped_storage().nbytes() for x in kept.values())


@pytest.mark.parametrize("preset", ["nano", "26m"])
def test_the_activation_estimate_is_what_autograd_saves(preset: str) -> None:
    two, four = (dataclasses.replace(preset_shape(preset), num_hidden_layers=n) for n in (2, 4))
    rows, length = 3, 77
    for layers in ("none", "all"):
        measured = [saved_bytes(c, rows=rows, length=length, layers=layers) for c in (two, four)]
        memory = [
            accounting.training_memory(c, micro_batch_rows=rows, sequence_length=length)
            for c in (two, four)
        ]
        estimated = [
            m.activations if layers == "none" else m.activations_checkpointed for m in memory
        ]
        assert measured[1] - measured[0] == pytest.approx(estimated[1] - estimated[0], rel=0.05)


def test_the_cache_estimate_is_the_cache() -> None:
    config = tiny_config()
    cache = KVCache(config, batch_size=1, max_length=512, dtype=torch.bfloat16)
    assert accounting.inference_memory(config).cache_per_512_tokens == cache.nbytes
    sliding = tiny_config(sliding_window=16)
    assert accounting.cache_bytes(sliding, tokens=512) == cache.nbytes * 16 // 512


def test_the_verb_gives_the_same_figures_as_text_and_json(capsys) -> None:
    assert minimind(["params", "nano", "64m", "--json", "--micro-batch-rows", "4"]) == 0
    columns = json.loads(capsys.readouterr().out)
    assert list(columns) == ["nano", "64m"]
    assert columns["64m"]["parameters"]["total"] == 64_873_984
    assert columns["64m"]["shape"] == {"micro_batch_rows": 4, "sequence_length": 512}
    training = columns["64m"]["training_bytes"]
    assert training["total_muon"] < training["total_adamw"]
    assert training["total_adamw_checkpointed"] < training["total_adamw"]
    assert minimind(["params", "64m"]) == 0
    text = capsys.readouterr().out
    for expected in ("64.87", "6.14", "58.73", "PaLM"):
        assert expected in text


@pytest.mark.parametrize(
    ("argv", "message"),
    [(["64n"], "64m"), (["64m", "--micro-batch-rows", "0"], "at least 1")],
)
def test_wrong_input_exits_with_2(capsys, argv: list[str], message: str) -> None:
    assert minimind(["params", *argv]) == 2
    assert message in capsys.readouterr().err
