"""`minimind quantize`: directories that work, a table that is right, errors that say what to do."""

import dataclasses
import json

import pytest

import minimind
from minimind import checkpoint, cli
from minimind.config import InitConfig
from minimind.data.document import Document
from minimind.eval.bits_per_byte import bits_per_byte
from minimind.eval.held_out import split_text
from minimind.eval.quantisation import document_bits, held_out_text
from minimind.eval.statistics import bootstrap_ratio
from minimind.train.run import run
from run_doubles import tiny_run, write_rows


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of a few steps on text of which a fifth is held out."""
    where = tmp_path_factory.mktemp("quantize")
    settings = tiny_run(where)
    data = dataclasses.replace(settings.data, validation_share=0.2)
    return run(dataclasses.replace(settings, data=data)).directory


def quantize(capsys, *args):
    try:
        code = cli.main(["quantize", *map(str, args)])
    except SystemExit as exit_:
        code = exit_.code
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_the_table_and_the_directories(trained, tmp_path, capsys):
    out = tmp_path / "q"
    code, printed, err = quantize(capsys, trained, out, "--json")
    assert (code, err) == (0, "")
    values = json.loads(printed)
    assert values == json.loads((out / "quantize.json").read_text(encoding="utf-8"))
    rows = {row["name"]: row for row in values["weights"]}
    assert list(rows) == ["fp32", "bf16", "int8", "int4"]

    original, tokenizer = minimind.load(trained)
    documents = held_out_text(checkpoint.resolve(trained))
    plain = document_bits(original, tokenizer, documents)
    for name in ("int8", "int4"):
        row, path = rows[name], out / name
        assert row["path"] == str(path)
        assert row["disk_bytes"] == (path / "model.safetensors").stat().st_size
        assert row["memory_bytes"] < rows["bf16"]["memory_bytes"] < rows["fp32"]["memory_bytes"]
        assert row["speed"]["eager"] > 0
        assert row["speed"]["compiled"] is None
        model, _ = minimind.load(str(path))
        bits = document_bits(model, tokenizer, documents)
        assert row["change"] == pytest.approx(sum(bits) / sum(plain) - 1, abs=1e-9)
        low, high = bootstrap_ratio(bits, plain)
        assert (row["change_low"], row["change_high"]) == pytest.approx((low - 1, high - 1))
        assert row["change_low"] <= row["change"] <= row["change_high"]
    assert abs(rows["int8"]["change"]) < 0.005
    assert abs(rows["int4"]["change"]) < 0.04
    assert rows["fp32"]["change"] is None

    lines = (out / "quantize.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 2 + 4
    assert lines[4].startswith("| int8 | ")


def test_bits_are_those_of_bits_per_byte(trained):
    model, tokenizer = minimind.load(trained)
    documents = [*held_out_text(checkpoint.resolve(trained)), Document("长" * 90, "long", {})]
    expected = bits_per_byte(model, tokenizer, documents)
    bits = document_bits(model, tokenizer, documents)
    assert sum(bits) == pytest.approx(expected.details["bits"], rel=1e-5)


def test_the_other_verbs_take_what_was_written(trained, tmp_path, capsys):
    code, printed, _ = quantize(
        capsys, trained, tmp_path / "q", "--method", "int4", "--group-size", "32", "--no-measure"
    )
    assert code == 0
    assert "int4" in printed
    assert cli.main(["generate", str(tmp_path / "q/int4"), "春", "--max-new-tokens", "4"]) == 0
    assert capsys.readouterr().out.startswith("春")
    assert checkpoint.load(tmp_path / "q/int4")[0].quantization.group_size == 32
    rows = json.loads((tmp_path / "q/quantize.json").read_text(encoding="utf-8"))["weights"]
    assert [row["bits_per_byte"] for row in rows] == [None] * 3
    assert rows[-1]["disk_bytes"] > 0


def test_bitsandbytes_from_the_command_line(tmp_path, capsys):
    pytest.importorskip("bitsandbytes")
    settings = tiny_run(tmp_path)
    model = dataclasses.replace(
        settings.model, hidden_size=64, intermediate_size=128, head_dim=16, num_attention_heads=4
    )
    directory = run(dataclasses.replace(settings, model=model)).directory
    text = tmp_path / "held_out.txt"
    text.write_text("春夏秋冬山水花鸟\n人天地日月风云\n" * 5, encoding="utf-8")
    code, _, _ = quantize(
        capsys, directory, tmp_path / "q", "--method", "bnb-int8", "bnb-nf4", "--text", text
    )
    assert code == 0
    values = json.loads((tmp_path / "q/quantize.json").read_text(encoding="utf-8"))
    assert [row["name"] for row in values["weights"]] == ["fp32", "bf16", "bnb-int8", "bnb-nf4"]
    assert all(abs(row["change"]) < 0.05 for row in values["weights"][1:])


def test_what_is_there_is_replaced_only_when_asked(trained, tmp_path, capsys):
    out = tmp_path / "q"
    command = (trained, out, "--method", "int8", "--no-measure")
    assert quantize(capsys, *command)[0] == 0
    code, _, err = quantize(capsys, *command)
    assert code == 2
    assert "--force" in err
    assert str(out / "int8") in "".join(err.split("\n"))
    assert quantize(capsys, *command, "--force")[0] == 0


def test_a_chat_run_is_measured_on_the_text_run_that_it_started_from(trained, tmp_path):
    chat = tiny_run(tmp_path, kind="chat", name="chat")
    start = InitConfig(checkpoint=str(trained))
    directory = run(dataclasses.replace(chat, init=start)).directory
    found = held_out_text(checkpoint.resolve(directory))
    assert found == held_out_text(checkpoint.resolve(trained))
    text = tiny_run(trained.parent.parent).data.train
    everything = split_text(text, share=1.0).held_out
    assert 0 < len(found) < len(everything) / 2


def test_without_held_out_text_the_way_out_is_named(trained, tmp_path, capsys):
    model, tokenizer = minimind.load(trained)
    lone = checkpoint.save(tmp_path / "lone", model=model, tokenizer=tokenizer)
    code, _, err = quantize(capsys, lone, tmp_path / "q")
    assert code == 2
    assert "--text FILE" in err
    assert "--no-measure" in err
    assert not (tmp_path / "q").exists()
    rows = write_rows(tmp_path / "rows.jsonl", "text", rows=30)
    command = (lone, tmp_path / "q", "--text", rows, "--documents", "5", "--method", "int8")
    assert quantize(capsys, *command)[0] == 0


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (("--group-size", "7"), "group_size = 7"),
        (("--documents", "0"), "--documents 0"),
        (("--method", "int5"), "int5"),
    ],
)
def test_wrong_flags_write_nothing(trained, tmp_path, capsys, flags, named):
    code, _, err = quantize(capsys, trained, tmp_path / "q", *flags)
    assert code == 2
    assert named in err
    assert not (tmp_path / "q").exists()
