"""Quantised directories behind the server answer as the quantised model does."""

import pytest
from serve_doubles import COUNTED, running

from minimind import checkpoint
from minimind.inference import generate
from minimind.inference.sampling import SamplingParams
from minimind.model.quantize import quantize_model


@pytest.mark.parametrize("method", ["int8", "int4"])
def test_a_quantised_directory_is_served(checkpoint_dir, tmp_path, method):
    model, tokenizer = checkpoint.load(checkpoint_dir)
    quantize_model(model, method)
    directory = checkpoint.save(tmp_path / method, model=model, tokenizer=tokenizer)
    messages = [{"role": "user", "content": "数到十"}]
    greedy = SamplingParams(temperature=0, repetition_penalty=1.0, max_new_tokens=64)
    expected = generate(checkpoint.load(directory)[0], tokenizer, messages, params=greedy)
    with running(directory, slots=2, queue=4) as server:
        answer = server.client().chat.completions.create(
            model="mini", messages=messages, temperature=0, max_tokens=64
        )
    assert answer.choices[0].message.content == expected
    if method == "int8":  # 4 bits may forget what a model of this size knows by heart
        assert expected == COUNTED
