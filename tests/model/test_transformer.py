"""The model against transformers' Qwen3, and against itself computed another way."""

import dataclasses

import pytest
import torch
from model_doubles import SHAPES, preset_shape, random_ids, random_model, transformers_twin

from doubles import tiny_config
from minimind.config import ModelConfig, RopeScaling
from minimind.errors import ConfigError
from minimind.model import CausalLM, KVCache, linear_cross_entropy, stretch

TOLERANCE = 1e-4

VARIANTS = {
    "plain": tiny_config(),
    "heads-of-their-own": tiny_config(num_key_value_heads=4),
    "untied": tiny_config(tie_word_embeddings=False),
    "sliding": tiny_config(sliding_window=8),
    "sliding-pattern": tiny_config(
        sliding_window=8, layer_types=("sliding_attention", "full_attention")
    ),
    "linear": stretch(tiny_config(), RopeScaling(rope_type="linear", factor=4.0)),
    "yarn": stretch(
        tiny_config(),
        RopeScaling(rope_type="yarn", factor=4.0, original_max_position_embeddings=16),
    ),
    "yarn-betas": stretch(
        tiny_config(head_dim=16),
        RopeScaling(
            rope_type="yarn", factor=8.0, original_max_position_embeddings=32, beta_fast=8.0,
            beta_slow=2.0,
        ),
    ),
    "dynamic": stretch(
        tiny_config(),
        RopeScaling(rope_type="dynamic", factor=4.0, original_max_position_embeddings=16),
    ),
}  # fmt: skip


def largest_difference(a: torch.Tensor, b: torch.Tensor) -> float:
    return (a - b).abs().max().item()


@pytest.mark.parametrize("preset", SHAPES)
@torch.no_grad()
def test_logits_equal_transformers_for_every_preset(preset: str) -> None:
    config = preset_shape(preset)
    model = random_model(config)
    ids = random_ids(config, 2, 24)
    expected = transformers_twin(model)(ids).logits
    assert expected.std() > 0.5  # the comparison means something
    assert largest_difference(model(ids).logits, expected) < TOLERANCE
    cache = KVCache(config, batch_size=2, max_length=24)
    pieces = [model(piece, cache=cache).logits for piece in ids.split([11, 1, 12], dim=1)]
    assert largest_difference(torch.cat(pieces, 1), expected) < TOLERANCE


@pytest.mark.parametrize("variant", VARIANTS)
@torch.no_grad()
def test_logits_equal_transformers_for_every_option(variant: str) -> None:
    config = VARIANTS[variant]
    model = random_model(config)
    ids = random_ids(config, 2, 50)
    expected = transformers_twin(model)(ids).logits
    assert largest_difference(model(ids).logits, expected) < TOLERANCE


@pytest.mark.parametrize("variant", VARIANTS)
@torch.no_grad()
def test_cached_pieces_equal_transformers_cached_pieces(variant: str) -> None:
    """Dynamic NTK too: keys keep the frequencies of the call that wrote them, in both."""
    config = VARIANTS[variant]
    model = random_model(config)
    twin = transformers_twin(model)
    ids = random_ids(config, 2, 50)
    cache = KVCache(config, batch_size=2, max_length=50, chunk=20)
    past = None
    for piece in ids.split([14, 1, 1, 20, 1, 13], dim=1):
        out = twin(piece, past_key_values=past, use_cache=True)
        past = out.past_key_values
        assert largest_difference(model(piece, cache=cache).logits, out.logits) < TOLERANCE


@pytest.mark.parametrize("variant", ["plain", "sliding-pattern", "yarn"])
@torch.no_grad()
def test_greedy_ids_equal_transformers_generate(variant: str) -> None:
    config = VARIANTS[variant]
    model = random_model(config)
    ids = random_ids(config, 1, 9)
    expected = transformers_twin(model).generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=30, do_sample=False,
        eos_token_id=None, pad_token_id=0,
    )  # fmt: skip
    cache = KVCache(config, batch_size=1, max_length=39)
    answer, new = [ids], ids
    for _ in range(30):
        new = model(new, cache=cache, logits="last").logits[:, -1].argmax(-1, keepdim=True)
        answer.append(new)
    assert torch.equal(torch.cat(answer, 1), expected)


@pytest.mark.parametrize("variant", ["plain", "sliding"])
def test_no_position_depends_on_a_later_token(variant: str) -> None:
    config = VARIANTS[variant]
    model = random_model(config)
    embedded: list[torch.Tensor] = []

    def keep(module, args, output):
        output.retain_grad()
        embedded.append(output)

    model.model.embed_tokens.register_forward_hook(keep)
    T, position = 20, 12
    model(random_ids(config, 1, T)).logits[0, position].square().sum().backward()
    felt_T = embedded[0].grad[0].abs().sum(-1) > 0
    reach = 2 * (8 - 1) if variant == "sliding" else T  # two layers look back a window each
    expected_T = [position - reach <= t <= position for t in range(T)]
    assert felt_T.tolist() == expected_T


@torch.no_grad()
def test_which_logits_are_computed() -> None:
    config = tiny_config()
    model = random_model(config)
    ids = random_ids(config, 3, 10)
    whole = model(ids)
    assert model(ids, logits="none").logits is None
    torch.testing.assert_close(model(ids, logits="last").logits, whole.logits[:, -1:])
    torch.testing.assert_close(whole.hidden_BTD @ model.output_weight.T, whole.logits)


def test_fresh_weights_have_the_right_spread() -> None:
    torch.manual_seed(0)
    config = tiny_config(hidden_size=128, num_hidden_layers=8, intermediate_size=256)
    model = CausalLM(config)
    layer = model.model.layers[3]
    assert layer.self_attn.q_proj.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert model.output_weight.std().item() == pytest.approx(0.02, rel=0.05)
    for matrix in (layer.self_attn.o_proj, layer.mlp.down_proj):
        assert matrix.weight.std().item() == pytest.approx(0.02 / 4, rel=0.05)  # sqrt(2 * 8) = 4
    assert (layer.self_attn.q_norm.weight == 1).all()


@torch.no_grad()
def test_a_model_built_on_meta_computes_once_weights_are_in() -> None:
    config = stretch(tiny_config(), RopeScaling(rope_type="yarn", factor=2.0))
    model = random_model(config)
    with torch.device("meta"):
        empty = CausalLM(config)
    empty.load_state_dict(model.state_dict(), assign=True)
    ids = random_ids(config, 1, 8)
    assert torch.equal(empty(ids).logits, model(ids).logits)


@torch.no_grad()
def test_a_bf16_model_keeps_exact_positions() -> None:
    """Angles in bf16 would be off by whole turns at position 1,000."""
    config = tiny_config(num_hidden_layers=1, max_position_embeddings=1100)
    model = random_model(config)
    ids = random_ids(config, 1, 4)
    late = torch.arange(1000, 1004)[None]
    exact = model(ids, position_ids=late).logits
    rounded = model.bfloat16()(ids, position_ids=late).logits
    assert (rounded.float() - exact).std() / exact.std() < 0.02


def gradients(model: CausalLM, ids: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad(set_to_none=True)
    hidden_ND = model(ids, logits="none").hidden_BTD.flatten(0, 1)
    linear_cross_entropy(hidden_ND, model.output_weight, ids.flatten(), chunk=16)[0].backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(("layers", "forgotten"), [("none", 0), ("all", 4), ("0,2", 2), ("3", 1)])
def test_gradient_checkpointing_changes_memory_but_no_gradient(layers, forgotten) -> None:
    config = tiny_config(num_hidden_layers=4)
    model = random_model(config).train()
    ids = random_ids(config, 2, 16)
    expected = gradients(model, ids)
    runs = [0] * 4
    for number, layer in enumerate(model.model.layers):

        def count(*_, number: int = number) -> None:
            runs[number] += 1

        layer.mlp.register_forward_pre_hook(count)
    model.set_gradient_checkpointing(layers)
    actual = gradients(model, ids)
    assert actual.keys() == expected.keys()
    for name, gradient in expected.items():
        assert torch.equal(actual[name], gradient), name
    assert sorted(runs) == [1] * (4 - forgotten) + [2] * forgotten


@pytest.mark.parametrize("layers", ["4", "0,9", "-1", "some", "", "0,,1", "1.5"])
def test_a_bad_layer_list_is_refused_with_the_layers_there_are(layers: str) -> None:
    model = CausalLM(tiny_config(num_hidden_layers=4))
    with pytest.raises(ConfigError, match=r"train.gradient_checkpointing"):
        model.set_gradient_checkpointing(layers)


def test_bf16_autocast_is_near_fp32() -> None:
    config = tiny_config()
    model = random_model(config)
    ids = random_ids(config, 2, 32)
    exact = gradients(model, ids)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = gradients(model, ids)
    for name, gradient in exact.items():
        error = (rounded[name] - gradient).norm() / gradient.norm()
        assert error < 0.05, (name, error)


COMPILED = {
    "plain": tiny_config(),
    "sliding-yarn": dataclasses.replace(VARIANTS["yarn"], sliding_window=8),
    "dynamic": VARIANTS["dynamic"],
}


def training_loss(model: CausalLM, ids: torch.Tensor, documents: torch.Tensor | None):
    hidden_BTD = model(ids, document_ids=documents, logits="none").hidden_BTD
    weight = model.output_weight
    return linear_cross_entropy(hidden_BTD.flatten(0, 1), weight, ids.flatten(), chunk=16)[0]


@pytest.mark.parametrize("variant", COMPILED)
def test_the_whole_training_forward_is_one_graph(variant: str) -> None:
    """`fullgraph` raises at a graph break; backend eager runs the graph as it was traced."""
    model = random_model(COMPILED[variant])
    model.set_gradient_checkpointing("1")
    ids = random_ids(model.config, 2, 32)
    documents = torch.arange(32).repeat(2, 1) // 20
    for given in (None, documents):
        torch._dynamo.reset()
        compiled = torch.compile(training_loss, fullgraph=True, backend="eager")
        with torch.autocast("cpu", dtype=torch.bfloat16):
            expected = training_loss(model, ids, given)
            actual = compiled(model, ids, given)
        torch.testing.assert_close(actual, expected, rtol=2e-3, atol=0)


@pytest.mark.slow
@pytest.mark.parametrize("layers", ["none", "1"])
def test_the_compiled_training_step_has_the_eager_gradients(layers: str) -> None:
    config: ModelConfig = tiny_config()
    model = random_model(config)
    model.set_gradient_checkpointing(layers)
    ids = random_ids(config, 2, 32)
    training_loss(model, ids, None).backward()
    expected = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    torch._dynamo.reset()
    torch.compile(training_loss, fullgraph=True)(model, ids, None).backward()
    for name, p in model.named_parameters():
        torch.testing.assert_close(p.grad, expected[name], rtol=1e-3, atol=1e-4)
