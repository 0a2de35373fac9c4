"""`minimind generate`: one prompt, files, JSON."""

import json

import pytest
import torch

import minimind
from doubles import byte_tokenizer, tiny_config
from minimind import checkpoint, cli
from minimind.inference import SamplingParams
from minimind.model import CausalLM

FLAGS = ("--seed", "3", "--max-new-tokens", "8")


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("generate") / "c"
    return str(checkpoint.save(path, model=CausalLM(tiny_config()), tokenizer=byte_tokenizer()))


def run(capsys, *args):
    try:
        code = cli.main(["generate", *args])
    except SystemExit as exit_:
        code = exit_.code
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_one_prompt_is_printed_with_its_continuation(directory, capsys):
    code, out, _ = run(capsys, directory, "abc", *FLAGS)
    expected = minimind.generate(
        *minimind.load(directory), "abc", params=SamplingParams(seed=3, max_new_tokens=8)
    )
    assert code == 0
    assert out == f"abc{expected}\n"


def test_chat_answers_and_does_not_repeat_the_prompt(directory, capsys):
    _, out, _ = run(capsys, directory, "abc", "--chat", *FLAGS)
    expected = minimind.generate(
        *minimind.load(directory), [{"role": "user", "content": "abc"}],
        params=SamplingParams(seed=3, max_new_tokens=8),
    )  # fmt: skip
    assert out == f"{expected}\n"


def test_a_text_file_several_answers_each(directory, capsys, tmp_path):
    (tmp_path / "p.txt").write_text("one\n\ntwo\n", encoding="utf-8")
    out_path = tmp_path / "out.jsonl"
    code, out, err = run(
        capsys, directory, "--file", str(tmp_path / "p.txt"), "--n", "3", "--out", str(out_path),
        *FLAGS,
    )  # fmt: skip
    rows = [json.loads(line) for line in out_path.read_text(encoding="utf-8").splitlines()]
    assert code == 0
    assert out == ""
    assert "6 answers" in err
    assert [(row["prompt"], row["sample"]) for row in rows] == [
        (prompt, sample) for prompt in ("one", "two") for sample in range(3)
    ]
    assert len({row["completion"] for row in rows}) > 3
    assert all(row["finish_reason"] in {"stop", "length"} for row in rows)
    assert all(row["tokens"] <= 8 for row in rows)


def test_a_jsonl_file_keeps_ids(directory, capsys, tmp_path):
    rows = [
        {"prompt": "你好", "id": "a"},
        {"text": "x"},
        {"messages": [{"role": "user", "content": "hi"}], "id": 7},
    ]
    path = tmp_path / "p.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    code, out, _ = run(capsys, directory, "--file", str(path), "--json", *FLAGS)
    results = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert [result.get("id") for result in results] == ["a", None, 7]
    assert results[2]["prompt"] == [{"role": "user", "content": "hi"}]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([], "give one prompt, or --file"),
        (["a", "--file", "b.txt"], "give one prompt, or --file"),
        (["--file", "nowhere.txt"], "--file nowhere.txt"),
        (["a", "--n", "0"], "--n 0"),
        (["a", "--n", "2", "--temperature", "0"], "same answer"),
        (["a", "--min-p", "2"], "--min-p 2.0: must be"),
        (["a", "--out", "no/such/folder.jsonl"], "folder no/such does not exist"),
        (["a" * 100], "101 tokens"),
    ],
)
def test_wrong_input_exits_with_2_and_says_what(directory, capsys, args, message):
    code, _, err = run(capsys, directory, *args)
    assert code == 2
    assert message in err


@pytest.mark.parametrize("line", ["{broken", '{"question": "x"}', "[]"])
def test_a_bad_line_is_named(directory, capsys, tmp_path, line):
    path = tmp_path / "p.jsonl"
    path.write_text('{"prompt": "a"}\n' + line + "\n", encoding="utf-8")
    code, _, err = run(capsys, directory, "--file", str(path))
    assert code == 2
    assert "p.jsonl:2" in err
