"""What the inspector says, against transformers' own attention, hidden states and logits."""

import math
import sys
from pathlib import Path

import pytest
import torch

sys.path.append(str(Path(__file__).parents[1] / "importing"))  # importing_doubles

from importing_doubles import write_foreign
from transformers import AutoModelForCausalLM

from doubles import byte_tokenizer, tiny_config
from minimind import checkpoint
from minimind.config import LoraConfig
from minimind.errors import ConfigError, DataError
from minimind.importing import import_model
from minimind.inspect import (
    compare,
    logit_lens,
    read,
    read_beside,
    read_ids,
    repetition,
    token_odds,
)
from minimind.inspect.panels import LEVELS, MOST_CELLS, pack
from minimind.inspect.prompts import encode
from minimind.inspect.repetition import followers
from minimind.model import CausalLM, inject_lora
from minimind.tokenizer import train_tokenizer

TEXT = "春眠不觉晓，处处闻啼鸟。"
FOREIGN = {
    "qwen2-window": ("qwen2", {"use_sliding_window": True, "sliding_window": 6,
                               "max_window_layers": 1}),
    "llama-biases": ("llama", {"attention_bias": True}),
}  # fmt: skip


def lively(config, *, seed=0):
    """Random weights large enough that attention is far from even."""
    torch.manual_seed(seed)
    model = CausalLM(config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.uniform_(0.5, 1.5) if name.endswith("norm.weight") else weight.normal_(std=0.2)
    return model.eval()


def reading_of(model, tokenizer, text=TEXT, **options):
    return read(model, tokenizer, text, **options)


@pytest.fixture
def tiny():
    return lively(tiny_config()), byte_tokenizer()


def same_as_transformers(directory):
    model, tokenizer = checkpoint.load(directory)
    theirs = AutoModelForCausalLM.from_pretrained(directory, attn_implementation="eager").eval()
    reading = reading_of(model, tokenizer)
    with torch.no_grad():
        ids = torch.tensor([reading.ids])
        told = theirs(ids, output_attentions=True, output_hidden_states=True)
    wanted = torch.cat(told.attentions)
    assert reading.attention_LHTS.shape == wanted.shape
    assert (reading.attention_LHTS - wanted).abs().max() < 1e-5
    inner = torch.cat(told.hidden_states)[:-1]  # their last one has the final norm behind it
    assert (reading.hidden_LTD[:-1] - inner).abs().max() < 1e-4
    own = told.logits[0].softmax(-1)[:-1].gather(1, ids[0, 1:, None])[:, 0]
    odds = token_odds(reading)
    assert [one.probability for one in odds[1:]] == pytest.approx(own.tolist(), abs=1e-5)
    return reading


@pytest.mark.parametrize(
    "changes",
    [{}, {"num_key_value_heads": 4}, {"sliding_window": 8},
     {"sliding_window": 8, "layer_types": ("sliding_attention", "full_attention")}],
)  # fmt: skip
def test_attention_and_hidden_states_are_transformers(changes, tmp_path):
    model = lively(tiny_config(**changes))
    checkpoint.save(tmp_path / "ours", model=model, tokenizer=byte_tokenizer())
    reading = same_as_transformers(tmp_path / "ours")
    if "sliding_window" in changes:
        assert reading.attention_LHTS[0].tril(-8).abs().max() == 0


@pytest.mark.parametrize("name", FOREIGN)
def test_imported_models_too(name, tmp_path):
    kind, changes = FOREIGN[name]
    write_foreign(tmp_path / "foreign", kind, **changes)
    import_model(tmp_path / "foreign", tmp_path / "ours")
    same_as_transformers(tmp_path / "ours")


def test_the_model_is_left_as_it_was(tiny):
    model, tokenizer = tiny
    ids = torch.tensor([[0, *tokenizer.encode(TEXT)]])
    before = model(ids).logits
    modules = [type(module) for module in model.modules()]
    model.train()
    reading_of(model, tokenizer)
    assert model.training
    assert [type(module) for module in model.modules()] == modules
    assert not any(module._forward_hooks for module in model.modules())
    assert torch.equal(model.eval()(ids).logits, before)


def test_adapters_are_seen(tiny):
    model, tokenizer = tiny
    plain = reading_of(model, tokenizer)
    inject_lora(model, LoraConfig(rank=2, alpha=8.0, target_modules=("q_proj",)))
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight)
    adapted = reading_of(model.eval(), tokenizer)
    assert (adapted.attention_LHTS - plain.attention_LHTS).abs().max() > 0.01


def test_the_lens_ends_at_the_output(tiny):
    model, tokenizer = tiny
    reading = reading_of(model, tokenizer)
    logits_TV = model(torch.tensor([reading.ids])).logits[0].detach()
    lens = logit_lens(reading)
    odds = token_odds(reading, top=3)
    best = logits_TV.softmax(-1).max(-1)
    assert torch.equal(lens.top_LT[-1], best.indices)
    assert torch.allclose(lens.top_probability_LT[-1], best.values, atol=1e-6)
    assert lens.next_probability_LT[-1].tolist() == pytest.approx(
        [one.probability for one in odds[1:]], abs=1e-6
    )
    assert lens.next_rank_LT[-1].tolist() == [one.rank for one in odds[1:]]
    assert lens.bits()[-1] == pytest.approx(sum(o.bits for o in odds[1:]) / len(odds[1:]), abs=1e-4)
    # Without its last layer a model is what the lens shows before that layer.
    shorter = CausalLM(tiny_config(num_hidden_layers=1))
    kept = {k: v for k, v in model.state_dict().items() if ".layers.1." not in k}
    shorter.load_state_dict(kept)
    wanted = shorter.eval()(torch.tensor([reading.ids])).logits[0].argmax(-1)
    assert torch.equal(lens.top_LT[1], wanted)


def test_odds_are_those_of_the_distribution(tiny):
    reading = reading_of(*tiny)
    distribution = torch.distributions.Categorical(
        logits=tiny[0](torch.tensor([reading.ids])).logits[0].detach()
    )
    odds = token_odds(reading, top=4)
    assert odds[0].probability is odds[0].bits is odds[0].rank is None
    assert odds[0].alternatives == ()
    for at in range(1, len(odds)):
        one, probs = odds[at], distribution.probs[at - 1]
        assert one.entropy == pytest.approx(float(distribution.entropy()[at - 1]) / math.log(2))
        order = probs.argsort(descending=True).tolist()
        assert one.rank == order.index(one.id) + 1
        assert [a.id for a in one.alternatives] == order[:4]
        assert one.bits == pytest.approx(-math.log2(one.probability))


def test_followers_stand_behind_earlier_occurrences():
    ids = [5, 7, 5, 5, 9, 7]
    wanted = {(2, 1), (3, 1), (5, 2)}  # (3, 3) would be the query itself
    assert {tuple(place) for place in followers(ids).nonzero().tolist()} == wanted


def test_a_perfect_copier_scores_one_and_chance_is_even_attention(tiny):
    model, tokenizer = tiny
    ids = [0, *tokenizer.encode("abcdefgh") * 4]
    reading = read_ids(model, tokenizer, ids=ids, pieces=["abcdefgh" * 4])
    T = len(ids)
    weights = reading.attention_LHTS
    weights[0, 0] = torch.ones(T, T).tril() / torch.arange(1, T + 1)[:, None]  # even
    weights[0, 1] = torch.eye(T)
    weights[0, 1, 9:] = torch.eye(T)[torch.arange(9, T) - 7]  # what followed a period ago
    weights[1, 0] = torch.eye(T)[(torch.arange(T) - 1).clamp(min=0)]
    weights[1, 1] = torch.eye(T)[torch.zeros(T, dtype=torch.int64)]
    found = repetition(reading)
    heads = {(head.layer, head.head): head for head in found.heads}
    assert heads[0, 0].copying == pytest.approx(heads[0, 0].chance)
    assert heads[0, 1].copying == heads[0, 1].copying_in_loop == 1
    assert (heads[1, 0].previous, heads[1, 1].first) == (1, 1)
    assert (found.loop.start, found.loop.period, found.loop.end) == (9, 8, 33)
    assert (found.copiers()[0].layer, found.copiers()[0].head) == (0, 1)


def test_two_tokenizers_are_laid_side_by_side(tiny):
    model, tokenizer = tiny
    other = train_tokenizer([TEXT] * 3, vocab_size=300)
    second = lively(tiny_config(vocab_size=300), seed=1)
    first = reading_of(model, tokenizer, name="bytes")
    beside = read_beside(first, second, other, prompt=TEXT, name="merges")
    told = compare(first, beside)
    assert len(first.ids) != len(beside.ids)
    assert "".join(segment.text for segment in told.segments) == TEXT
    for side, reading in enumerate((first, beside)):
        bits = sum(one.bits for one in token_odds(reading)[1:])
        assert told.bits[side] == pytest.approx(bits)
        assert told.bits_per_character[side] == pytest.approx(bits / len(TEXT))
        spans = [segment.tokens[side] for segment in told.segments]
        assert [begin for begin, _ in spans[1:]] == [end for _, end in spans[:-1]]
        assert (spans[0][0], spans[-1][1]) == (1, len(reading.ids))


def test_side_by_side_leaves_markup_out(tiny):
    model, tokenizer = tiny
    chat = [{"role": "user", "content": "你好"}, {"role": "assistant", "content": "好。"}]
    other = train_tokenizer(["你好"] * 3, vocab_size=290)
    first = read(model, tokenizer, chat, name="one")
    second = read(lively(tiny_config(vocab_size=290)), other, chat, name="two")
    told = compare(first, second)
    assert "".join(segment.text for segment in told.segments) == "你好好。"
    for side, reading in enumerate((first, second)):
        begin = told.segments[0].tokens[side][0]
        assert reading.raw[begin].startswith("你".encode()[:1])
    assert told.characters == 4


def test_the_same_tokenizer_reads_the_same_ids_what_was_generated_included(tiny):
    model, tokenizer = tiny
    first = read(model, tokenizer, "ab", generate=12)
    second = read_beside(first, lively(tiny_config(), seed=2), tokenizer, prompt="ab", name="two")
    assert second.ids == first.ids
    assert (first.generated, second.generated) == (3, 3)
    greedy = model(torch.tensor([first.ids])).logits[0].argmax(-1)[2:-1]
    assert greedy.tolist() == list(first.ids[3:])


def test_a_conversation_without_an_answer_ends_in_the_prompt_for_one(tiny):
    tokenizer = tiny[1]
    question = [{"role": "user", "content": " 你好 "}]
    ids, pieces = encode(tokenizer, question)
    assert ids == tokenizer.render(question, add_generation_prompt=True).ids
    assert pieces == ["你好"]
    answered = [*question, {"role": "assistant", "content": "好"}]
    assert encode(tokenizer, answered)[0] == tokenizer.render(answered).ids


def test_maps_are_packed_within_what_is_promised():
    import base64
    import zlib

    torch.manual_seed(0)
    weights = (torch.randn(2, 3, 40, 40) * 4).masked_fill(
        ~torch.ones(40, 40, dtype=torch.bool).tril(), -torch.inf).softmax(-1)  # fmt: skip
    raw = zlib.decompress(base64.b64decode(pack(weights)), -15)
    rows, columns = torch.tril_indices(40, 40)
    back = (torch.tensor(list(raw)).view(6, -1) / LEVELS) ** 2
    wrong = (back - weights.flatten(0, 1)[:, rows, columns]).abs()
    assert wrong.max() < 0.016
    assert wrong[back < 0.1].max() < 0.0055
    with pytest.raises(DataError, match=f"at most {MOST_CELLS:,} fit: choose"):
        pack(torch.zeros(1).expand(4, 64, 2048, 2048))


def test_bad_input(tiny):
    model, tokenizer = tiny
    with pytest.raises(DataError, match="--text is empty"):
        read(model, tokenizer, "")
    with pytest.raises(DataError, match=r"has 81 tokens, 17 more .* \(64\): take about 17 of its"):
        read(model, tokenizer, "a" * 80)
    with pytest.raises(DataError, match=r"--generate 60 makes 7 more .* use --generate 53"):
        read(model, tokenizer, "a" * 10, generate=60)
    with pytest.raises(ConfigError, match="--layers 2: the model has 2 layers, numbered 0 to 1"):
        read(model, tokenizer, TEXT[:4], layers=[0, 2])
    with pytest.raises(ConfigError, match="--heads -1: the model has 4 heads, numbered 0 to 3"):
        read(model, tokenizer, TEXT[:4], heads=[-1])
    chat = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    with pytest.raises(DataError, match="the last message is an answer already"):
        read(model, tokenizer, chat, generate=4)
