"""How many tokens one pass has, and how many passes so many tokens are."""

import json

import pytest

from doubles import byte_tokenizer
from minimind.config import DataConfig
from minimind.data import make_loader
from minimind.data.document import is_held_out
from minimind.data.passes import Part, parts_of
from minimind.eval.results import MANY_PASSES
from run_doubles import write_rows


def rows_of_one_pass(data: DataConfig) -> int:
    """Count what a loader really hands out until its pass is over."""
    loader = make_loader(data, byte_tokenizer(), batch_rows=4, micro_batch_rows=4, seed=1)
    return sum(batch.input_ids.shape[0] for step in loader for batch in step)


def test_small_text_is_counted(tmp_path):
    path = str(write_rows(tmp_path / "a.jsonl", "text", rows=300))
    data = DataConfig(train=(path,), sequence_length=64, validation_share=0.05)
    (part,) = parts_of(data, byte_tokenizer())
    once = DataConfig(**{**vars(data), "epochs_limit": 1})
    assert (part.share, part.how) == (1.0, "counted")
    assert part.tokens == rows_of_one_pass(once) * 64
    read = part.read(tokens=10 * part.tokens)
    assert read["passes"] == 10 > MANY_PASSES
    assert read["unique tokens"] == part.tokens
    json.dumps(read)


def test_larger_text_is_estimated_and_shares_follow_the_sizes(tmp_path):
    paths = [str(write_rows(tmp_path / f"{n}.jsonl", "text", rows=n)) for n in (30_000, 300)]
    data = DataConfig(train=tuple(paths), sequence_length=256, epochs_limit=1)
    large, small = parts_of(data, byte_tokenizer())
    assert (large.how, small.how) == ("estimated", "counted")
    real = rows_of_one_pass(data) * 256
    assert large.tokens + small.tokens == pytest.approx(real, rel=0.03)
    assert large.share + small.share == pytest.approx(1)
    passes = [part.read(3 * real)["passes"] for part in (large, small)]
    assert passes == pytest.approx([3, 3], rel=0.03)  # all files end a pass together


def test_weights_read_a_small_path_more_often(tmp_path):
    paths = [str(write_rows(tmp_path / f"{n}.jsonl", "text", rows=n)) for n in (400, 40)]
    data = DataConfig(train=tuple(paths), weights=(0.9, 0.1), sequence_length=64)
    large, small = (part.read(100_000) for part in parts_of(data, byte_tokenizer()))
    assert (large["share"], small["share"]) == (0.9, 0.1)
    assert large["passes"] == pytest.approx(90_000 / large["unique tokens"], abs=0.01)
    assert small["passes"] == pytest.approx(10_000 / small["unique tokens"], abs=0.01)


def test_questions_that_repeat_hold_out_more_than_their_share(tmp_path):
    """Three of seven questions may be held out for a fifth: the estimate looks at the rows."""
    path = tmp_path / "chat.jsonl"
    said = "天地玄黄宇宙洪荒日月盈昃辰宿列张" * 4
    with path.open("w", encoding="utf-8") as file:
        for number in range(14_000):
            asked = f"第{number % 7}问？"  # few questions, each asked often
            turns = [{"role": "user", "content": asked},
                     {"role": "assistant", "content": f"{said}{number}"}]  # fmt: skip
            file.write(json.dumps({"messages": turns}, ensure_ascii=False) + "\n")
    data = DataConfig(train=(str(path),), kind="chat", sequence_length=512, validation_share=0.2,
                      epochs_limit=1)  # fmt: skip
    (part,) = parts_of(data, byte_tokenizer())
    held_out = [is_held_out(f"第{n}问？", 0.2) for n in range(7)]
    assert sum(held_out) == 3  # not a fifth of seven: so the bytes alone would mislead
    assert part.how == "estimated"
    assert part.tokens == pytest.approx(rows_of_one_pass(data) * 512, rel=0.05)


def test_the_hub_is_not_read_to_be_counted(monkeypatch):
    """Of a data set without a size the passes are unknown; of one with it they are estimated."""
    monkeypatch.setattr("minimind.data.hub.HubData.pinned", lambda self: self)
    unknown = DataConfig(train=("hub:fineweb-edu-zh",))
    (part,) = parts_of(unknown, byte_tokenizer())
    assert part == Part(what="hub:fineweb-edu-zh", share=1.0, tokens=None, how="unknown")
    assert part.read(10**9)["passes"] is None
    known = DataConfig(train=("hub:skypile",), accept_licences=("skywork agreement",))
    (part,) = parts_of(known, byte_tokenizer())
    assert part.how == "estimated"
    assert part.read(10**9)["passes"] <= 0.01
