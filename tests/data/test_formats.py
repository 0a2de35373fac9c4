"""Every shape that rows come in, and what is said about rows that can't be used."""

import pytest

from minimind.data.formats import ChatRow, PreferenceRow, RowError, TextRow, parse_row

USER, ASSISTANT = {"role": "user", "content": "你好"}, {"role": "assistant", "content": "您好"}
SYSTEM = {"role": "system", "content": "简短"}


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [USER, ASSISTANT]},
        {"conversations": [USER, ASSISTANT]},
        {"conversations": [{"from": "human", "value": "你好"}, {"from": "gpt", "value": "您好"}]},
        {"instruction": "你好", "output": "您好"},
        {"instruction": "你好", "input": "", "output": "您好", "history": []},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "你好"}]}, ASSISTANT]},
    ],
)
def test_conversation_shapes_mean_the_same(row):
    assert parse_row(row, "chat") == ChatRow([USER, ASSISTANT])


def test_alpaca_with_everything():
    row = {"instruction": "翻译", "input": "cat", "output": "猫", "system": "简短",
           "history": [["你好", "您好"]]}  # fmt: skip
    question = {"role": "user", "content": "翻译\ncat"}
    answer = {"role": "assistant", "content": "猫"}
    assert parse_row(row, "chat") == ChatRow([SYSTEM, USER, ASSISTANT, question, answer])


@pytest.mark.parametrize(
    "row",
    [
        {"chosen": [USER, ASSISTANT], "rejected": [USER, {"role": "assistant", "content": "滚"}]},
        {"prompt": "你好", "chosen": "您好", "rejected": "滚"},
        {"prompt": [USER], "chosen": [ASSISTANT], "rejected": [{"from": "gpt", "value": "滚"}]},
    ],
)
def test_preference_shapes_mean_the_same(row):
    rejected = [USER, {"role": "assistant", "content": "滚"}]
    assert parse_row(row, "preference") == PreferenceRow([USER, ASSISTANT], rejected)


def test_tool_calls_are_kept():
    call = {"role": "assistant", "content": None, "tool_calls": [{"name": "f", "arguments": {}}]}
    row = parse_row({"messages": [USER, call], "tools": [{"name": "f"}]}, "chat")
    assert isinstance(row, ChatRow)
    assert row.messages[1]["tool_calls"] == call["tool_calls"]
    assert row.tools == [{"name": "f"}]


def test_sharegpt_tool_calls():
    rows = [{"role": "user", "content": "你好"},
            {"from": "function_call", "value": '{"name": "f", "arguments": {}}'},
            {"from": "observation", "value": "3"}, {"from": "gpt", "value": "是3"}]  # fmt: skip
    row = parse_row({"conversations": rows, "tools": '[{"name": "f"}]'}, "chat")
    assert isinstance(row, ChatRow)
    assert row.messages[1] == {
        "role": "assistant", "content": "", "tool_calls": [{"name": "f", "arguments": {}}],
    }  # fmt: skip
    assert row.messages[2] == {"role": "tool", "content": "3"}
    assert row.tools == [{"name": "f"}]
    rows[1]["value"] = "{not json"
    with pytest.raises(RowError, match=r"messages|conversations\[1\] is not JSON"):
        parse_row({"conversations": rows}, "chat")


@pytest.mark.parametrize(
    ("kind", "row", "says"),
    [
        ("text", {"txt": "字"}, "Did you mean 'text'?"),
        ("text", {"text": 3}, "must be a string"),
        ("text", {"text": " \n"}, "nothing to learn"),
        ("text", ["字"], "a row is a JSON object"),
        ("chat", {"mesages": []}, "Did you mean 'messages'?"),
        ("chat", {"messages": []}, "isn't empty"),
        ("chat", {"messages": [USER]}, "nothing to learn"),
        ("chat", {"messages": [USER, {"role": "assistant", "content": " "}]}, "nothing to learn"),
        ("chat", {"messages": [{"role": "asistant", "content": "字"}]}, "Did you mean"),
        ("chat", {"messages": [{"role": "user"}]}, "has no 'content'"),
        ("chat", {"messages": ["字"]}, "messages[0] must be an object"),
        ("chat", {"instruction": "问"}, "no 'output'"),
        ("preference", {"chosen": "字"}, "no field"),
        ("preference", {"chosen": "字", "rejected": "词"}, "needs a 'prompt'"),
        ("preference", {"prompt": "问", "chosen": "字", "rejected": "字"}, "are the same"),
    ],
)
def test_unusable_rows_say_why(kind, row, says):
    with pytest.raises(RowError) as error:
        parse_row(row, kind)
    assert says in str(error.value)


def test_the_question_decides_the_side():
    assert parse_row({"text": "字"}, "text") == TextRow("字")
    assert parse_row({"messages": [SYSTEM, USER, ASSISTANT]}, "chat").held_out_key == "你好"
