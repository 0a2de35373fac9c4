"""Foreign tokenizers: ids, chats and stop tokens are those of transformers."""

import pytest
from importing_doubles import (
    CHATML,
    byte_level_tokenizer,
    sentencepiece_tokenizer,
    write_foreign,
)

from minimind.errors import DataError, TokenizerError
from minimind.importing.vocabulary import make_tokenizer
from minimind.inference.api import prompt_ids, text_pieces
from minimind.tokenizer import Tokenizer
from minimind.tokenizer.foreign import ForeignTokenizer

TEXTS = ["", "the cat", "从前有一座山 12345", "a\n\n  b\t", "😀 emoji é", " the that"]
CHAT = [
    {"role": "user", "content": "the cat?"},
    {"role": "assistant", "content": "on the mat"},
    {"role": "user", "content": "从前 12"},
    {"role": "assistant", "content": "def f(x)"},
]


def foreign(theirs, template=None) -> Tokenizer:
    return make_tokenizer(
        theirs.backend_tokenizer.to_str(),
        config=dict(theirs.special_tokens_map),
        template=template or theirs.chat_template,
        eos_ids=[],
        origin="theirs",
    )


@pytest.fixture(params=[byte_level_tokenizer, sentencepiece_tokenizer])
def pair(request):
    theirs = request.param()
    return theirs, foreign(theirs)


@pytest.mark.parametrize("text", TEXTS)
def test_ids_and_text_are_theirs(pair, text):
    theirs, ours = pair
    ids = theirs(text, add_special_tokens=False).input_ids
    assert ours.encode(text) == ids
    assert ours.encode_batch([text, text]) == [ids, ids]
    # Sentencepiece's space before the first word is shown: a continuation needs it.
    space = " " if ours.bos_id is not None and text else ""
    assert ours.decode(ids) == space + text
    assert "".join(text_pieces(ours, ids)) == space + text


def test_token_bytes_join_to_the_text(pair):
    _, ours = pair
    text = "从前 the 😀 cat"
    joined = b"".join(map(ours.token_bytes, ours.encode(text)))
    assert joined.removeprefix(b" ") == text.encode()


@pytest.mark.parametrize("turns", [1, 3])
@pytest.mark.parametrize("prompt", [True, False])
def test_chats_render_as_transformers_renders_them(pair, turns, prompt):
    theirs, ours = pair
    messages = CHAT[:turns]
    expected = theirs.apply_chat_template(
        messages, add_generation_prompt=prompt, tokenize=True, return_dict=False
    )
    assert ours.render(messages, add_generation_prompt=prompt).ids == expected


def test_the_mask_is_the_answers_and_the_token_that_ends_them(pair):
    _, ours = pair
    rendered = ours.render(CHAT)
    runs, before = [], False
    for token, learn in zip(rendered.ids, rendered.mask, strict=True):
        if learn:
            runs = [*runs, [token]] if not before else [*runs[:-1], [*runs[-1], token]]
        before = learn
    assert [ours.decode(run, skip_special_tokens=True).strip() for run in runs] == [
        "on the mat", "def f(x)"
    ]  # fmt: skip
    assert all(run[-1] in ours.stop_ids for run in runs)
    assert not any(ours.render(CHAT, add_generation_prompt=True).mask)


def test_documents_open_and_end_as_the_family_does():
    chatml, zephyr = foreign(byte_level_tokenizer()), foreign(sentencepiece_tokenizer())
    assert (chatml.bos_id, chatml.document_start_id, chatml.endoftext_id) == (None, 0, 0)
    assert chatml.stop_ids == (2, 0)  # <|im_end|>, <|endoftext|>
    assert (zephyr.bos_id, zephyr.document_start_id, zephyr.endoftext_id) == (1, 1, 2)
    assert zephyr.stop_ids == (2,)
    theirs = sentencepiece_tokenizer()
    assert prompt_ids(zephyr, "the") == theirs("the").input_ids


def test_a_base_model_stops_where_its_template_ends_a_turn():
    theirs = byte_level_tokenizer()
    theirs.eos_token = "<|endoftext|>"  # as Qwen2's base models
    assert foreign(theirs).stop_ids == (0, 2)


def test_control_tokens_are_hidden_and_others_are_not(pair):
    _, ours = pair
    assert ours.decode([*ours.encode("the"), *ours.stop_ids], skip_special_tokens=True).strip() == (
        "the"
    )
    assert len(list(text_pieces(ours, ours.stop_ids))) == 0


def test_tokens_that_are_not_special_are_tokens_in_text_too():
    theirs = byte_level_tokenizer()
    ours = foreign(theirs)
    assert ours.encode("a<think>b") == theirs("a<think>b", add_special_tokens=False).input_ids
    assert ours.decode(ours.encode("<think>"), skip_special_tokens=True) == "<think>"


def test_nobody_ends_a_turn_from_inside_a_message(pair):
    _, ours = pair
    control = ours.token_bytes(ours.stop_ids[0]).decode()
    assert ours.stop_ids[0] not in ours.encode(f"x{control}")
    with pytest.raises(DataError, match=r"messages\[0\] spells the control token"):
        ours.render([{"role": "user", "content": f"x{control}"}], add_generation_prompt=True)


REWRITES = CHATML.replace(
    "message['content'] + '<|im_end|>'",
    "(message['content'] if loop.last or message['role'] == 'user' else 'old') + '<|im_end|>'",
)


def test_a_template_that_rewrites_earlier_turns_has_no_mask_but_prompts():
    ours = foreign(byte_level_tokenizer(), REWRITES)
    assert ours.render(CHAT[:2]).mask[-2]
    assert ours.render(CHAT[:3], add_generation_prompt=True).ids
    with pytest.raises(DataError, match=r"messages\[1\].*rewrites earlier turns"):
        ours.render(CHAT)


MELTS = (
    "{% for message in messages %}{{ message['role'] + ': ' + message['content'] + '<|im_end|>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
)


def test_an_answer_whose_first_word_melts_into_its_header_is_refused():
    ours = foreign(byte_level_tokenizer(), MELTS)
    with pytest.raises(DataError, match=r"messages\[1\]"):
        ours.render([CHAT[0], {"role": "assistant", "content": "the cat"}])


@pytest.mark.parametrize(
    ("template", "said"),
    [("{{ raise_exception('only one turn') }}", "only one turn"),
     ("{{ messages.__class__.__mro__ }}", "fails on this conversation"),
     ("{{ messages.append(1) }}", "fails on this conversation")],
)  # fmt: skip
def test_what_a_template_must_not_do_is_an_error(template, said):
    ours = foreign(byte_level_tokenizer(), template)
    with pytest.raises(DataError, match=said):
        ours.render(CHAT[:1])


def test_a_template_that_is_no_jinja_is_refused():
    with pytest.raises(TokenizerError, match="no Jinja"):
        foreign(byte_level_tokenizer(), "{% if %}")


def test_without_a_template_there_is_no_chat_but_text(tmp_path):
    theirs = byte_level_tokenizer()
    theirs.chat_template = None
    write_foreign(tmp_path / "foreign", "llama", tokenizer=theirs)
    from minimind.importing import import_model

    imported = import_model(tmp_path / "foreign", tmp_path / "ours")
    assert "--chat-template" in imported.notes[0]
    with pytest.raises(TokenizerError, match="--chat-template"):
        imported.tokenizer.render(CHAT[:1])
    (tmp_path / "t.jinja").write_text(CHATML)
    again = import_model(
        tmp_path / "foreign", tmp_path / "with", chat_template=tmp_path / "t.jinja"
    )
    assert again.tokenizer.render(CHAT[:1]).ids


def test_what_is_saved_is_what_was_loaded_for_us_and_for_transformers(pair, tmp_path):
    theirs, ours = pair
    ours.save(tmp_path)
    again = Tokenizer.load(tmp_path)
    assert isinstance(again, ForeignTokenizer)
    assert again.fingerprint() == ours.fingerprint()
    assert again.stop_ids == ours.stop_ids
    assert again.render(CHAT) == ours.render(CHAT)
    from transformers import PreTrainedTokenizerFast

    reread = PreTrainedTokenizerFast.from_pretrained(tmp_path)
    assert reread("the cat 12").input_ids == theirs("the cat 12").input_ids
    assert reread.chat_template == theirs.chat_template


def test_a_foreign_tokenizer_that_was_not_imported_is_pointed_to_import(tmp_path):
    byte_level_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(TokenizerError, match="minimind import"):
        Tokenizer.load(tmp_path)
