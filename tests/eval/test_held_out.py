import json

import pytest

from minimind.data.document import is_held_out
from minimind.errors import DataError
from minimind.eval.held_out import conversations, draw, pairs, split_text, training_conversations


def write(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return str(path)


def test_text_is_split_by_the_hash_and_nothing_is_lost(tmp_path):
    texts = [f"第{i}篇" for i in range(400)]
    write(tmp_path / "pretrain" / "law.jsonl", [{"text": t} for t in texts[:200]])
    write(tmp_path / "pretrain" / "x.jsonl", [{"text": t, "source": "poem"} for t in texts[200:]])
    split = split_text([str(tmp_path / "pretrain")], share=0.1)
    held_out = [document.text for document in split.held_out]
    assert sorted(split.training + held_out) == sorted(texts)
    assert all(is_held_out(text, 0.1) for text in held_out)
    assert not any(is_held_out(text, 0.1) for text in split.training)
    assert {document.meta["source"] for document in split.held_out} == {"law", "poem"}


def test_broken_lines_are_passed_over(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "一"}\n{half\n{"other": 1}\n{"text": ""}\n{"text": "二"}\n')
    assert sorted(split_text([str(path)], share=0.0).training) == ["一", "二"]


def test_conversations_go_by_the_first_question(tmp_path):
    rows = [
        {"messages": [{"role": "user", "content": f"问{i}"},
                      {"role": "assistant", "content": "答"}], "source": "own"}
        for i in range(200)
    ]  # fmt: skip
    path = write(tmp_path / "sft.jsonl", rows)
    found, sources = conversations([path], share=0.2)
    assert found
    assert set(sources) == {"own"}
    assert all(is_held_out(messages[0]["content"], 0.2) for messages in found)
    assert len(found) + len(list(training_conversations([path], share=0.2))) == 200
    few, _ = conversations([path], share=0.2, limit=5, seed=1)
    assert len(few) == 5
    assert all(messages in found for messages in few)


def test_pairs_go_by_the_question(tmp_path):
    rows = [{"prompt": f"问{i}", "chosen": "对", "rejected": "错"} for i in range(100)]
    found = pairs([write(tmp_path / "p.jsonl", rows)], share=0.3)
    assert 10 < len(found) < 60
    assert all(is_held_out(pair.chosen[0]["content"], 0.3) for pair in found)
    assert all(pair.rejected[-1]["content"] == "错" for pair in found)


def test_draw_is_seeded_and_keeps_the_order():
    assert draw(range(100), limit=10, seed=3) == draw(range(100), limit=10, seed=3)
    assert draw(range(100), limit=10) == sorted(draw(range(100), limit=10))
    assert draw(range(3), limit=None) == [0, 1, 2]


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"nothing\.jsonl"):
        split_text([str(tmp_path / "nothing.jsonl")], share=0.1)
