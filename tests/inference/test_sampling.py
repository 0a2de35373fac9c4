"""Filters against transformers' own, and the distribution that is drawn from."""

from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.generation import logits_process as hf

from minimind.errors import ConfigError
from minimind.inference import sampling
from minimind.inference.sampling import RowParams, SamplingParams


def logits(rows=5, vocabulary=700, scale=4.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, vocabulary, generator=generator) * scale


def kept(logits_BV):
    return torch.isfinite(logits_BV)


@pytest.mark.parametrize("penalty", [0.8, 1.0, 1.1, 2.0])
def test_repetition_penalty_is_that_of_transformers(penalty):
    scores_BV, ids_BT = logits(), torch.randint(0, 700, (5, 30))
    seen_BV = torch.zeros_like(scores_BV, dtype=torch.bool).scatter_(1, ids_BT, value=True)
    expected = hf.RepetitionPenaltyLogitsProcessor(penalty)(ids_BT, scores_BV.clone())
    ours = sampling.apply_repetition_penalty(scores_BV, seen_BV, penalty=penalty)
    torch.testing.assert_close(ours, expected)


@pytest.mark.parametrize("k", [1, 2, 50, 700, 5000])
def test_top_k_is_that_of_transformers(k):
    expected = hf.TopKLogitsWarper(k)(None, logits())
    torch.testing.assert_close(sampling.keep_top_k(logits(), k), expected)


@pytest.mark.parametrize("scale", [0.01, 1.0, 4.0])  # 0.01: flat, more than 256 tokens are kept
@pytest.mark.parametrize("p", [0.01, 0.5, 0.9, 0.999])
def test_top_p_is_that_of_transformers(p, scale):
    scores_BV = logits(scale=scale)
    expected = hf.TopPLogitsWarper(p)(None, scores_BV)
    torch.testing.assert_close(sampling.keep_top_p(scores_BV, p), expected)


@pytest.mark.parametrize("min_p", [0.001, 0.05, 0.5, 0.99])
def test_min_p_is_that_of_transformers(min_p):
    expected = hf.MinPLogitsWarper(min_p)(None, logits())
    torch.testing.assert_close(sampling.keep_min_p(logits(), min_p), expected)


@settings(max_examples=40, deadline=None)
@given(
    temperature=st.floats(0.1, 3), top_k=st.integers(0, 80), top_p=st.floats(0.05, 1),
    min_p=st.floats(0, 0.3), penalty=st.floats(0.5, 2), seed=st.integers(0, 1000),
)  # fmt: skip
def test_all_filters_together_give_transformers_distribution(
    temperature, top_k, top_p, min_p, penalty, seed
):
    # In fp64, so that what differs is the filters and not the rounding at low temperatures.
    scores_BV = logits(rows=3, vocabulary=90, seed=seed).double()
    ids_BT = torch.randint(0, 90, (3, 9))
    params = SamplingParams(
        temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p, repetition_penalty=penalty
    )
    seen_BV = torch.zeros_like(scores_BV, dtype=torch.bool).scatter_(1, ids_BT, value=True)
    chain = [hf.RepetitionPenaltyLogitsProcessor(penalty), hf.TemperatureLogitsWarper(temperature)]
    chain += [hf.TopKLogitsWarper(top_k)] if top_k else []
    chain += [hf.TopPLogitsWarper(top_p)] if top_p < 1 else []
    chain += [hf.MinPLogitsWarper(min_p)] if min_p else []
    expected = scores_BV.clone()
    for warper in chain:
        expected = warper(ids_BT, expected)
    rows = RowParams.of([params] * 3)
    ours = sampling.apply_repetition_penalty(scores_BV, seen_BV, penalty=rows.repetition_penalty)
    ours = sampling.filter_logits(ours, rows)
    # A token exactly on a threshold may fall to either side by rounding; its weight must be small.
    difference = (ours.softmax(-1) - expected.softmax(-1)).abs()
    assert ((difference < 1e-5) | (kept(ours) != kept(expected))).all()
    assert (kept(ours) != kept(expected)).sum() <= 1


def test_draws_follow_the_distribution():
    probabilities = torch.tensor([0.5, 0.0, 0.3, 0.15, 0.05])
    rows = probabilities.log().expand(20_000, -1)
    ids_B = sampling.draw(rows, [sampling.new_generator(seed) for seed in range(20_000)])
    shares = torch.bincount(ids_B, minlength=5) / 20_000
    assert shares[1] == 0
    torch.testing.assert_close(shares, probabilities, atol=0.012, rtol=0)


@pytest.mark.parametrize(
    "changes",
    [
        {"top_p": 0.6}, {"top_p": 0.05}, {"min_p": 0.2}, {"top_p": 0.8, "min_p": 0.1},
        {"top_k": 4}, {"top_k": 6, "top_p": 0.7}, {"temperature": 3.0}, {},
    ],
)  # fmt: skip
def test_drawing_again_gives_the_distribution_that_filtering_gives(changes):
    params = SamplingParams(**({"temperature": 0.8, "top_p": 1.0} | changes))
    scores_V, rows = logits(rows=1, vocabulary=12, scale=1.5)[0], 20_000
    generators = [sampling.new_generator(seed) for seed in range(rows)]
    many = RowParams.of([params] * rows)
    drawn = sampling.draw_filtered(scores_V.expand(rows, -1), many, generators)
    shares = torch.bincount(drawn, minlength=12) / rows
    expected = sampling.filter_logits(scores_V[None], RowParams.of([params]))[0].softmax(-1)
    assert (shares[expected == 0] == 0).all()
    torch.testing.assert_close(shares, expected, atol=0.012, rtol=0)


def test_without_a_seed_draws_differ():
    rows = torch.zeros(1, 1000)
    drawn = [int(sampling.draw(rows, [sampling.new_generator(None)])) for _ in range(20)]
    assert Counter(drawn).most_common(1)[0][1] < 5


@pytest.mark.parametrize("filter_name", ["keep_top_k", "keep_top_p", "keep_min_p"])
def test_a_filter_takes_a_number_or_one_for_each_row(filter_name):
    keep = getattr(sampling, filter_name)
    values = [3, 40, 700, 1, 200] if filter_name == "keep_top_k" else [0.2, 0.9, 0.999, 1e-3, 0.5]
    together = keep(logits(), torch.tensor(values)[:, None])
    alone = torch.cat([keep(logits()[i : i + 1], value) for i, value in enumerate(values)])
    torch.testing.assert_close(together, alone, rtol=0, atol=0)


def test_count_penalties_are_openais_formula():
    scores_BV, counts_BV = logits(), torch.randint(0, 4, (5, 700))
    ours = sampling.apply_count_penalties(scores_BV, counts_BV, presence=0.7, frequency=-0.4)
    for row, token in ((0, 5), (1, 699), (4, 77)):
        count = int(counts_BV[row, token])
        expected = float(scores_BV[row, token]) + count * 0.4 - float(count > 0) * 0.7
        assert float(ours[row, token]) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    ("name", "value", "flag"),
    [
        ("temperature", -1, "--temperature -1"),
        ("top_k", -2, "--top-k -2"),
        ("top_p", 0.0, "--top-p 0.0"),
        ("top_p", 1.5, "--top-p 1.5"),
        ("min_p", 1.0, "--min-p 1.0"),
        ("repetition_penalty", 0.0, "--repetition-penalty 0.0"),
        ("presence_penalty", 2.5, "--presence-penalty 2.5"),
        ("frequency_penalty", -3, "--frequency-penalty -3"),
        ("temperature", float("nan"), "--temperature nan"),
        ("alternatives", 21, "--alternatives 21"),
        ("logit_bias", ((7, 101.0),), "--logit-bias 7 101.0"),
        ("max_new_tokens", 0, "--max-new-tokens 0"),
        ("seed", -1, "--seed -1"),
    ],
)
def test_a_wrong_parameter_names_its_flag(name, value, flag):
    with pytest.raises(ConfigError, match=flag):
        SamplingParams(**{name: value})
