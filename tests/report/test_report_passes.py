"""How often the text was read, in the report of a run."""

import pytest

from minimind.eval.results import StageRecord, Stages
from minimind.report.blocks import to_markdown
from minimind.report.files import read_run
from minimind.report.sections import report_blocks


def page(directory, language, **parts) -> str:
    stages = Stages(preset="64m")
    for name, read in parts.items():
        stages = stages.adding(StageRecord(name=name, seconds=9, tokens=1_000_000, read=read))
    stages.save(directory / "stages.json")
    return to_markdown(report_blocks(read_run(directory), language=language))


def part(what, *, share=1.0, tokens=None, how="unknown", passes=None):
    return {"what": what, "share": share, "unique tokens": tokens, "how": how, "passes": passes}


@pytest.mark.parametrize(
    ("language", "row", "warning"),
    [
        ("en", "| pretraining | `data/pretrain` | 1,000,000 | 21,900 (estimated) | 45.7 |",
         "⚠ pretraining **45.7** passes over the same text"),
        ("zh", "| 预训练 | `data/pretrain` | 1,000,000 | 21,900 (估计) | 45.7 |",
         "⚠ 同样的文本：预训练 **45.7** 遍"),
    ],
)  # fmt: skip
def test_many_passes_are_a_warning(tmp_path, language, row, warning):
    read = [part("data/pretrain", tokens=21_900, how="estimated", passes=45.66)]
    sft = [part("data/sft.jsonl", share=0.9, tokens=700_000, how="counted", passes=1.29)]
    text = page(tmp_path, language, pretrain=read, sft=sft)
    assert row in text
    assert warning in text
    assert "900,000 | 700,000" in text
    assert "1.3" in text
    assert "`minimind speedrun --text`" in text


def test_what_nobody_knows_is_unknown_and_a_few_passes_are_no_warning(tmp_path):
    read = [part("data/pretrain", share=0.1, tokens=50_000, how="estimated", passes=2.0),
            part("hub:a/b", share=0.9)]  # fmt: skip
    text = page(tmp_path, "en", pretrain=read)
    assert "| pretraining | `hub:a/b` | 900,000 | unknown | unknown |" in text
    assert "| pretraining | `data/pretrain` | 100,000 | 50,000 (estimated) | 2.0 |" in text
    assert "⚠" not in text


def test_an_older_run_says_nothing_of_it(tmp_path):
    assert "How often" not in page(tmp_path, "en", pretrain=())
