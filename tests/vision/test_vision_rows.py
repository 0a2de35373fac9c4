"""Rows with images, and how a conversation with images becomes tokens."""

import json

import jinja2
import pytest
from vision_doubles import save_encoder, save_pictures

from doubles import byte_tokenizer
from minimind.config import DataConfig, SightConfig
from minimind.data.batch import IGNORE
from minimind.data.formats import RowError, parse_row
from minimind.data.image_loader import ImageLoader
from minimind.data.images import vision_config
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
        ({"conversations": TURNS}, "says <image> and names no image"),
        ({"text": "图：<image>"}, "says <image> and names no image"),
        ({"image": "a.png"}, "no field for kind 'image'"),
        ({"picture": "a.png"}, "no field for kind 'image'"),
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


def test_a_step_is_split_by_length(tmp_path):
    """Short rows beside short ones: less padding, and no row twice or lost."""
    folder = save_encoder(tmp_path / "clip", "clip")
    pictures = save_pictures(tmp_path / "pictures")
    rows = [
        {"image": str(pictures[n % 4].relative_to(tmp_path)), "concept": f"{n}",
         "conversations": [{"role": "user", "content": "<image>\n" + "看" * (n * 7 % 5)},
                           {"role": "assistant", "content": f"{n}"}]}
        for n in range(8)
    ]  # fmt: skip
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    config = DataConfig(train=(str(file),), kind="image", sequence_length=96, validation_share=0.0)
    vision = vision_config(SightConfig(encoder=str(folder)))
    steps = {
        micro: next(iter(ImageLoader(
            config, byte_tokenizer(), vision=vision, batch_rows=8, micro_batch_rows=micro, seed=0
        )))
        for micro in (8, 2)
    }  # fmt: skip
    said = {
        micro: sorted(bytes(row[row != IGNORE].tolist()) for batch in step for row in batch.labels)
        for micro, step in steps.items()
    }
    assert said[8] == said[2]
    assert len(said[2]) == 8
    widths = [batch.input_ids.shape[1] for batch in steps[2]]
    assert widths == sorted(widths)
    assert widths[0] < widths[-1] == steps[8][0].input_ids.shape[1]
