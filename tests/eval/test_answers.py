import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from doubles import byte_tokenizer, tiny_config
from minimind.errors import DataError
from minimind.eval.answers import Pair, answer_loss, preference_measures, solved_share
from minimind.model import CausalLM
from minimind.train.preferences import Problem
from minimind.train.verifier import Quantity


def chat(question, answer):
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


CONVERSATIONS = [chat("1+1=?", "2"), chat("你好", "你好！很高兴和你聊天。"), chat("再见", "再见")]
PAIRS = [Pair(chat("几？", f"答案：{i}"), chat("几？", f"大约是{i + 1}吧")) for i in range(12)]


@pytest.fixture(scope="module")
def tokenizer():
    return byte_tokenizer()


def model(seed, scale=20.0):
    torch.manual_seed(seed)
    made = CausalLM(tiny_config(max_position_embeddings=128)).eval()
    with torch.no_grad():
        made.model.embed_tokens.weight.mul_(scale)
    return made


@torch.no_grad()
def answer_log_prob(model, tokenizer, conversation):
    rendered = tokenizer.render(conversation)
    logits_TV = model(torch.tensor([rendered.ids[:-1]])).logits[0]
    log_probs = -F.cross_entropy(logits_TV, torch.tensor(rendered.ids[1:]), reduction="none")
    return float(log_probs[torch.tensor(rendered.mask[1:])].double().sum()), sum(rendered.mask)


def test_answer_loss_equals_the_masked_sum_by_hand(tokenizer):
    policy = model(0)
    parts = [answer_log_prob(policy, tokenizer, c) for c in CONVERSATIONS]
    measure = answer_loss(policy, tokenizer, CONVERSATIONS, groups=["a", "b", "b"])
    count = sum(n for _, n in parts)
    assert measure.value == pytest.approx(-sum(nats for nats, _ in parts) / count, rel=1e-5)
    assert measure.details == {"answer_tokens": count, "skipped": 0}
    assert measure.n == 3
    assert {name: group.n for name, group in measure.groups.items()} == {"a": 1, "b": 2}


def test_what_is_cut_off_is_skipped_and_counted(tokenizer):
    long = chat("问" * 100, "答")
    measure = answer_loss(model(0), tokenizer, [*CONVERSATIONS, long])
    assert (measure.n, measure.details["skipped"]) == (3, 1)
    with pytest.raises(DataError, match="context"):
        answer_loss(model(0), tokenizer, [long])


def test_a_policy_that_is_its_reference_has_the_loss_ln_2(tokenizer):
    measures = preference_measures(model(0), model(0), tokenizer, PAIRS)
    assert measures["dpo_loss"].value == pytest.approx(math.log(2))
    assert measures["preference_margin"].value == 0
    assert measures["preference_accuracy"].value == 0  # ties count for nobody
    raw = measures["preference_accuracy_raw"]
    assert raw.value == raw.details["reference"]


def test_preferences_equal_the_formula_by_hand(tokenizer):
    policy, reference, beta = model(0), model(1), 0.3
    sums = np.array([
        [[answer_log_prob(m, tokenizer, side)[0] for side in (p.chosen, p.rejected)]
         for m in (policy, reference)] for p in PAIRS
    ])  # fmt: skip
    margins = beta * ((sums[:, 0, 0] - sums[:, 1, 0]) - (sums[:, 0, 1] - sums[:, 1, 1]))
    measures = preference_measures(policy, reference, tokenizer, PAIRS, beta=beta)
    assert measures["preference_margin"].value == pytest.approx(margins.mean(), rel=1e-4)
    assert measures["preference_accuracy"].value == pytest.approx((margins > 0).mean())
    assert measures["dpo_loss"].value == pytest.approx(np.log1p(np.exp(-margins)).mean(), rel=1e-4)
    raw = (sums[:, 0, 0] > sums[:, 0, 1]).mean()
    assert measures["preference_accuracy_raw"].value == pytest.approx(raw)


def test_swapping_the_sides_turns_the_accuracy_round(tokenizer):
    swapped = [Pair(pair.rejected, pair.chosen) for pair in PAIRS]
    forth = preference_measures(model(0), model(1), tokenizer, PAIRS)["preference_accuracy"]
    back = preference_measures(model(0), model(1), tokenizer, swapped)["preference_accuracy"]
    assert forth.value + back.value == pytest.approx(1)


class Writes:
    """A tokenizer that reads every answer as the same text: what is judged is then known."""

    def __init__(self, tokenizer, text):
        self._tokenizer, self._text = tokenizer, text

    def __getattr__(self, name):
        return getattr(self._tokenizer, name)

    def decode(self, ids, *, skip_special_tokens=False):
        return self._text


def stops_at_once(tokenizer):
    """A model that always says <|im_end|>."""
    made = CausalLM(tiny_config(max_position_embeddings=128)).eval()
    with torch.no_grad():
        for weight in made.parameters():
            weight.zero_()
        made.model.norm.weight.fill_(1.0)
        made.model.embed_tokens.weight[:, 0] = 1.0
        made.model.embed_tokens.weight[tokenizer.im_end_id, 0] = 10.0
    return made


def problems(*values):
    return [Problem(str(i), f"{v}是几？", f"答案：{v}", Quantity(v), "x")
            for i, v in enumerate(values)]  # fmt: skip


def test_solved_counts_what_the_verifier_is_sure_of(tokenizer):
    measure = solved_share(
        stops_at_once(tokenizer), Writes(tokenizer, "答案：7"), problems(7, 8, 7, 9)
    )
    assert measure.value == 0.5
    assert measure.details == {"right": 2, "wrong": 2, "unclear": 0, "unfinished": 0, "too_long": 0}
    assert measure.low < 0.5 < measure.high


def test_an_answer_that_never_ends_solves_nothing(tokenizer):
    measure = solved_share(model(0), Writes(tokenizer, "答案：7"), problems(7, 7), max_new_tokens=4)
    assert (measure.value, measure.details["unfinished"]) == (0, 2)


def test_a_problem_longer_than_the_context_is_counted(tokenizer):
    long = Problem("l", "问" * 100, "答案：1", Quantity(1), "x")
    measure = solved_share(
        stops_at_once(tokenizer), Writes(tokenizer, "答案：7"), [*problems(7), long]
    )
    assert (measure.n, measure.details["too_long"]) == (1, 1)
    with pytest.raises(DataError, match="context"):
        solved_share(model(0), tokenizer, [long])
