"""Planted items are found, whatever stage they were planted in; others are not."""

import json

import pytest

from doubles import byte_tokenizer
from exam_doubles import Oracle, write_rows
from minimind import checkpoint
from minimind.errors import DataError
from minimind.eval.contamination import GramIndex, gram_hashes, normalise
from minimind.eval.contamination_sources import named_files, training_data
from minimind.eval.harness import ask, find_contamination, prepare, save
from minimind.eval.results import Evaluation
from minimind.eval.tasks.base import Item, TaskOptions
from minimind.settings import dump_run_config
from run_doubles import tiny_run

PLANTED = "宋代设立的管理海外贸易的官方机构叫做什么"


def index_of(*texts):
    return GramIndex({"task": [Item(id=str(i), text=text) for i, text in enumerate(texts)]})


def test_thirteen_characters_in_a_row_are_found_through_spaces_case_and_punctuation():
    index = index_of(PLANTED, "完全不同的一个问题，和训练数据没有关系", "短")
    index.read(
        [("无关的文字" * 5, "a:1"), (f"前文。{PLANTED[3:8]}，\n {PLANTED[8:16]}！后文", "b:2")]
    )
    found = index.result("task")
    assert set(found.hits) == {"0"}
    assert (found.hits["0"].place, found.hits["0"].gram) == ("b:2", PLANTED[3:16])
    assert (found.checked, found.unchecked, found.documents) == (2, 1, 2)
    assert normalise("ＡＢ c_D, 一 二") == "abcd一二"


def test_twelve_characters_are_not_enough():
    index = index_of(PLANTED)
    index.read([(PLANTED[:12] + "别的" + PLANTED[12:], "a:1")])
    assert index.result("task").hits == {}


def test_wording_that_many_items_share_does_not_count():
    stem = "下列关于这个问题的说法中正确的一项是"
    index = index_of(*(f"{stem}{n}" for n in range(30)), PLANTED)
    index.read([(stem, "a:1"), (PLANTED, "a:2")])
    assert set(index.result("task").hits) == {"30"}


def test_hashes_of_equal_grams_are_equal_and_of_others_differ():
    text = PLANTED + "间隔" + PLANTED
    hashes = gram_hashes(text).tolist()
    grams = [text[i : i + 13] for i in range(len(text) - 12)]
    assert len(set(hashes)) == len(set(grams)) < len(grams)
    assert len(gram_hashes("短")) == 0


@pytest.fixture
def run_directory(tmp_path):
    """A run whose training rows hold one question of the benchmark."""
    import torch

    from minimind.model import CausalLM

    config = tiny_run(tmp_path, kind="text")
    data = tmp_path / "text.jsonl"
    row = {"text": "训练文本里混进了一题：law的第7个问题是什么，疑是地上霜"}
    data.write_text(data.read_text() + json.dumps(row, ensure_ascii=False) + "\n")
    torch.manual_seed(0)
    run = tmp_path / "run"
    model = CausalLM(config.model)
    checkpoint.save(run / "checkpoints" / "step-000001", model=model,
                    tokenizer=byte_tokenizer(), run=config)  # fmt: skip
    (run / "run.toml").write_text(dump_run_config(config))
    return run


def test_an_item_planted_in_the_training_data_is_found_and_left_out(tmp_path, run_directory):
    write_rows(tmp_path / "cmmlu.jsonl", questions=20)
    (asked,) = prepare(["cmmlu"], TaskOptions(data=(tmp_path / "cmmlu.jsonl",)))
    data = training_data(run_directory)
    assert not data.unread
    find_contamination([asked], "oracle", data)
    hits = asked.found["oracle"].hits
    # The physics question of the same number shares the wording, and so some of the grams.
    planted = max(hits, key=lambda key: hits[key].share)
    text = next(item.text for item in asked.items if item.id == planted)
    assert text.startswith("law的第7个问题")
    assert hits[planted].place == "text.jsonl:301"
    assert len(hits) == 2
    letter, _ = ask(Oracle(asked.items), asked)
    assert (letter.measure.n, letter.clean.n) == (40, 38)
    save(tmp_path / "eval.json", "oracle", [letter])
    read = Evaluation.load(tmp_path / "eval.json")
    assert read.get("oracle", "cmmlu_letter").details["contaminated"] == 2
    assert read.get("oracle", "cmmlu_letter_clean").n == 38
    lines = (tmp_path / "eval" / "oracle" / "cmmlu_letter.jsonl").read_text().splitlines()
    assert len(lines) == 40


def test_what_is_gone_is_said(tmp_path, run_directory):
    (tmp_path / "text.jsonl").unlink()
    (reason,) = training_data(run_directory).unread
    assert "text.jsonl" in reason
    with pytest.raises(DataError, match="--training-data"):
        named_files((tmp_path / "absent.jsonl",))
