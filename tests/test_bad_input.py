"""Wrong input: each kind is refused with a message that says where it is and what to do."""

import json
import resource
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from doubles import byte_tokenizer
from minimind import checkpoint, cli
from minimind.config import LoraConfig
from minimind.errors import CheckpointError, ConfigError, DataError, TokenizerError
from minimind.tokenizer import train_tokenizer
from minimind.train.run import run
from run_doubles import curve, following, run_directory, tiny_run, write_settings


def train(*argv: object) -> int:
    return cli.main(["train", *map(str, argv)])


def test_an_unknown_key_in_a_preset_is_exit_code_2(tmp_path, capsys):
    path = tmp_path / "mine.toml"
    path.write_text("[optim]\nlearning_rate = 1e-3\n")
    assert train("pretrain", path) == 2
    assert f"{path}:2: unknown key 'optim.learning_rate' = 0.001" in capsys.readouterr().err


def test_a_wrong_type_in_a_preset_is_exit_code_2(tmp_path, capsys):
    path = tmp_path / "mine.toml"
    path.write_text('[train]\nsteps = "100"\n')
    assert train("pretrain", path) == 2
    assert 'train.steps = "100": expected a whole number' in capsys.readouterr().err


def test_no_stage_and_an_unknown_flag(capsys):
    assert train() == 2
    assert "usage: minimind train PRESET" in capsys.readouterr().err
    assert train("pretrain", "--optim.lrr", "1") == 2
    assert "Did you mean '--optim.lr'?" in capsys.readouterr().err


def test_a_missing_data_file(tmp_path, capsys):
    settings = write_settings(tiny_run(tmp_path), tmp_path / "run.toml")
    assert train(settings, "--data.train", tmp_path / "texts.jsonl") == 2
    error = capsys.readouterr().err
    assert f"{tmp_path}/texts.jsonl is not there" in error
    assert "text.jsonl" in error
    assert not (tmp_path / "runs").exists()


def test_no_data_at_all(tmp_path):
    config = tiny_run(tmp_path)
    with pytest.raises(DataError, match=r"set data\.train"):
        run(replace(config, data=replace(config.data, train=())))


@pytest.mark.parametrize("content", ["", "\n\n", '{"text": ""}\n', "no json\n"])
@pytest.mark.parametrize("length", ["steps", "epochs"])
def test_an_empty_data_set(content, length, tmp_path):
    config = tiny_run(tmp_path)
    Path(config.data.train[0]).write_text(content)
    train_config = replace(config.train, steps=None, epochs=None) if length == "epochs" else None
    if train_config is not None:
        config = replace(config, train=replace(train_config, epochs=1.0))
    with pytest.raises(DataError, match=r"text\.jsonl"):
        run(config)


def test_broken_lines_are_kept_with_their_number_and_the_run_goes_on(tmp_path):
    config = tiny_run(tmp_path, steps=30)
    data = Path(config.data.train[0])
    lines = data.read_text(encoding="utf-8").splitlines(keepends=True)
    lines[4] = '{"text": "half a li\n'
    lines[7] = '{"title": "no text"}\n'
    data.write_text("".join(lines), encoding="utf-8")
    run(config)
    assert curve(run_directory(config))[-1]["step"] == 30
    path = run_directory(config) / "rejects.jsonl"
    rejects = {r["line"]: r for r in map(json.loads, path.read_text().splitlines())}
    assert sorted(rejects) == [5, 8]
    assert rejects[5]["file"] == str(data)
    assert "not JSON" in rejects[5]["reason"]
    assert rejects[5]["raw"] == '{"text": "half a li'


def test_a_conversation_with_nothing_to_learn_is_kept_in_the_rejects(tmp_path):
    config = tiny_run(tmp_path, kind="chat", steps=4)
    data = Path(config.data.train[0])
    asked = {"conversations": [{"role": "user", "content": "有人吗？"}]}
    rest = data.read_text(encoding="utf-8")
    data.write_text(json.dumps(asked, ensure_ascii=False) + "\n" + rest, encoding="utf-8")
    run(config)
    (reject,) = map(json.loads, (run_directory(config) / "rejects.jsonl").read_text().splitlines())
    assert reject["line"] == 1
    data.write_text(json.dumps(asked) + "\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"chat\.jsonl"):
        run(replace(config, name="nothing"))


def test_a_tokenizer_that_does_not_fit_the_model(tmp_path):
    config = tiny_run(tmp_path)
    with pytest.raises(TokenizerError, match=r"272 tokens.* = 300.*--model\.vocab-size 272"):
        run(replace(config, model=replace(config.model, vocab_size=300)))


def test_a_tokenizer_that_is_not_the_checkpoints(tmp_path):
    first = tiny_run(tmp_path, steps=2)
    run(first)
    other = tmp_path / "other"
    other.mkdir()
    train_tokenizer(["春天的山水" * 20], vocab_size=272 + 2).save(other)
    config = following(first, kind="text", name="second")
    with pytest.raises(TokenizerError, match=r"leave init\.tokenizer out"):
        run(replace(config, init=replace(config.init, tokenizer=str(other))))
    assert byte_tokenizer().vocab_size == 272


def test_a_shape_that_is_not_the_checkpoints(tmp_path):
    first = tiny_run(tmp_path, steps=2)
    run(first)
    config = following(first, kind="text", name="second")
    with pytest.raises(ConfigError, match=r"model\.hidden_size = 64, the checkpoint has 32"):
        run(replace(config, model=replace(config.model, hidden_size=64)))


def test_rows_longer_than_the_context(tmp_path):
    config = tiny_run(tmp_path)
    with pytest.raises(ConfigError, match=r"128 is longer than the model's context of 64"):
        run(replace(config, data=replace(config.data, sequence_length=128)))


def test_a_run_that_is_there_already(tmp_path):
    config = tiny_run(tmp_path, steps=1)
    run(config)
    with pytest.raises(ConfigError, match="add --resume to continue it, or choose another --name"):
        run(config)


def test_stages_without_the_model_that_they_need(tmp_path):
    config = tiny_run(tmp_path, kind="preference")
    with pytest.raises(ConfigError, match=r"--init\.checkpoint"):
        run(replace(config, objective=replace(config.objective, kind="dpo")))
    with pytest.raises(ConfigError, match=r"--objective\.teacher"):
        run(replace(config, objective=replace(config.objective, kind="distill")))
    with pytest.raises(ConfigError, match=r"\[lora\] needs a base"):
        run(replace(config, lora=LoraConfig()))
    with pytest.raises(ConfigError, match="how long"):
        run(replace(config, train=replace(config.train, steps=None)))


def test_a_start_that_is_not_there(tmp_path):
    first = tiny_run(tmp_path, steps=1, name="pretrain")
    run(first)
    config = following(replace(first, name="pretain"), kind="text", name="second")
    with pytest.raises(CheckpointError, match="Did you mean 'pretrain'"):
        run(config)


def test_adapters_on_adapters(tmp_path):
    first = tiny_run(tmp_path, steps=1)
    run(first)
    lora = replace(following(first, kind="text", name="lora"), lora=LoraConfig(rank=2))
    run(lora)
    with pytest.raises(CheckpointError, match="adapters on adapters"):
        run(replace(following(lora, kind="text", name="again"), lora=LoraConfig(rank=2)))


def test_the_disk_fills_while_a_run_saves(tmp_path):
    """This process may write no file as large as the weights: the OSError of a full quota."""
    config = tiny_run(tmp_path, steps=8)
    directory = run_directory(config)
    run(config)
    expected = curve(directory)
    shutil.rmtree(checkpoint.resolve(directory))
    settings = write_settings(config, tmp_path / "run.toml")
    limited = subprocess.run(
        [sys.executable, "-m", "minimind", "train", str(settings), "--resume"],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000)),
        capture_output=True,
        text=True,
    )
    assert limited.returncode == 2
    assert "step-000008 could not be saved" in limited.stderr
    assert "--resume" in limited.stderr
    assert checkpoint.resolve(directory).name == "step-000006"
    run(config, resume=True)
    assert curve(directory) == expected
