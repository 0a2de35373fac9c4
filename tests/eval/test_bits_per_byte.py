import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from doubles import byte_tokenizer, tiny_config
from minimind.data.batch import IGNORE
from minimind.data.document import Document
from minimind.errors import DataError
from minimind.eval.bits_per_byte import bits_per_byte, windows
from minimind.model import CausalLM

TEXTS = ["天地玄黄，宇宙洪荒。", "a" * 30, "日月盈昃，辰宿列张。寒来暑往。", "秋收冬藏" * 12]


def documents(texts=TEXTS):
    return [Document(t, str(i), {"source": "ab"[i % 2]}) for i, t in enumerate(texts)]


@pytest.fixture(scope="module")
def tokenizer():
    return byte_tokenizer()


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    model = CausalLM(tiny_config(max_position_embeddings=256))
    with torch.no_grad():
        model.model.embed_tokens.weight.mul_(20)  # far from uniform, so that mistakes show
    return model


def by_hand(model, tokenizer, text):
    """Log-probabilities from full logits, one document at a time."""
    ids = [tokenizer.endoftext_id, *tokenizer.encode(text), tokenizer.endoftext_id]
    logits_TV = model(torch.tensor([ids[:-1]])).logits[0].float()
    return -F.cross_entropy(logits_TV, torch.tensor(ids[1:]), reduction="none")


def test_equals_log_probabilities_summed_by_hand(model, tokenizer):
    with torch.no_grad():
        nats = [by_hand(model, tokenizer, text) for text in TEXTS]
    size = sum(len(text.encode()) for text in TEXTS)
    measure = bits_per_byte(model, tokenizer, documents(), batch_tokens=300)
    expected = -sum(float(n.double().sum()) for n in nats) / math.log(2) / size
    assert measure.value == pytest.approx(expected, rel=1e-5)
    ends = -sum(float(n[-1]) for n in nats) / math.log(2)
    assert measure.details["end_bits"] == pytest.approx(ends, rel=1e-4)
    assert measure.details["bytes"] == size
    assert measure.details["tokens"] == size + len(TEXTS)  # bare bytes, and an end each
    assert measure.n == len(TEXTS)
    assert measure.low <= measure.value <= measure.high


def test_groups_add_up_to_the_whole(model, tokenizer):
    measure = bits_per_byte(model, tokenizer, documents())
    sizes = {"a": 0, "b": 0}
    for document in documents():
        sizes[document.meta["source"]] += len(document.text.encode())
    total = sum(group.value * sizes[name] for name, group in measure.groups.items())
    assert total == pytest.approx(measure.value * sum(sizes.values()))


def test_untrained_model_is_near_uniform(tokenizer):
    torch.manual_seed(0)
    model = CausalLM(tiny_config(max_position_embeddings=256))
    measure = bits_per_byte(model, tokenizer, documents())
    uniform = math.log2(model.config.vocab_size) / measure.details["bytes_per_token"]
    assert measure.value == pytest.approx(uniform, rel=0.03)


def test_oracle_needs_almost_no_bits(tokenizer):
    """A model whose logits say the same byte for ever pays for the end alone."""
    model = CausalLM(tiny_config(max_position_embeddings=256))
    token = tokenizer.encode("a")[0]
    with torch.no_grad():
        for weight in model.parameters():
            weight.zero_()
        model.model.norm.weight.fill_(1.0)
        model.model.embed_tokens.weight[:, 0] = 1.0  # every hidden state is the same ...
        model.model.embed_tokens.weight[token, 0] = 10.0  # ... and its logit is the largest
    measure = bits_per_byte(model, tokenizer, documents(["a" * 200]))
    without_end = measure.details["bits"] - measure.details["end_bits"]
    assert without_end / 200 < 0.01  # the first token costs the 1 bit of its mixture
    assert measure.details["end_bits"] > 20


@given(
    length=st.integers(0, 60), context=st.integers(1, 24), share=st.floats(0.05, 1.0)
)  # fmt: skip
@settings(max_examples=200, deadline=None)
def test_windows_score_every_token_once_and_see_enough(length, context, share):
    stride = max(1, int(context * share))
    ids = list(range(1, length + 1))
    rows, owners = windows([ids], endoftext=0, context=context, stride=stride)
    scored = [label for _, labels in rows for label in labels if label != IGNORE]
    assert scored == [*ids, 0]
    assert set(owners) == {0}
    for number, (inputs, labels) in enumerate(rows):
        assert len(inputs) == len(labels) <= context
        first = next(i for i, label in enumerate(labels) if label != IGNORE)
        assert number == 0 or first >= context - stride


def test_strided_windows_are_no_worse_than_disjoint_ones_on_average(model, tokenizer):
    long = documents(["".join(TEXTS) * 6])
    for stride in (32, 64):
        measure = bits_per_byte(model, tokenizer, long, context=64, stride=stride)
        assert measure.details["tokens"] == len(long[0].text.encode()) + 1


def test_bf16_is_close_to_fp32(model, tokenizer):
    exact = bits_per_byte(model, tokenizer, documents())
    rough = bits_per_byte(model, tokenizer, documents(), precision="bf16")
    assert rough.value == pytest.approx(exact.value, rel=0.02)


def test_the_model_is_left_as_it_was(model, tokenizer):
    model.train()
    bits_per_byte(model, tokenizer, documents())
    assert model.training
    model.eval()
    bits_per_byte(model, tokenizer, documents())
    assert not model.training


def test_half_a_surrogate_pair_is_counted_as_its_replacement(model, tokenizer):
    measure = bits_per_byte(model, tokenizer, documents(["好\ud800"]))
    assert measure.details["bytes"] == 6


def test_no_text_is_an_error_that_says_what_to_do(model, tokenizer):
    with pytest.raises(DataError, match="validation_share"):
        bits_per_byte(model, tokenizer, documents([""]))
