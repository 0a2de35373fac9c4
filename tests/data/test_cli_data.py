"""`minimind data`, run as a user does."""

import json

import pytest

from minimind.cli import main
from minimind.data.catalogue import SOURCES


def test_list_is_for_people_and_programs(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("MINIMIND_CACHE", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["data", "list"]) == 0
    assert "idioms" in capsys.readouterr().out
    assert main(["data", "list", "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["name"] for row in rows] == [source.name for source in SOURCES]
    assert not any(row["cached"] for row in rows)


def test_wrong_input_is_exit_code_two(capsys, tmp_path):
    assert main(["data", "bild"]) == 2
    assert "Did you mean 'build'" in capsys.readouterr().err
    assert main(["data", "build", "--sources", "idoms", "--out", str(tmp_path)]) == 2
    assert "Did you mean 'idioms'" in capsys.readouterr().err
    assert main(["data"]) == 0
    assert "preferences" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("row", "shown"),
    [
        ({"text": "一段文字"}, "一段文字"),
        ({"instruction": "在吗", "output": "在"}, "4 learnt"),
        ({"prompt": "问", "chosen": "好的", "rejected": "不"}, "learnt"),
    ],
)
def test_preview_finds_the_kind(capsys, tmp_path, row, shown):
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(row, ensure_ascii=False) + "\n", encoding="utf-8")
    from doubles import byte_tokenizer

    byte_tokenizer().save(tmp_path / "tokenizer")
    arguments = ["data", "preview", str(path), "--tokenizer", str(tmp_path / "tokenizer")]
    assert main(arguments) == 0
    assert shown in capsys.readouterr().out


def test_an_empty_shard_among_others_ends_nothing(capsys, tmp_path):
    from doubles import byte_tokenizer

    byte_tokenizer().save(tmp_path / "tokenizer")
    (tmp_path / "a.jsonl").write_text('{"text": "一段文字"}\n', encoding="utf-8")
    (tmp_path / "b.jsonl").write_text("", encoding="utf-8")
    stats = ["data", "stats", "--json", "--tokenizer", str(tmp_path / "tokenizer")]
    assert main([*stats, str(tmp_path / "a.jsonl"), str(tmp_path / "b.jsonl")]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["documents"] for row in rows] == [1, 0]
    assert main([*stats, str(tmp_path / "b.jsonl")]) == 2
    assert "the data set is empty" in capsys.readouterr().err
    train = ["tokenizer", "train", "--vocab-size", "300", "--out", str(tmp_path / "made")]
    files = [str(tmp_path / "a.jsonl"), str(tmp_path / "b.jsonl")]
    assert main([*train, "--held-out-share", "0", *files]) == 0
