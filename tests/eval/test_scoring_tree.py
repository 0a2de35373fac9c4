"""Shared beginnings are read once, and nothing else changes."""

import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from doubles import byte_tokenizer, tiny_config
from minimind.eval.prefixes import grow
from minimind.eval.scoring_tree import score_pairs
from minimind.eval.subject import LineEncoder, ModelSubject
from minimind.eval.tasks.base import Generation, Request
from minimind.inference import Engine
from minimind.model import CausalLM
from minimind.tokenizer import Tokenizer


def tiny_model(**changes):
    torch.manual_seed(0)
    return CausalLM(tiny_config(initializer_range=0.2, **changes)).eval()


def shared_pairs(draw, count=16):
    beginning = [draw.randrange(20, 260) for _ in range(30)]
    pairs = []
    for _ in range(count):
        stem = [draw.randrange(20, 260) for _ in range(draw.randrange(1, 12))]
        context = beginning[: draw.choice([30, 18])] + stem
        for _ in range(4):
            answer = [draw.randrange(20, 24) for _ in range(draw.choice([1, 1, 3, 5]))]
            pairs.append((context, answer))
    return [*pairs, ([1], [2]), ([1], [2, 3]), (beginning, beginning[:3])]


@pytest.mark.parametrize("window", [None, 8])
def test_scores_are_those_of_rows_read_alone(window):
    model = tiny_model(sliding_window=window)
    pairs = shared_pairs(random.Random(1))
    alone = [Engine(model).loglikelihood(*pair) for pair in pairs]
    for batch_tokens in (64, 8192):
        together = score_pairs(model, pairs, batch_tokens=batch_tokens)
        assert [one[1] for one in together] == [one[1] for one in alone]
        assert [one[0] for one in together] == pytest.approx([one[0] for one in alone], abs=1e-4)


def test_a_tree_reads_far_fewer_tokens_than_the_rows_have():
    pairs = shared_pairs(random.Random(2))
    forest = grow(pairs, range(len(pairs)), share=True)

    def tokens(node):
        return len(node.ids) + sum(map(tokens, node.children))

    rows = sum(len(context) + len(answer) - 1 for context, answer in pairs)
    assert sum(map(tokens, forest)) < rows / 3


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.lists(st.integers(0, 2), min_size=1, max_size=20),
                          st.lists(st.integers(0, 2), min_size=1, max_size=4)),
                min_size=1, max_size=12))  # fmt: skip
def test_every_row_is_in_the_forest_with_what_it_asks(pairs):
    forest = grow(pairs, range(len(pairs)), share=True)
    asked: dict[int, list[tuple[int, int]]] = {}

    def walk(node, before):
        assert node.start == len(before)
        row = [*before, *node.ids.tolist()]
        for position, token, pair in node.wants:
            assert node.start <= position < node.end
            context, answer = pairs[pair]
            assert row[: position + 1] == [*context, *answer][: position + 1]
            asked.setdefault(pair, []).append((position, token))
        for child in node.children:
            walk(child, row)

    for root in forest:
        walk(root, [])
    for number, (context, answer) in enumerate(pairs):
        wanted = [(len(context) - 1 + i, token) for i, token in enumerate(answer)]
        assert sorted(asked[number]) == wanted


def test_progress_adds_up_to_the_pairs():
    pairs = shared_pairs(random.Random(3))
    seen = []
    score_pairs(tiny_model(), pairs, batch_tokens=128, progress=seen.append)
    assert sum(seen) == len(pairs)
    assert len(seen) > 1


LINES = st.text(st.sampled_from("答案A. 1 \n\t　，b\r"), max_size=40)


TOKENIZER = Tokenizer.load()


@settings(max_examples=200, deadline=None)
@given(LINES)
def test_text_encoded_line_by_line_has_the_ids_of_the_whole(text):
    assert LineEncoder(TOKENIZER)(text) == TOKENIZER.encode(text)


def test_what_does_not_fit_is_cut_at_the_left_and_counted():
    subject = ModelSubject("tiny", tiny_model(), byte_tokenizer())
    (short,) = subject.score([Request(context="ab", continuation="c")])
    (long,) = subject.score([Request(context="x" * 100, continuation="cd")])
    assert (short.cut, short.tokens) == (0, 1)
    assert (long.cut, long.tokens) == (1 + 100 + 2 - 65, 2)


def test_documents_are_scored_whole_in_windows():
    subject = ModelSubject("tiny", tiny_model(), byte_tokenizer())
    first, second = subject.rolling(["a" * 150, ""])
    assert (first.tokens, second.tokens) == (150, 0)
    assert first.log_prob < 0 == second.log_prob


def test_answers_end_at_a_stop_text_and_say_why():
    subject = ModelSubject("tiny", tiny_model(), byte_tokenizer())
    (free,) = subject.generate(["abc"], Generation(max_new_tokens=20))
    assert free.finished in {"length", "stop"}
    mark = free.text[3:5]
    (stopped,) = subject.generate(["abc"], Generation(max_new_tokens=20, stop=(mark,)))
    assert stopped.text == free.text[: free.text.index(mark)]
    assert stopped.finished == "stop"
