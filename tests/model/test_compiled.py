"""The compiled single-token step is the plain one, for every kind of cache and attention."""

import pytest
import torch
from model_doubles import random_ids, random_model

from doubles import tiny_config
from minimind.config import MoEConfig
from minimind.errors import ConfigError
from minimind.inference.decode import decode_one, new_cache, prefill
from minimind.inference.engine import Engine
from minimind.inference.sampling import SamplingParams
from minimind.model import KVCache

SHAPES = {
    "full": tiny_config(),
    "window": tiny_config(
        sliding_window=7, layer_types=("sliding_attention", "full_attention"), head_dim=16
    ),
    "experts": tiny_config(moe=MoEConfig(num_experts=4, moe_intermediate_size=16)),
    "qwen2": tiny_config(model_type="qwen2", tie_word_embeddings=False),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_every_token_gets_the_logits_of_the_plain_step(shape: str) -> None:
    config = SHAPES[shape]
    model = random_model(config).eval()
    ids = random_ids(config, 1, 40)
    plain = KVCache(config, batch_size=2, max_length=48, chunk=8)
    compiled = KVCache(config, batch_size=2, max_length=48, chunk=8)
    for cache in (plain, compiled):
        prefill(model, cache.view(1, 1), [ids[0, :5].tolist()])
    expected = [decode_one(model, plain.view(1, 1), ids[:, t]) for t in range(5, 40)]
    model.set_compiled_decoding()
    made = [decode_one(model, compiled.view(1, 1), ids[:, t]) for t in range(5, 40)]
    torch.testing.assert_close(torch.cat(made), torch.cat(expected), rtol=0, atol=1e-5)
    assert compiled.lengths.tolist() == [0, 40]
    # What it wrote serves the plain step, and the row beside it was not touched.
    model.set_compiled_decoding(on=False)
    for cache in (plain, compiled):
        cache.lengths[1] = 38
    last = [decode_one(model, cache.view(1, 1), ids[:, 0]) for cache in (plain, compiled)]
    torch.testing.assert_close(*last, rtol=0, atol=1e-5)
    assert all(not buffer[0].any() for buffer in compiled.buffers()[0])


def test_a_stream_is_the_same_and_more_rows_take_the_plain_step() -> None:
    model = random_model(tiny_config()).eval()
    params = SamplingParams(temperature=0, repetition_penalty=1.0, max_new_tokens=12)
    prompts = random_ids(model.config, 3, 6).tolist()
    streamed = [list(Engine(model).stream(prompt, params)) for prompt in prompts]
    model.set_compiled_decoding()
    assert list(Engine(model).stream(prompts[0], params)) == streamed[0]
    assert Engine(model).generate(prompts, params) == streamed


def test_a_full_cache_is_an_error_and_caches_that_are_compiled_for_are_alike() -> None:
    model = random_model(tiny_config()).eval()
    model.set_compiled_decoding()
    context = model.config.max_position_embeddings
    for rows, length in ((1, 3), (1, context), (4, context)):
        assert new_cache(model, batch_size=rows, max_length=length).max_length > context
    assert new_cache(model, batch_size=4, max_length=3).max_length == 3
    cache = KVCache(model.config, batch_size=1, max_length=4)
    prefill(model, cache, [[5, 6, 7, 8]])
    with pytest.raises(ConfigError, match="max_length = 4"):
        decode_one(model, cache, torch.tensor([9]))
