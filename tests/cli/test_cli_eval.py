"""`minimind eval` as a person runs it."""

import json

import pytest
import tokenizers
import torch

from doubles import byte_tokenizer, tiny_config
from exam_doubles import write_rows
from minimind import checkpoint
from minimind.cli import main
from minimind.eval.results import Evaluation
from minimind.model import CausalLM


@pytest.fixture
def runs(tmp_path):
    """Two runs of random weights and a benchmark."""
    for name, seed in (("one", 0), ("two", 1)):
        torch.manual_seed(seed)
        model = CausalLM(tiny_config(max_position_embeddings=300))
        checkpoint.save(tmp_path / name / "checkpoints" / "step-000001", model=model,
                        tokenizer=byte_tokenizer())  # fmt: skip
    write_rows(tmp_path / "cmmlu.jsonl")
    return tmp_path


def test_two_checkpoints_are_measured_compared_and_written(runs, capsys):
    data = str(runs / "cmmlu.jsonl")
    arguments = [str(runs / "one"), str(runs / "two"), "--tasks", "cmmlu", "--data", data]
    assert main(["eval", *arguments, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert set(printed["results"]) == {"one", "two"}
    letter = printed["results"]["two"]["cmmlu_letter"]
    assert letter["n"] == 24
    assert letter["chance"] == 0.25
    assert 0 <= letter["low"] <= letter["value"] <= letter["high"] <= 1
    assert "chance" in letter["verdict"]
    compared = printed["compared_with_the_first"]["two"]["cmmlu_letter"]
    assert compared["n"] == 24
    assert 0 < compared["p"] <= 1
    for name in ("one", "two"):
        written = Evaluation.load(runs / name / "eval.json")
        measure = written.get(name, "cmmlu_cloze")
        assert measure is not None
        assert measure.n == 24
        assert (runs / name / "eval" / name / "cmmlu_cloze.jsonl").is_file()


def test_the_table_is_for_people_and_marks_what_is_cited(runs, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    data = str(runs / "cmmlu.jsonl")
    arguments = [f"mine={runs / 'one'}", "--tasks", "cmmlu", "--data", data, "--limit", "5"]
    assert main(["eval", *arguments]) == 0
    printed = capsys.readouterr().out
    for words in ("mine", "95 % interval", "5 of 24", "not distinguishable", "(cited)"):
        assert words in " ".join(printed.split())


def test_lm_eval_tasks_are_read_from_local_files(runs, capsys):
    pytest.importorskip("lm_eval")
    write_rows(runs / "cmmlu.jsonl", questions=6, subjects=("anatomy",))
    arguments = [str(runs / "one"), "--tasks", "lm_eval:cmmlu_anatomy", "cmmlu",
                 "--data", str(runs / "cmmlu.jsonl"), "--json"]  # fmt: skip
    assert main(["eval", *arguments]) == 0
    own = json.loads(capsys.readouterr().out)["results"]["one"]
    assert own["cmmlu_anatomy_acc"]["n"] == own["cmmlu_letter"]["n"] == 6
    assert own["cmmlu_anatomy_acc"]["chance"] == 0.25


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--tasks", "cmlu"], "--tasks cmlu: there is no such task. Did you mean 'cmmlu'?"),
        (["--tasks", "lm_eval:ceval-valid_accountan"], "Did you mean 'ceval-valid_accountant'?"),
        (["--tasks", "cmmlu", "--data", "absent"], "--data absent: there is no such file"),
        (["--tasks", "cmmlu", "--limit", "0"], "--limit 0: must be at least 1"),
        (["--tasks", "cmmlu", "--training-data", "absent"], "--training-data absent"),
    ],
)
def test_bad_input_says_what_to_change(runs, capsys, arguments, message):
    if not any(argument == "--data" for argument in arguments):
        arguments = [*arguments, "--data", str(runs / "cmmlu.jsonl")]
    assert main(["eval", str(runs / "one"), *arguments]) == 2
    assert message in capsys.readouterr().err


def test_a_model_without_a_chat_template_is_refused_with_what_to_do(runs, capsys):
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(
        vocab_size=300, n_positions=256, n_embd=16, n_layer=1, n_head=2, bos_token_id=0,
        eos_token_id=0,
    )  # fmt: skip
    directory = runs / "gpt2"
    transformers.GPT2LMHeadModel(config).save_pretrained(directory)
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=257, special_tokens=["<|endoftext|>"], initial_alphabet=alphabet
    )
    tokenizer.train_from_iterator([], trainer)
    tokenizer.save(str(directory / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|endoftext|>"}
    (directory / "tokenizer_config.json").write_text(json.dumps(settings))
    base = [str(directory), "--tasks", "cmmlu", "--data", str(runs / "cmmlu.jsonl")]
    assert main(["eval", *base, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["results"]["gpt2"]["cmmlu_cloze"]["n"] == 24
    assert main(["eval", *base, "--chat"]) == 2
    assert "gpt2 has no chat template" in capsys.readouterr().err


def test_no_checkpoint_is_a_sentence(capsys):
    assert main(["eval"]) == 2
    assert "give a checkpoint" in capsys.readouterr().err
    assert main(["eval", "--list"]) == 0
    assert "cmmlu" in capsys.readouterr().out
