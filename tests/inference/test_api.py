"""`minimind.load` and `minimind.generate`, and conversations."""

import dataclasses

import pytest
import torch

import minimind
from doubles import byte_tokenizer, tiny_config
from minimind import checkpoint
from minimind.errors import CheckpointError, DataError
from minimind.inference import Conversation, Engine, SamplingParams
from minimind.inference.api import text_pieces
from minimind.model import CausalLM

PARAMS = SamplingParams(seed=1, max_new_tokens=10)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    torch.manual_seed(0)
    directory = tmp_path_factory.mktemp("api") / "c"
    model = CausalLM(tiny_config(max_position_embeddings=128))
    checkpoint.save(directory, model=model, tokenizer=byte_tokenizer())
    return minimind.load(directory)


def test_generate_continues_text_and_answers_messages(loaded):
    text = minimind.generate(*loaded, "从前", params=PARAMS)
    answer = minimind.generate(*loaded, [{"role": "user", "content": "从前"}], params=PARAMS)
    assert isinstance(text, str)
    assert isinstance(answer, str)
    assert text != answer
    assert text == minimind.generate(*loaded, "从前", params=PARAMS)


def test_generate_stops_at_the_tokenizers_stop_tokens(loaded):
    model, tokenizer = loaded
    question = [{"role": "user", "content": "好"}]
    ids = tokenizer.render(question, add_generation_prompt=True).ids
    greedy = SamplingParams(temperature=0, repetition_penalty=1, max_new_tokens=4)
    first = Engine(model).generate([ids], greedy)[0][0]
    stopped = dataclasses.replace(greedy, stop_ids=(first,))
    assert (
        minimind.generate(model, tokenizer, [{"role": "user", "content": "好"}], params=stopped)
        == ""
    )


def test_a_prompt_that_is_too_long_tells_the_numbers(loaded):
    with pytest.raises(DataError, match=r"301 tokens.*128"):
        minimind.generate(*loaded, "长" * 100)


def test_loading_what_is_not_there():
    with pytest.raises(CheckpointError, match="nowhere"):
        minimind.load("nowhere")


def test_pieces_are_whole_characters_without_control_tokens(loaded):
    _, tokenizer = loaded
    ids = [1, *tokenizer.encode("你好a"), 2, *tokenizer.encode("啊")[:2]]
    assert list(text_pieces(tokenizer, ids)) == ["你", "好", "a", "�"]


def test_a_conversation_reuses_the_cache_and_drops_old_turns_whole(loaded):
    model, tokenizer = loaded
    conversation = Conversation(model, tokenizer, system="短")
    params = dataclasses.replace(PARAMS, stop_ids=tuple(tokenizer.stop_ids))
    dropped, reused = [], []
    for number in range(6):
        text = "".join(conversation.reply(f"q{number}", params))
        assert conversation.messages[-1] == {"role": "assistant", "content": text}
        dropped.append(conversation.dropped)
        reused.append(conversation.session.reused)
        roles = [message["role"] for message in conversation.messages]
        assert roles == ["system", *["user", "assistant"] * (len(roles) // 2)]
        length = len(tokenizer.render(conversation.messages).ids)
        assert length <= 128 + 2  # the end of the turn isn't generated
    assert dropped[0] == 0
    assert sum(dropped) > 0
    assert reused[1] > 20
    assert conversation.messages[1]["content"] != "q0"
    conversation.reset(system=conversation.system)
    assert conversation.messages == [{"role": "system", "content": "短"}]


def test_a_message_that_does_not_fit_leaves_the_conversation_as_it_was(loaded):
    conversation = Conversation(*loaded)
    "".join(conversation.reply("hi", PARAMS))
    before = list(conversation.messages)
    with pytest.raises(DataError, match=r"context is 128"):
        "".join(conversation.reply("长" * 50, PARAMS))
    assert conversation.messages == before


def test_an_answer_that_is_broken_off_is_remembered(loaded):
    conversation = Conversation(*loaded)
    pieces = conversation.reply("hi", SamplingParams(seed=3, max_new_tokens=60))
    said = next(pieces) + next(pieces)
    pieces.close()
    assert conversation.messages[-1] == {"role": "assistant", "content": said}
    assert conversation.messages[-2] == {"role": "user", "content": "hi"}
