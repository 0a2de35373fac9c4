"""When a text goes round in circles: what models wrote, and what people write."""

import pytest

from minimind.tokenizer.loops import is_loop


@pytest.mark.parametrize(
    "text",
    [
        "常见的症状有腹痛、腹痛、腹痛、腹痛。",
        "临床表现包括手术、手术、手术、手术等。",
        "the same the same  the\nsame",
        "1, 1, 1, 1, 1",
        "共12" + "4" * 70 + "元",  # no number is that long
        "好好好好好好好好",
        "——" * 4,
    ],
)
def test_loops(text):
    assert is_loop(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "资本不少于10000元，上限1000000000元",
        "哈哈哈哈，太好了",
        "等等……",
        "2222年2月22日",
        "一五一十，一五一十地说",
        "很好，很好，再好不过",
    ],
)
def test_no_loops(text):
    assert not is_loop(text)
