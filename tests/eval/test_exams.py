"""C-Eval and CMMLU files, read and asked; scores whose value is known."""

import json

import pytest
import torch
import zstandard

from doubles import byte_tokenizer, tiny_config
from exam_doubles import Guesser, Oracle, write_rows
from minimind.errors import DataError
from minimind.eval.harness import ask, prepare
from minimind.eval.statistics import against_chance
from minimind.eval.subject import ModelSubject
from minimind.eval.tasks.base import TaskOptions
from minimind.eval.tasks.exam_files import BENCHMARKS, read_exam
from minimind.model import CausalLM


@pytest.mark.parametrize("shots", [0, 5])
@pytest.mark.parametrize("chat", [False, True])
def test_an_oracle_scores_one_and_a_guesser_chance(tmp_path, shots, chat):
    write_rows(tmp_path / "cmmlu.jsonl", questions=400)
    options = TaskOptions(data=(tmp_path,), shots=shots, chat=chat)
    (asked,) = prepare(["cmmlu"], options)
    progress = []
    for scored in ask(Oracle(asked.items), asked, progress=progress.append):
        assert scored.measure.value == 1.0
        assert scored.measure.n == 800
        assert "better than chance" in against_chance(scored.measure)
    assert sum(progress) == 800
    for scored in ask(Guesser(asked.items), asked):
        low, high = scored.measure.interval
        assert low < 0.25 < high
        assert "not distinguishable from chance" in against_chance(scored.measure)


def test_prompts_that_do_not_fit_lose_whole_shots_and_are_counted(tmp_path):
    write_rows(tmp_path / "cmmlu.jsonl", shots=3)
    torch.manual_seed(0)
    model = CausalLM(tiny_config(max_position_embeddings=420))
    subject = ModelSubject("tiny", model.eval(), byte_tokenizer())
    (asked,) = prepare(["cmmlu"], TaskOptions(data=(tmp_path,), shots=3))
    letter, cloze = ask(subject, asked)
    assert letter.measure.details["shots_cut"] > 0
    assert letter.measure.details["questions_with_fewer_shots"] == 24
    assert letter.measure.details["questions_too_long"] == 0
    assert cloze.measure.details["shots_cut"] == 0
    assert [one.metric.name for one in (letter, cloze)] == [
        "cmmlu_3shot_letter", "cmmlu_3shot_cloze"
    ]  # fmt: skip


def test_the_benchmarks_own_csv_layouts_are_read(tmp_path):
    ceval, cmmlu = tmp_path / "ceval", tmp_path / "cmmlu"
    for folder in (ceval / "val", ceval / "dev", cmmlu / "test", cmmlu / "dev"):
        folder.mkdir(parents=True)
    line = '0,"一, 二",甲,乙,丙,丁,C\n'
    (ceval / "val" / "law_val.csv").write_text("id,question,A,B,C,D,answer\n" + line)
    (ceval / "dev" / "law_dev.csv").write_text(
        "id,question,A,B,C,D,answer,explanation\n" + line.strip() + ",因为\n"
    )
    for split in ("test", "dev"):
        (cmmlu / split / "anatomy.csv").write_text(",Question,A,B,C,D,Answer\n" + line)
    for name, split in (("ceval", "val"), ("cmmlu", "test")):
        rows = read_exam(BENCHMARKS[name], [tmp_path])
        assert {row.split for row in rows} == {split, "dev"}
        assert {row.subject for row in rows} == {"law" if name == "ceval" else "anatomy"}
        assert {(row.question, row.answer) for row in rows} == {("一, 二", 2)}


def test_agieval_rows_and_packed_files_are_read(tmp_path):
    row = {"passage": "短文", "question": "问", "options": ["(A)甲", "(B)乙", "(C)丙", "(D)丁"],
           "label": "B"}  # fmt: skip
    packed = zstandard.compress((json.dumps(row, ensure_ascii=False) + "\n").encode())
    (tmp_path / "agieval-zh.jsonl.zst").write_bytes(packed)
    (read,) = read_exam(BENCHMARKS["agieval"], [tmp_path])
    assert (read.question, read.choices, read.answer) == ("短文\n问", ("甲", "乙", "丙", "丁"), 1)


GOOD = "id,question,A,B,C,D,answer\n0,问,甲,乙,丙,丁,A\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (GOOD + "1,问,甲,乙\n", r"law_val.csv:3: not as many cells"),
        (GOOD + "1,问,甲,乙,丙,丁,E\n", r"law_val.csv:3: the answer is 'E'"),
        (GOOD + "1,,甲,乙,丙,丁,A\n", r"law_val.csv:3: no question"),
        (GOOD + '1,"问,甲\n', r"law_val.csv:3: no csv"),
        ("question,A,B,C,answer\n问,甲,乙,丙,A\n", r"law_val.csv:2: answer D is missing"),
    ],
)
def test_a_malformed_csv_names_file_and_line(tmp_path, content, message):
    folder = tmp_path / "val"
    folder.mkdir()
    (folder / "law_val.csv").write_text(content)
    with pytest.raises(DataError, match=message):
        read_exam(BENCHMARKS["ceval"], [tmp_path])


def test_more_shots_than_there_are_examples_is_refused(tmp_path):
    write_rows(tmp_path / "cmmlu.jsonl", shots=2)
    with pytest.raises(DataError, match=r"--shots 5: .* with 2 worked"):
        prepare(["cmmlu"], TaskOptions(data=(tmp_path,), shots=5))


def test_without_data_and_network_it_says_which_files_to_put_where(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(DataError, match=r"Give --data FOLDER with FOLDER/cmmlu/test/SUBJECT\.csv"):
        prepare(["cmmlu"], TaskOptions())
