"""Quantised matrices: against explicit dequantisation, bitsandbytes, and what they cost."""

import copy
import random

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from doubles import byte_tokenizer, tiny_config
from minimind.config import LoraConfig, ModelConfig
from minimind.data.document import Document
from minimind.errors import ConfigError
from minimind.eval.bits_per_byte import bits_per_byte
from minimind.inference import SamplingParams
from minimind.inference.engine import Engine
from minimind.model import CausalLM, inject_lora
from minimind.model.quantize import METHODS, bytes_read_per_token, quantize_model, weight_bytes
from minimind.model.quantized import Int4Linear, Int8Embedding, Int8Linear, QuantizedMatrix

OURS = ("int8", "int4")
GREEDY = SamplingParams(temperature=0, repetition_penalty=1.0, max_new_tokens=24)


@pytest.fixture(autouse=True)
def without_gradients():
    with torch.no_grad():
        yield


def model_of(**changes):
    torch.manual_seed(0)
    # Larger weights than a real start has: greedy decoding then has clear winners.
    return CausalLM(tiny_config(initializer_range=0.2, **changes)).eval()


def quantized(model, method, **options):
    again = copy.deepcopy(model)
    quantize_model(again, method, **options)
    return again


def with_rounded_weights(model, rounded):
    """The plain model with what `rounded`'s matrices stand for, as ordinary weights."""
    plain = copy.deepcopy(model)
    for name, module in rounded.named_modules():
        if isinstance(module, QuantizedMatrix):
            plain.get_submodule(name).weight.copy_(module.dequantize())
    return plain


def weight(out_features=64, in_features=96, *, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(out_features, in_features, generator=generator) * 0.05


def relative_error(found, expected):
    return float((found.double() - expected).norm() / expected.norm())


@pytest.mark.parametrize("tokens", [1, 5, 16, 17, 64])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_products_are_those_of_the_weights_they_stand_for(dtype, tokens):
    x = torch.randn(1, tokens, 96, dtype=dtype)
    for module in (Int8Linear.of(weight()), Int4Linear.of(weight(), group_size=32)):
        bias = torch.randn(64)
        module.bias = bias
        stands_for = module.dequantize().double()
        module.to(dtype)
        if isinstance(module, Int4Linear):
            assert module.kernel_weight is not None  # the kernel is what is tested
        found = module(x)
        assert found.shape == (1, tokens, 64)
        assert found.dtype == dtype
        exact = dtype == torch.float32 and isinstance(module, Int8Linear)
        expected = x.double() @ stands_for.T + bias.double()
        assert relative_error(found, expected) < (1e-6 if exact else 0.01)


@pytest.mark.parametrize("in_features", [24, 40, 64])
def test_int8_at_an_odd_address_or_of_odd_rows_does_not_crash_the_kernel(in_features):
    made = Int8Linear.of(weight(64, in_features))
    mapped = torch.zeros(64 * in_features + 64, dtype=torch.int8)[1 : 64 * in_features + 1]
    made.weight = mapped.view(64, in_features).copy_(made.weight)
    made.pack()
    made.to(torch.bfloat16)
    x = torch.randn(8, in_features, dtype=torch.bfloat16)
    expected = x.double() @ made.dequantize().double().T
    assert relative_error(made(x), expected) < 0.01


def test_int8_errs_by_half_a_step_of_its_row_at_most():
    w = weight()
    w[3] = 0  # a row of zeros has no scale of its own
    module = Int8Linear.of(w)
    # The largest weight of a row may lie beyond 127 steps by as much as its scale was rounded.
    bound = module.scale[:, None] * (0.5 + 127 * 2**-8)
    assert ((module.dequantize() - w).abs() <= bound).all()
    assert (module.dequantize()[3] == 0).all()


@pytest.mark.parametrize("group_size", [32, 64])
def test_int4_errs_by_half_a_step_of_its_group_at_most(group_size):
    w = weight(in_features=128)
    w[:, :group_size] = 0.25  # a group without any spread
    module = Int4Linear.of(w, group_size=group_size)
    _, scale, zero = module.plain()
    per_weight = [t.repeat_interleave(group_size, 1) for t in (scale, zero)]
    bound = per_weight[0] * (0.5 + 15 * 2**-8) + per_weight[1].abs() * 2**-8
    bound[:, :group_size] = 2**-9
    assert ((module.dequantize() - w).abs() <= bound).all()


@pytest.mark.parametrize("out_features", [16, 48, 64, 80, 128])
def test_int4_gives_its_state_back_from_the_kernels_order(out_features):
    module = Int4Linear.of(weight(out_features), torch.ones(out_features), group_size=32)
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    assert set(before) == {"packed", "scale", "zero", "bias"}
    module.pack()
    assert module.packed is None
    after = module.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    module.unpack()
    assert module.kernel_weight is None
    assert all(torch.equal(module.state_dict()[name], t) for name, t in before.items())


def test_int4_on_another_device_is_in_the_order_of_its_state():
    module = Int4Linear.of(weight(), group_size=32)
    module.pack()
    module.to("meta")
    assert module.kernel_weight is None
    assert module.packed is not None
    assert module(torch.empty(3, 96, device="meta")).shape == (3, 64)


@pytest.mark.parametrize("tied", [True, False])
def test_int8_model_is_the_model_with_the_rounded_weights(tied):
    model = model_of(tie_word_embeddings=tied)
    rounded = quantized(model, "int8")
    plain = with_rounded_weights(model, rounded)
    ids = torch.randint(0, 256, (3, 40))
    assert (rounded(ids).logits - plain(ids).logits).abs().max() < 1e-4
    prompts = [[1, 2, 3], list(range(40, 60)), [7]]
    expected = Engine(plain).generate(prompts, GREEDY)
    assert Engine(rounded).generate(prompts, GREEDY) == expected
    assert all(len(answer) == 24 for answer in expected)


@pytest.mark.parametrize("method", OURS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_logits_stay_near_those_of_the_rounded_weights(method, dtype):
    model = model_of()
    rounded = quantized(model, method)
    plain = with_rounded_weights(model, rounded)
    ids = torch.randint(0, 256, (3, 40))
    expected = plain(ids).logits.double()
    found = rounded.to(dtype)(ids).logits
    assert relative_error(found, expected) < 0.03


def test_what_is_replaced():
    model = model_of(tie_word_embeddings=False)
    names = quantize_model(model, "int4")
    kinds = {name: type(model.get_submodule(name)) for name in names}
    assert kinds.pop("model.embed_tokens") is Int8Embedding
    assert kinds.pop("lm_head") is Int8Linear
    assert len(kinds) == 7 * 2
    assert set(kinds.values()) == {Int4Linear}
    assert not any(isinstance(m, nn.Linear | nn.Embedding) for m in model.modules())
    assert not any(p.requires_grad for p in model.parameters())


def test_rows_that_are_not_whole_groups_take_smaller_ones_or_8_bits():
    model = model_of(intermediate_size=96, hidden_size=64)
    quantize_model(model, "int4", group_size=64)
    mlp = model.model.layers[0].mlp
    assert mlp.gate_proj.group_size == 64
    assert mlp.down_proj.group_size == 32  # 96 is no multiple of 64
    odd = model_of(intermediate_size=72)
    quantize_model(odd, "int4")
    assert isinstance(odd.model.layers[0].mlp.down_proj, Int8Linear)
    assert odd(torch.tensor([[1, 2, 3]])).logits.isfinite().all()


@pytest.mark.parametrize("model_type", ["qwen2", "llama"])
def test_biases_of_other_families_stay(model_type):
    model = model_of(model_type=model_type)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            parameter.normal_()
    rounded = quantized(model, "int8")
    plain = with_rounded_weights(model, rounded)
    ids = torch.randint(0, 256, (2, 30))
    assert (rounded(ids).logits - plain(ids).logits).abs().max() < 1e-4


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_compiled_single_token_equals_eager(dtype):
    modules = [Int8Linear.of(weight()), Int4Linear.of(weight(seed=1), group_size=32)]
    modules[1].pack()
    x = torch.randn(1, 1, 96, dtype=dtype)
    for module in modules:
        module.to(dtype)

    def both(x):
        return modules[0](x), modules[1](x)

    compiled = torch.compile(both, fullgraph=True, dynamic=False)(x)
    for found, expected in zip(compiled, both(x), strict=True):
        assert found.shape == expected.shape
        assert torch.allclose(found, expected, atol=1e-5, rtol=0.01)


def test_memory_is_counted():
    model = model_of(hidden_size=64, num_attention_heads=8, intermediate_size=128)
    plain = weight_bytes(model)
    assert plain == 4 * sum(p.numel() for p in model.parameters())
    sizes = {method: weight_bytes(quantized(model, method).bfloat16()) for method in OURS}
    embedding = model.config.vocab_size * (64 + 2)
    norms = 2 * sum(p.numel() for n, p in model.named_parameters() if "norm" in n)
    matrices = [m.weight for m in model.modules() if isinstance(m, nn.Linear)]
    assert sizes["int8"] == embedding + norms + sum(w.numel() + 2 * w.shape[0] for w in matrices)
    # 4 bits, and 16 + 16 for every 32 weights
    assert sizes["int4"] == embedding + norms + sum(w.numel() * 5 // 8 for w in matrices)
    assert bytes_read_per_token(model) == plain
    untied = model_of(tie_word_embeddings=False)
    embedding_bytes = 4 * untied.model.embed_tokens.weight.numel()
    assert bytes_read_per_token(untied) == weight_bytes(untied) - embedding_bytes


@pytest.fixture(scope="module")
def trained():
    """A model that has learnt something: half the bits of a random one, in a few seconds."""
    draw = random.Random(0)
    words = ["从前有座山", "山上有座庙", "庙里有个和尚", "在讲故事", "他说", "今天天气很好"]
    lines = ["，".join(draw.choices(words, k=6)) + "。" for _ in range(300)]
    tokenizer = byte_tokenizer()
    torch.manual_seed(0)
    config = ModelConfig(
        vocab_size=tokenizer.vocab_size, hidden_size=64, num_hidden_layers=2, head_dim=16,
        num_attention_heads=4, num_key_value_heads=2, intermediate_size=128,
        max_position_embeddings=128,
    )  # fmt: skip
    model = CausalLM(config)
    ids = torch.tensor([t for line in lines[:250] for t in tokenizer.encode(line)])
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    with torch.enable_grad():
        for _ in range(120):
            at = [draw.randrange(len(ids) - 97) for _ in range(8)]
            rows = torch.stack([ids[i : i + 97] for i in at])
            logits = model(rows[:, :-1]).logits
            loss = F.cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    documents = [Document(line, str(i), {}) for i, line in enumerate(lines[250:])]
    return model.eval(), tokenizer, documents


@pytest.mark.parametrize(("method", "limit"), [("int8", 0.005), ("int4", 0.04)])
def test_the_cost_in_bits_per_byte_of_a_trained_model(trained, method, limit):
    model, tokenizer, documents = trained
    plain = bits_per_byte(model, tokenizer, documents).value
    assert plain < 1.5  # it has learnt; a random one is at 8
    rounded = bits_per_byte(quantized(model, method), tokenizer, documents).value
    assert abs(rounded / plain - 1) < limit


def test_bitsandbytes_rounds_to_the_same_integers_and_products():
    bnb = pytest.importorskip("bitsandbytes")
    w, x = weight(), torch.randn(1, 12, 96)
    theirs, absmax, _ = bnb.functional.int8_vectorwise_quant(w.half())
    ours = Int8Linear.of(w)
    assert (ours.weight.int() - theirs.int()).abs().max() <= 1
    assert torch.allclose(ours.scale, absmax / 127, rtol=2**-8)
    model = model_of(hidden_size=64, intermediate_size=128, head_dim=16)
    with pytest.raises(ConfigError, match="multiples of 32 and 64"):
        quantized(model_of(), "bnb-nf4")
    for method, limit in (("bnb-int8", 0.03), ("bnb-nf4", 0.2)):
        rounded = quantized(model, method)
        layer = rounded.model.layers[0].mlp.up_proj
        assert type(layer).__module__.startswith("bitsandbytes")
        y = F.linear(x[..., :64], model.model.layers[0].mlp.up_proj.weight)
        assert relative_error(layer(x[..., :64]), y.double()) < limit
        assert weight_bytes(rounded) < 0.8 * weight_bytes(model)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"method": "int5"}, "Did you mean 'int"),
        ({"method": "int4", "group_size": 48}, "group_size = 48"),
    ],
)
def test_what_does_not_exist_is_refused(options, named):
    with pytest.raises(ConfigError, match=named):
        quantize_model(model_of(), **options)


def test_a_quantised_or_adapted_model_is_refused():
    model = model_of()
    quantize_model(model, METHODS[0])
    with pytest.raises(ConfigError, match="quantised already"):
        quantize_model(model, "int4")
    adapted = model_of()
    inject_lora(adapted, LoraConfig(rank=2))
    with pytest.raises(ConfigError, match="merge_lora"):
        quantize_model(adapted, "int8")
