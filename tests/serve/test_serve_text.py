"""Text of a stream: whole characters, nothing of a stop string; tool calls whole or not at all."""

import json

from hypothesis import given, settings
from hypothesis import strategies as st

from doubles import byte_tokenizer
from minimind.inference.backend import TokenEvent
from minimind.serve.text import TextStream
from minimind.serve.tools import ToolParser

TOKENIZER = byte_tokenizer()


def stream(text: str, stops: list[str]) -> tuple[list[str], list[int], bool]:
    """Return pieces, ids of released tokens, and whether a stop string ended it."""
    stream = TextStream(TOKENIZER, stops)
    pieces, ids = [], []
    for token in TOKENIZER.encode(text):
        piece = stream.push(TokenEvent(token=token, logprob=-1.0))
        pieces.append(piece.text)
        ids += [at.id for at in piece.tokens]
        if stream.stopped:
            return pieces, ids, True
    last = stream.finish()
    return [*pieces, last.text], ids + [at.id for at in last.tokens], False


letters = st.text("ab啊😀", max_size=24)


@given(text=letters, stops=st.lists(st.text("ab啊😀", min_size=1, max_size=4), max_size=3))
@settings(max_examples=300, deadline=None)
def test_a_stream_is_the_text_before_the_first_stop_string(text, stops):
    pieces, ids, stopped = stream(text, stops)
    ends = [text.find(stop) for stop in stops if stop in text]
    # The first to be complete ends the answer, so text behind it never counts.
    first = min((text.find(stop) + len(stop) for stop in stops if stop in text), default=None)
    shown = "".join(pieces)
    if first is None:
        assert (shown, stopped) == (text, False)
        assert ids == TOKENIZER.encode(text)
    else:
        assert stopped
        complete = [text.find(s) for s in stops if s in text[:first]]
        assert shown == text[: min(complete)]
        assert min(ends) <= min(complete)
        assert TOKENIZER.decode(ids).startswith(shown)
        assert len(ids) >= len(TOKENIZER.encode(shown)) - 3
    assert "\ufffd" not in shown


def test_text_that_may_become_a_stop_string_is_held_back():
    stream = TextStream(TOKENIZER, ["五六"])
    shown = []
    for token in TOKENIZER.encode("四五七"):
        shown.append(stream.push(TokenEvent(token=token)).text)
    assert shown == ["", "", "四", "", "", "", "", "", "五七"]


def test_half_a_character_at_the_end_is_dropped_and_its_token_is_not():
    stream = TextStream(TOKENIZER)
    tokens = TOKENIZER.encode("好😀")[:-1]
    pieces = [stream.push(TokenEvent(token=token)) for token in tokens] + [stream.finish()]
    assert "".join(piece.text for piece in pieces) == "好"
    assert [at.id for piece in pieces for at in piece.tokens] == tokens


def test_control_tokens_are_not_shown():
    stream = TextStream(TOKENIZER)
    ids = [1, *TOKENIZER.encode("a"), 2, 3]
    pieces = [stream.push(TokenEvent(token=token)) for token in ids] + [stream.finish()]
    assert "".join(piece.text for piece in pieces) == "a<think>"


CALL = '<tool_call>\n{"name": "f", "arguments": {"x": "好"}}\n</tool_call>'


def parse(text: str, *, width: int):
    parser, shown, calls = ToolParser(), [], []
    for at in range(0, len(text), width):
        piece, new = parser.feed(text[at : at + width])
        shown.append(piece)
        calls += new
    return "".join(shown) + parser.finish(), calls


@given(width=st.integers(1, 40), before=st.sampled_from(["", "好", "a < b <tool", "x\n"]))
@settings(max_examples=60, deadline=None)
def test_calls_are_read_however_the_text_is_cut(width, before):
    text, calls = parse(before + "\n" + CALL + "\n" + CALL, width=width)
    assert text == before.rstrip()
    assert [(call.index, call.name, json.loads(call.arguments)) for call in calls] == [
        (0, "f", {"x": "好"}),
        (1, "f", {"x": "好"}),
    ]
    assert calls[0].id != calls[1].id


def test_what_is_no_call_stays_text():
    for block in (
        "<tool_call>\nnot json\n</tool_call>",
        '<tool_call>{"name": 5, "arguments": {}}</tool_call>',
        '<tool_call>{"name": "f", "arguments": [1]}</tool_call>',
        '<tool_call>{"name": "f", "arguments": {"x": NaN}}</tool_call>',
        '<tool_call>{"name": "f", "arguments": {"x": "\\ud800"}}</tool_call>',
        '<tool_call>{"name": "a b", "arguments": {}}</tool_call>',
        "<tool_call>" + "[" * 100_000 + "</tool_call>",
        '<tool_call>\n{"name": "f", "argum',
    ):
        assert parse("好 " + block, width=7) == ("好 " + block, [])


def test_arguments_may_be_a_string_or_missing():
    _, (call,) = parse('<tool_call>{"name": "f", "arguments": "{\\"x\\": 1}"}</tool_call>', width=9)
    assert json.loads(call.arguments) == {"x": 1}
    _, (call,) = parse('<tool_call>{"name": "f"}</tool_call>', width=9)
    assert call.arguments == "{}"
