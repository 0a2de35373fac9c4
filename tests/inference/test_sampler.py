"""Rows with parameters of their own, sampled in one pass, get what they get alone."""

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from minimind.inference.sampler import Sampler
from minimind.inference.sampling import SamplingParams

V = 120
OFF = SamplingParams(temperature=0, repetition_penalty=1)


def logits(rows, seed=0):
    return torch.randn(rows, V, generator=torch.Generator().manual_seed(seed)) * 3


@st.composite
def params(draw):
    ids = st.integers(0, V - 1)
    return SamplingParams(
        temperature=draw(st.sampled_from([0, 0.5, 1.0, 2.0])),
        top_k=draw(st.sampled_from([0, 1, 5, 500])),
        top_p=draw(st.sampled_from([0.3, 0.95, 1.0])),
        min_p=draw(st.sampled_from([0.0, 0.1])),
        repetition_penalty=draw(st.sampled_from([1.0, 1.3])),
        presence_penalty=draw(st.sampled_from([0.0, 1.5])),
        frequency_penalty=draw(st.sampled_from([0.0, -0.5, 1.0])),
        logit_bias=tuple(draw(st.lists(st.tuples(ids, st.floats(-100, 100)), max_size=3))),
        alternatives=draw(st.none() | st.integers(0, 20)),
        seed=draw(st.integers(0, 2**63 - 1)),
        stop_ids=tuple(draw(st.lists(ids, max_size=2))),
    )


@given(rows=st.lists(params(), min_size=1, max_size=5), data=st.data())
@settings(max_examples=60, deadline=None)
def test_a_row_gets_what_it_gets_alone_wherever_it_is_moved(rows, data):
    together = Sampler(rows=len(rows) + 1, vocab_size=V)
    alone = [Sampler(rows=1, vocab_size=V) for _ in rows]
    for number, row in enumerate(rows):
        prompt = [number, 5, 7, 7, 100]
        together.begin(number, row, prompt)
        alone[number].begin(0, row, prompt)
    order = list(range(len(rows)))
    for step in range(6):
        if len(rows) > 1:
            a, b = data.draw(st.tuples(*[st.integers(0, len(rows) - 1)] * 2))
            together.swap(a, b)
            order[a], order[b] = order[b], order[a]
        scores = logits(len(rows), seed=step % 2)  # the same rows come again: penalties matter
        chosen = together.choose(scores[order])
        for place, number in enumerate(order):
            single = alone[number].choose(scores[number : number + 1])
            assert chosen.ids[place] == single.ids[0]
            if rows[number].alternatives is None:
                assert chosen.logprobs[place] is single.logprobs[0] is None
            else:
                assert chosen.logprobs[place] == pytest.approx(single.logprobs[0], abs=1e-5)
            assert len(chosen.alternatives[place]) == (rows[number].alternatives or 0)


def test_penalties_count_the_answer_and_repetition_the_prompt_too():
    scores = torch.zeros(1, V)
    scores[0, 3], scores[0, 4], scores[0, 5] = 3.0, 2.9, 2.5
    for changes, expected in (
        ({}, [3, 3, 3]),
        ({"presence_penalty": 1.0}, [3, 4, 5]),
        ({"presence_penalty": 0.2}, [3, 4, 3]),
        ({"frequency_penalty": 0.2}, [3, 4, 3, 4, 3]),  # 3.0 2.9 2.8 2.7 2.6
        ({"repetition_penalty": 1.1}, [4, 3, 3]),  # 3 is in the prompt: 2.73, then 4: 2.64
        ({"repetition_penalty": 1.1, "stop_ids": (3,)}, [3]),
        ({"logit_bias": ((9, 50.0), (9, -48.0), (3, -1.0))}, [4, 4]),
        ({"logit_bias": ((9, 50.0), (9, -46.0))}, [9, 9]),
    ):
        sampler = Sampler(rows=1, vocab_size=V)
        sampler.begin(0, dataclasses.replace(OFF, **changes), [3])
        assert [sampler.choose(scores).ids[0] for _ in expected] == expected, changes


def test_a_row_forgets_what_the_requests_before_saw():
    scores = torch.zeros(2, V)
    scores[:, 3], scores[:, 4] = 3.0, 2.9
    sampler = Sampler(rows=2, vocab_size=V)
    penalised = dataclasses.replace(OFF, repetition_penalty=1.1)
    for prompt, row, expected in (([3], penalised, 4), ([3], OFF, 3), ([9], penalised, 3)):
        sampler.begin(0, row, prompt)
        sampler.begin(1, penalised, [9])  # the table is in use, whatever the first row wants
        assert sampler.choose(scores).ids[0] == expected


def test_log_probabilities_and_alternatives_are_raw_and_sorted():
    sampler = Sampler(rows=3, vocab_size=V)
    sampler.begin(0, dataclasses.replace(OFF, alternatives=3, logit_bias=((8, 100.0),)), [1])
    sampler.begin(1, dataclasses.replace(OFF, alternatives=0), [1])
    sampler.begin(2, OFF, [1])
    scores = logits(3)
    chosen = sampler.choose(scores)
    expected = scores.log_softmax(-1)
    assert chosen.ids == [8, int(scores[1].argmax()), int(scores[2].argmax())]
    assert chosen.logprobs[2] is None
    assert chosen.logprobs[:2] == pytest.approx(
        [float(expected[0, 8]), float(expected[1].max())], abs=1e-5
    )
    top = expected[0].topk(3)
    assert [token for token, _ in chosen.alternatives[0]] == top.indices.tolist()
    assert [p for _, p in chosen.alternatives[0]] == pytest.approx(top.values.tolist(), abs=1e-5)
    assert chosen.alternatives[1:] == [(), ()]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_row_that_is_not_numbers_shows_and_leaves_the_others_alone(temperature):
    sampler = Sampler(rows=3, vocab_size=V)
    params = SamplingParams(temperature=temperature, top_k=5, min_p=0.01, seed=1)
    for row in range(3):
        sampler.begin(row, params, [1])
    scores = logits(3)
    scores[1] = torch.nan
    chosen = sampler.choose(scores)
    assert chosen.finite == [True, False, True]
    alone = Sampler(rows=1, vocab_size=V)
    alone.begin(0, params, [1])
    assert alone.choose(scores[2:]).ids[0] == chosen.ids[2]
