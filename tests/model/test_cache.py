"""Reading in pieces through the cache gives what reading at once gives."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from model_doubles import random_ids, random_model

from doubles import tiny_config
from minimind.errors import ConfigError
from minimind.model import CausalLM, KVCache

MODELS: dict[str, CausalLM] = {
    "full": random_model(tiny_config()),
    "sliding": random_model(tiny_config(sliding_window=6)),
    "mixed": random_model(
        tiny_config(
            sliding_window=5,
            num_hidden_layers=3,
            layer_types=("sliding_attention", "full_attention", "sliding_attention"),
        )
    ),
}
T = 40


@given(data=st.data())
@settings(max_examples=60, deadline=None)
@torch.no_grad()
def test_any_split_gives_the_same_logits(data: st.DataObject) -> None:
    model = MODELS[data.draw(st.sampled_from(sorted(MODELS)))]
    chunk = data.draw(st.integers(1, T))
    cuts = sorted(data.draw(st.sets(st.integers(1, T - 1))))
    ids = random_ids(model.config, 2, T)
    cache = KVCache(model.config, batch_size=2, max_length=T, chunk=chunk)
    pieces = [model(part, cache=cache).logits for part in ids.tensor_split(cuts, dim=1)]
    torch.testing.assert_close(torch.cat(pieces, 1), model(ids).logits, rtol=0, atol=1e-4)
    assert cache.lengths.tolist() == [T, T]


@given(data=st.data())
@settings(max_examples=60, deadline=None)
@torch.no_grad()
def test_ragged_rows_equal_rows_alone(data: st.DataObject) -> None:
    """Right-padded prompts of any lengths, then tokens one by one: each row as if it were alone."""
    model = MODELS[data.draw(st.sampled_from(sorted(MODELS)))]
    chunk = data.draw(st.integers(1, 30))
    counts = data.draw(st.lists(st.integers(1, 25), min_size=1, max_size=4))
    rows, longest, new = len(counts), max(counts), 6
    ids = random_ids(model.config, rows, longest + new)
    cache = KVCache(model.config, batch_size=rows, max_length=longest + new, chunk=chunk)
    prompts = torch.full((rows, longest), 7)
    for row, count in enumerate(counts):
        prompts[row, :count] = ids[row, :count]
    token_counts = torch.tensor(counts)
    out = [model(prompts, cache=cache, token_counts=token_counts, logits="last").logits]
    for step in range(new):
        nexts = torch.stack([ids[row, count + step] for row, count in enumerate(counts)])
        out.append(model(nexts[:, None], cache=cache).logits)
    for row, count in enumerate(counts):
        alone = model(ids[row : row + 1, : count + new]).logits[0, count - 1 :]
        torch.testing.assert_close(torch.cat(out, 1)[row], alone, rtol=0, atol=1e-4)


@pytest.mark.parametrize("kind", MODELS)
@torch.no_grad()
def test_lengths_may_be_set_after_a_padded_prompt(kind: str) -> None:
    model = MODELS[kind]
    ids = random_ids(model.config, 2, 20)
    cache = KVCache(model.config, batch_size=2, max_length=30)
    model(ids, cache=cache)
    cache.lengths = torch.tensor([20, 3])
    nexts = random_ids(model.config, 2, 1, seed=9)
    out = model(nexts, cache=cache).logits
    for row, count in enumerate((20, 3)):
        whole = torch.cat((ids[row : row + 1, :count], nexts[row : row + 1]), 1)
        torch.testing.assert_close(out[row, -1], model(whole).logits[0, -1], rtol=0, atol=1e-4)


@torch.no_grad()
def test_tokens_can_be_taken_back() -> None:
    model = MODELS["mixed"]
    ids, other = random_ids(model.config, 2, 30), random_ids(model.config, 2, 4, seed=5)
    cache = KVCache(model.config, batch_size=2, max_length=64, chunk=8)
    model(ids, cache=cache)
    cache.truncate([26, 23])
    out = model(other, cache=cache).logits
    for row, kept in enumerate((26, 23)):
        whole = torch.cat((ids[row : row + 1, :kept], other[row : row + 1]), 1)
        torch.testing.assert_close(out[row], model(whole).logits[0, kept:], rtol=0, atol=1e-4)
    cache.reset()
    torch.testing.assert_close(model(ids, cache=cache).logits, model(ids).logits, rtol=0, atol=1e-4)


@torch.no_grad()
def test_rows_can_be_selected_and_repeated() -> None:
    model = MODELS["mixed"]
    ids = random_ids(model.config, 3, 12)
    cache = KVCache(model.config, batch_size=3, max_length=20)
    model(ids, cache=cache)
    assert cache.select([2, 0, 2]) is cache
    nexts = random_ids(model.config, 3, 1, seed=3)
    out = model(nexts, cache=cache).logits
    whole = torch.cat((ids[[2, 0, 2]], nexts), 1)
    torch.testing.assert_close(out[:, -1], model(whole).logits[:, -1], rtol=0, atol=1e-4)
    assert cache.batch_size == 3


def test_a_sliding_cache_does_not_grow_with_the_length() -> None:
    config = tiny_config(sliding_window=6)
    short = KVCache(config, batch_size=1, max_length=100, chunk=10)
    long = KVCache(config, batch_size=1, max_length=100_000, chunk=10)
    assert short.nbytes == long.nbytes == 2 * 2 * 2 * (6 + 10) * 8 * 4  # K and V, layers, heads
    full = KVCache(tiny_config(), batch_size=1, max_length=100)
    assert full.nbytes == 2 * 2 * 2 * 100 * 8 * 4


@torch.no_grad()
def test_too_many_tokens_are_refused_and_nothing_is_lost() -> None:
    model = MODELS["full"]
    ids = random_ids(model.config, 1, 10)
    cache = KVCache(model.config, batch_size=1, max_length=8)
    model(ids[:, :6], cache=cache)
    with pytest.raises(ConfigError, match=r"max_length = 8.*has 6.*3 more"):
        model(ids[:, 6:9], cache=cache)
    out = model(ids[:, 6:8], cache=cache).logits
    torch.testing.assert_close(out, model(ids[:, :8]).logits[:, 6:], rtol=0, atol=1e-4)


@torch.no_grad()
def test_taking_back_more_than_the_ring_holds_is_refused() -> None:
    model = MODELS["sliding"]
    cache = KVCache(model.config, batch_size=2, max_length=64, chunk=4)
    model(random_ids(model.config, 2, 30), cache=cache)
    cache.truncate([30, 20])
    with pytest.raises(ConfigError, match=r"row 1 was cut back from 30 to 20.*token_counts"):
        model(random_ids(model.config, 2, 1), cache=cache)
    cache.truncate(0)
    model(random_ids(model.config, 2, 1), cache=cache)


def test_what_cannot_be_combined_says_so() -> None:
    model = MODELS["full"]
    ids = random_ids(model.config, 1, 4)
    cache = KVCache(model.config, batch_size=1, max_length=8)
    with pytest.raises(ConfigError, match="document_ids"):
        model(ids, document_ids=torch.zeros_like(ids), cache=cache)
    with pytest.raises(ConfigError, match="token_counts"):
        model(ids, token_counts=torch.tensor([4]))
    with pytest.raises(ConfigError, match="max_length = 0"):
        KVCache(model.config, batch_size=1, max_length=0)
