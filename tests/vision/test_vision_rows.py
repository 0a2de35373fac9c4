"""Rows with images, and how a conversation with images becomes tokens."""

import jinja2
import pytest

from doubles import byte_tokenizer
from minimind.data.formats import RowError, parse_row
from minimind.errors import DataError
from minimind.export.llava import VISION_TEMPLATE
from minimind.tokenizer import SPECIAL_TOKENS

TURNS = [{"from": "human", "value": "<image>\n这是什么？"}, {"from": "gpt", "value": "猫"}]
SHOWN = {"type": "image"}


def test_a_row_of_llavas_shape():
    row = parse_row({"image": "a.png", "conversations": TURNS, "concept": "猫"}, "image")
    assert row.messages[0]["content"] == [SHOWN, {"type": "text", "text": "这是什么？"}]
    assert (row.images, row.held_out_key) == (("a.png",), "猫")


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({"image": ["a.png", "b.png"], "conversations": TURNS}, "1 <image>.*names 2 images"),
        ({"image": "a.png", "conversations": [{"role": "user", "content": "看"}, TURNS[1]]},
         "0 <image>.*names 1"),
        ({"conversations": TURNS}, "no field for kind 'image'"),
        ({"image": 3, "conversations": TURNS}, "must be the path"),
        ({"image": "a.png", "conversations": TURNS[:1]}, "nothing to learn"),
    ],
)  # fmt: skip
def test_rows_that_cant_be_used(row, why):
    with pytest.raises(RowError, match=why):
        parse_row(row, "image")


def test_an_image_takes_its_positions_and_is_not_learnt():
    tokenizer = byte_tokenizer()
    messages = [
        {"role": "user", "content": [SHOWN, {"type": "text", "text": "?<|image_pad|>"}]},
        {"role": "assistant", "content": "猫"},
    ]
    rendered = tokenizer.render(messages, images=[[901, 902, 903]])
    at = rendered.ids.index(901)
    assert rendered.ids[at - 1 : at + 4] == [9, 901, 902, 903, 10]
    assert not any(rendered.mask[: at + 4])
    assert SPECIAL_TOKENS.index("<|image_pad|>") not in rendered.ids  # spelt, so it is text
    for given in ([], [[1], [2]]):
        with pytest.raises(DataError, match=f"show 1 image .*{len(given)} were given"):
            tokenizer.render(messages, images=given)


def test_the_exported_template_says_the_same():
    tokenizer = byte_tokenizer()
    messages = [
        {"role": "system", "content": "你看图。"},
        {"role": "user", "content": [{"type": "text", "text": "这"}, SHOWN, SHOWN]},
        {"role": "assistant", "content": "猫"},
        {"role": "user", "content": "真的？"},
    ]
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True)
    text = environment.from_string(VISION_TEMPLATE).render(
        messages=messages, add_generation_prompt=True
    )
    pad = SPECIAL_TOKENS.index("<|image_pad|>")
    rendered = tokenizer.render(messages, add_generation_prompt=True, images=[[pad], [pad]])
    assert tokenizer.decode(rendered.ids) == text
