"""`minimind tokenizer` as a person types it."""

from __future__ import annotations

import gzip
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

from minimind.cli import main
from minimind.cli.tokenizer_corpus import capped
from minimind.data.document import is_held_out
from minimind.tokenizer import Tokenizer

TEXTS = [f"第{i}篇：今天天气很好，我们学习机器学习 hello world。" for i in range(400)]


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    rows = [json.dumps({"text": text}, ensure_ascii=False) for text in TEXTS]
    folder = tmp_path / "corpus"
    folder.mkdir()
    with gzip.open(folder / "a.jsonl.gz", "wt", encoding="utf-8") as file:
        file.write("\n".join(rows[:200]))
    (folder / "b.jsonl").write_text("\n".join([*rows[200:], "{broken"]), encoding="utf-8")
    (folder / "c.txt").write_text("一行一篇。\n又一行。\n" * 20, encoding="utf-8")
    messages = [{"role": "user", "content": "你好"}, {"role": "assistant", "content": "好的"}]
    (folder / "d.jsonl").write_text(json.dumps({"messages": messages}), encoding="utf-8")
    return folder


def test_train_show_report(corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out, plain = tmp_path / "out", tmp_path / "plain"
    train = ["tokenizer", "train", str(corpus), "--vocab-size", "400", "--held-out-share", "0.1"]
    assert main([*train, "--out", str(out)]) == 0
    shown = capsys.readouterr()
    assert Tokenizer.load(out).fingerprint() in shown.out.replace("\n", "")
    assert "documents" in shown.err
    assert "b.jsonl:201: not JSON" in shown.err.replace("\n", "")
    assert main([*train, "--out", str(plain), "--no-jieba"]) == 0
    assert Tokenizer.load(plain).fingerprint() != Tokenizer.load(out).fingerprint()
    capsys.readouterr()

    command = ["tokenizer", "report", str(corpus / "b.jsonl"), "--held-out-share", "0.1"]
    assert main([*command, "--tokenizer", str(out), str(plain), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    held = [text for text in TEXTS[200:] if is_held_out(text, 0.1)]
    tokens = sum(len(Tokenizer.load(out).encode(text)) for text in held)
    assert [row["tokenizer"] for row in rows] == [str(out), str(plain)]
    assert (rows[0]["documents"], rows[0]["tokens"]) == (len(held), tokens)
    assert rows[0]["characters_per_token"] == pytest.approx(sum(map(len, held)) / tokens)
    assert main(command) == 0
    assert "char/token" in capsys.readouterr().out


def test_show_marks_half_characters(capsys: pytest.CaptureFixture) -> None:
    assert main(["tokenizer", "show"]) == 0
    shown = capsys.readouterr().out
    assert "12,000 tokens" in shown
    assert "½ part of a character" in shown
    assert "<|im_end|>" in shown


def test_show_filters(capsys: pytest.CaptureFixture) -> None:
    assert main(["tokenizer", "show", "default", "--contains", "我们", "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert rows
    assert all("我们" in row["text"] for row in rows)
    assert all(bytes.fromhex(row["bytes"]).decode() == row["text"] for row in rows)
    assert main(["tokenizer", "show", "--sample", "7", "--json"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 7
    assert main(["tokenizer", "show", "--longest", "20", "--json"]) == 0
    lengths = [len(json.loads(x)["text"]) for x in capsys.readouterr().out.splitlines()]
    assert lengths == sorted(lengths, reverse=True)


def test_encode(capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    assert main(["tokenizer", "encode", "今天[red]好[/red] 龘\n"]) == 0
    shown = capsys.readouterr().out
    assert "今天" in shown
    assert "red" in shown
    assert "<e9 be>" in shown
    monkeypatch.setattr("sys.stdin", io.StringIO("你好"))
    assert main(["tokenizer", "encode", "-", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"ids": Tokenizer.load().encode("你好")}


def test_encode_chat_shows_the_mask(capsys: pytest.CaptureFixture) -> None:
    messages = [{"role": "user", "content": "你好"}, {"role": "assistant", "content": "很好"}]
    assert main(["tokenizer", "encode", json.dumps({"conversations": messages}), "--chat"]) == 0
    shown = capsys.readouterr().out
    learnt = shown[shown.index("⟦") : shown.index("⟧")]
    assert "好" in learnt
    assert "<|im_end|>" in learnt
    assert "user" not in learnt
    assert main(["tokenizer", "encode", json.dumps(messages), "--chat", "--json"]) == 0
    row = json.loads(capsys.readouterr().out)
    rendered = Tokenizer.load().render(messages)
    assert row == {"ids": rendered.ids, "mask": rendered.mask}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["encode", "{oops", "--chat"], "not JSON"),
        (["encode", '[{"role": "bot", "content": ""}]', "--chat"], "messages[0].role is 'bot'"),
        (["encode", "a", "--tokenizer", "nowhere"], "nowhere"),
        (["show", "nowhere"], "nowhere"),
        (["report"], "name at least one file"),
        (["report", "nowhere.jsonl"], "nowhere.jsonl"),
        (["train", "nowhere.jsonl", "--out", "x"], "nowhere.jsonl"),
    ],
)
def test_wrong_input_is_named(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture
) -> None:
    assert main(["tokenizer", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_no_file_exceeds_its_share() -> None:
    small, mid, large = Path("s"), Path("m"), Path("l")
    kept = capped({small: 10, mid: 100, large: 1_000}, max_share=0.5)
    assert kept[small] == 10
    assert kept[mid] == 100
    assert kept[large] == pytest.approx(110)
    assert kept[large] / sum(kept.values()) == pytest.approx(0.5)
    assert capped({small: 10, large: 1_000}, max_share=1 / 3)[large] == 1_000


def test_looking_at_a_vocabulary_imports_no_torch() -> None:
    code = "import sys; from minimind.cli import main; main(['tokenizer', 'encode', '好']); " \
        "sys.exit('torch' in sys.modules)"  # fmt: skip
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
