import json

import pytest

from minimind.errors import DataError
from minimind.eval.results import Evaluation, Measure, Sample, StageRecord, Stages


def measure(value=1.5):
    group = Measure(value=1.0, n=3, unit="documents")
    return Measure(value=value, low=1.0, high=2.0, n=7, unit="documents", groups={"law": group},
                   details={"bytes": 10}, note="how")  # fmt: skip


def test_evaluation_survives_the_file(tmp_path):
    written = (
        Evaluation()
        .adding("pretrain", {"bits_per_byte": measure()})
        .adding("xz", {"bits_per_byte": Measure(value=2.0)})
        .sampling(Sample(stage="sft", prompt="你好", text="你好！\n"))
    )
    written.save(tmp_path / "run" / "eval.json")
    assert Evaluation.load(tmp_path / "run" / "eval.json") == written


def test_stages_survive_the_file(tmp_path):
    record = StageRecord(name="pretrain", seconds=3.0, tokens=5, before=8.0, after=2.0,
                         details={"documents": 4, "checkpoint": "step-1"})  # fmt: skip
    written = Stages(preset="nano", seed=1, commands={"chat": "minimind chat x"}).adding(record)
    written.save(tmp_path / "stages.json")
    assert Stages.load(tmp_path / "stages.json") == written
    assert written.seconds == 3.0


def test_adding_replaces_only_what_has_the_same_name():
    evaluation = Evaluation().adding("sft", {"a": measure(1), "b": measure(2)})
    evaluation = evaluation.adding("sft", {"b": measure(3)})
    assert [evaluation.results["sft"][name].value for name in "ab"] == [1, 3]
    said = evaluation.sampling(Sample(stage="sft", prompt="p", text="old"))
    said = said.sampling(Sample(stage="sft", prompt="p", text="new"))
    assert [sample.text for sample in said.samples] == ["new"]
    stages = Stages().adding(StageRecord(name="sft", seconds=1))
    stages = stages.adding(StageRecord(name="dpo", seconds=1))
    stages = stages.adding(StageRecord(name="sft", seconds=9))
    assert [(s.name, s.seconds) for s in stages.stages] == [("sft", 9), ("dpo", 1)]


def test_absent_files_are_empty(tmp_path):
    assert Evaluation.load(tmp_path / "eval.json") == Evaluation()
    assert Stages.load(tmp_path / "stages.json") == Stages()


@pytest.mark.parametrize(
    ("content", "word"),
    [("{half", "not readable"), ("[1]", "object"), ('{"stages": [{"nam": "x"}]}', "'name'"),
     ('{"stages": [{"name": "x"}]}', "seconds")],
)  # fmt: skip
def test_broken_files_say_what_is_wrong(tmp_path, content, word):
    path = tmp_path / "stages.json"
    path.write_text(content)
    with pytest.raises(DataError, match=word):
        Stages.load(path)


def test_saving_leaves_no_temporary_file(tmp_path):
    Evaluation().save(tmp_path / "eval.json")
    assert [path.name for path in tmp_path.iterdir()] == ["eval.json"]
    assert json.loads((tmp_path / "eval.json").read_text())["schema"] == 1
