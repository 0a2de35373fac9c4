"""lm-evaluation-harness through its OpenAI adapter: the numbers are those of our own engine."""

import pytest

pytest.importorskip("lm_eval")
pytest.importorskip("tenacity")

from lm_eval.api.instance import Instance
from lm_eval.models.openai_completions import LocalChatCompletion, LocalCompletionsAPI
from serve_doubles import COUNTED, STORY
from transformers import AutoTokenizer

from minimind.checkpoint import load
from minimind.inference import Engine

PAIRS = [
    ("从前有座山，", "山里有座庙。"),
    ("从前有座山，", "abc"),
    ("好", "的，从前"),
    ("一二", "三"),
    ("从前", "有座山"),
    ("", STORY),
]


def requests(kind: str, arguments: list) -> list:
    return [
        Instance(request_type=kind, doc={}, arguments=given, idx=index)
        for index, given in enumerate(arguments)
    ]


@pytest.mark.parametrize("batch_size", [1, 3])
def test_loglikelihoods_are_ours(server, checkpoint_dir, batch_size):
    adapter = LocalCompletionsAPI(
        base_url=server.url + "/completions",
        model="mini",
        tokenizer=str(checkpoint_dir),
        tokenizer_backend="huggingface",
        max_length=1024,
        batch_size=batch_size,
    )
    theirs = adapter.loglikelihood(requests("loglikelihood", PAIRS))
    model, tokenizer = load(checkpoint_dir)
    hf = AutoTokenizer.from_pretrained(checkpoint_dir)
    pairs = [
        (tokenizer.encode(context) or [hf.eos_token_id], tokenizer.encode(continuation))
        for context, continuation in PAIRS
    ]
    ours = Engine(model).loglikelihoods(pairs)
    for (their_sum, their_greedy), (our_sum, our_greedy) in zip(theirs, ours, strict=True):
        assert their_sum == pytest.approx(our_sum, abs=1e-3)
        assert their_greedy == our_greedy
    assert {greedy for _, greedy in ours} == {True, False}


def test_generation_until(server):
    adapter = LocalCompletionsAPI(
        base_url=server.url + "/completions",
        model="mini",
        tokenizer_backend=None,
        max_length=1024,
    )
    options = {"until": ["庙"], "max_gen_toks": 60, "temperature": 0}
    (text,) = adapter.generate_until(requests("generate_until", [("从前", options)]))
    assert text == "有座山，山里有座"


def test_chat_generation(server):
    adapter = LocalChatCompletion(
        base_url=server.url + "/chat/completions", model="mini", max_length=1024
    )
    messages = adapter.apply_chat_template([{"role": "user", "content": "数到十"}])
    options = {"until": ["七"], "max_gen_toks": 60}
    (text,) = adapter.generate_until(requests("generate_until", [(messages, options)]))
    assert text == COUNTED.partition("七")[0]
