"""The step of several rows that a GPU records, run as it is on a CPU, is the plain one."""

import gc
from dataclasses import replace
from typing import Any

import pytest
import torch
from model_doubles import random_ids, random_model

from doubles import tiny_config
from minimind.errors import ConfigError
from minimind.inference.decode import decode_one, new_cache, prefill
from minimind.inference.engine import Engine
from minimind.inference.sampling import SamplingParams
from minimind.model import KVCache
from minimind.model.graphs import GraphStep


@pytest.mark.parametrize("rows", [1, 3, 4])
def test_ragged_rows_get_the_logits_of_the_plain_step(rows: int) -> None:
    config = tiny_config(max_position_embeddings=200, num_attention_heads=4, num_key_value_heads=2)
    model = random_model(config).eval()
    prompts = [random_ids(config, 1, 3 + 29 * row)[0].tolist() for row in range(rows)]
    following = random_ids(config, 70, rows)
    step = model.compiled_step = GraphStep(model)
    fast = new_cache(model, batch_size=6, max_length=200)
    model.compiled_step = None
    plain = KVCache(config, batch_size=6, max_length=200)
    for cache in (fast, plain):
        prefill(model, cache.view(1, rows), prompts)
        prefill(model, cache.view(5, 1), [[7, 8, 9]])
    for ids_B in following:
        expected_BV = decode_one(model, plain.view(1, rows), ids_B)
        logits_BV = step(fast.view(1, rows), ids_B)
        torch.testing.assert_close(logits_BV, expected_BV, rtol=0, atol=1e-5)
    assert fast.lengths.tolist() == plain.lengths.tolist()
    # Rows that filled the number up changed nothing that is ever read.
    for ours, theirs in zip(fast.buffers()[0], plain.buffers()[0], strict=True):
        torch.testing.assert_close(ours[:, :, :200], theirs, rtol=0, atol=1e-5)


def test_answers_are_those_of_the_plain_engine() -> None:
    model = random_model(tiny_config()).eval()
    params = SamplingParams(temperature=0, repetition_penalty=1.0, max_new_tokens=12)
    prompts = random_ids(model.config, 5, 6).tolist()
    expected = Engine(model).generate(prompts, params)
    model.compiled_step = step = GraphStep(model)
    assert Engine(model).generate(prompts, params) == expected
    gc.collect()
    assert not step._recordings  # they go with the cache whose memory they know
    assert list(Engine(model).stream(prompts[0], params)) == expected[0]


def test_models_that_it_cannot_serve_take_the_plain_step() -> None:
    model = random_model(tiny_config(sliding_window=7)).eval()
    params = SamplingParams(temperature=0, repetition_penalty=1.0, max_new_tokens=12)
    prompts = random_ids(model.config, 2, 6).tolist()
    expected = Engine(model).generate(prompts, params)
    model.compiled_step = step = GraphStep(model)
    assert Engine(model).generate(prompts, params) == expected
    assert not step._recordings


def test_a_full_cache_is_an_error() -> None:
    model = random_model(tiny_config()).eval()
    step = GraphStep(model)
    cache = KVCache(model.config, batch_size=1, max_length=65)
    prefill(model, cache, [[5] * 65])
    with pytest.raises(ConfigError, match="max_length = 65"):
        step(cache, torch.tensor([9]))


def test_a_recording_is_used_again_until_rows_are_selected() -> None:
    model = random_model(tiny_config()).eval()
    step = GraphStep(model)
    cache = KVCache(model.config, batch_size=3, max_length=65)
    prefill(model, cache, [[5, 6], [7], [8, 9, 10]])
    ids_B = torch.tensor([4, 5, 6])
    step(cache, ids_B)
    step(cache, ids_B)
    (first,) = step._recordings[cache].values()
    part = cache.view(1, 2).select([1, 0])
    expected = KVCache(model.config, batch_size=2, max_length=65)
    prefill(model, expected, [[8, 9, 10, 6, 6], [7, 5, 5]])
    torch.testing.assert_close(
        step(part, ids_B[:2]), decode_one(model, expected, ids_B[:2]), rtol=0, atol=1e-5
    )
    cache.select([2, 1, 0])
    step(cache, ids_B)
    (second,) = step._recordings[cache].values()
    assert second is not first


def test_an_engine_records_once_for_answers_of_one_size() -> None:
    model = random_model(tiny_config()).eval()
    params = SamplingParams(temperature=0, repetition_penalty=1.0, max_new_tokens=12)
    first, second = (random_ids(model.config, 4, 6, seed=seed).tolist() for seed in (1, 2))
    expected = [Engine(model).generate(prompts, params) for prompts in (first, second)]
    model.compiled_step = step = GraphStep(model)
    engine = Engine(model)
    assert engine.generate(first, params) == expected[0]
    (recordings,) = step._recordings.values()
    made = dict(recordings)
    assert engine.generate(second, params) == expected[1]
    assert recordings == made
    engine.generate(first[:2], params)  # another size: other rows
    assert list(step._recordings.values()) != [recordings]


@pytest.mark.slow
def test_a_compiled_step_of_several_rows_gives_the_same_logits() -> None:
    config = tiny_config(max_position_embeddings=200, num_attention_heads=4, num_key_value_heads=2)
    model = random_model(config).eval()
    for rows in (4, 1):
        caches = [KVCache(config, batch_size=rows, max_length=193) for _ in range(2)]
        plain, fused = GraphStep(model), GraphStep(model, fuse=True)
        for cache in caches:
            prefill(model, cache, random_ids(config, rows, 50).tolist())
        for ids_B in random_ids(config, 80, rows):  # across two steps of the length
            expected_BV = plain(caches[0], ids_B)
            torch.testing.assert_close(fused(caches[1], ids_B), expected_BV, rtol=0, atol=1e-4)


def test_memory_is_shared_with_recordings_that_are_still_there_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # torch refuses to record into the memory of graphs that are all gone.
    model = random_model(tiny_config()).eval()
    step = GraphStep(model)
    pools: list[object] = []
    record = step._record

    def recorded(*args: Any) -> Any:
        pool = step._shared_pool() or object()
        pools.append(pool)
        return replace(record(*args), pool=pool)

    monkeypatch.setattr(step, "_record", recorded)
    ids_B = torch.tensor([4, 5])
    for _ in range(2):
        cache = KVCache(model.config, batch_size=2, max_length=129)
        step(cache, ids_B)
        step(cache.view(0, 1), ids_B[:1])
        del cache
        gc.collect()
        assert step._shared_pool() is None
    first, second, third, fourth = pools
    assert first is second
    assert third is fourth
    assert third is not first
