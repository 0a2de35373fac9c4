"""What an imported model is for: chat, fine-tuning, adapters, measuring; and the command line."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
import transformers
from importing_doubles import byte_level_tokenizer, sentencepiece_tokenizer, write_foreign

from minimind import checkpoint
from minimind.config import InitConfig, LoraConfig
from minimind.data.document import Document
from minimind.eval.bits_per_byte import bits_per_byte
from minimind.importing import import_model
from minimind.train.run import train
from run_doubles import run_directory, tiny_run, write_rows

MAKERS = {"qwen2": byte_level_tokenizer, "llama": sentencepiece_tokenizer}


@pytest.fixture(params=MAKERS)
def imported(request, tmp_path):
    tokenizer = MAKERS[request.param]()
    write_foreign(tmp_path / "foreign", request.param, tokenizer=tokenizer)
    import_model(tmp_path / "foreign", tmp_path / "ours")
    return tmp_path / "ours"


def minimind(*argv, stdin=None):
    return subprocess.run(
        [sys.executable, "-m", "minimind", *map(str, argv)],
        capture_output=True, text=True, input=stdin,
    )  # fmt: skip


@pytest.mark.parametrize("lora", [None, LoraConfig(rank=2)])
def test_two_steps_of_sft_change_the_weights_and_transformers_reads_the_result(imported, lora):
    where = imported.parent
    write_rows(where / "chat.jsonl", "chat", rows=60)
    config = tiny_run(where, kind="chat", steps=2)
    config = replace(
        config,
        init=InitConfig(checkpoint=str(imported)),
        lora=lora,
        data=replace(config.data, sequence_length=128),
        save=replace(config.save, every=2),
    )
    train(config)
    saved = run_directory(config)
    before, _ = checkpoint.load(imported)
    after, tokenizer = checkpoint.load(saved)
    ids = torch.arange(30)[None]
    assert (before(ids).logits - after(ids).logits).abs().max() > 1e-4
    assert tokenizer.fingerprint() == checkpoint.load(imported)[1].fingerprint()
    if lora is None:
        directory = checkpoint.resolve(saved)
        theirs = transformers.AutoModelForCausalLM.from_pretrained(directory)
        assert (theirs(ids).logits - after(ids).logits).abs().max() < 1e-4
        assert theirs.generation_config.eos_token_id == list(tokenizer.stop_ids)


def test_bits_per_byte_are_those_of_transformers_losses(imported):
    model, tokenizer = checkpoint.load(imported)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(imported)
    texts = ["the cat sat on the mat", "从前有一座山"]
    nats = 0.0
    for text in texts:
        row = [tokenizer.document_start_id, *tokenizer.encode(text), tokenizer.endoftext_id]
        ids = torch.tensor([row])
        with torch.no_grad():
            nats += theirs(ids, labels=ids).loss.item() * (len(row) - 1)
    documents = [Document(text=text, id=text, meta={}) for text in texts]
    measured = bits_per_byte(model, tokenizer, documents).value
    size = sum(len(text.encode()) for text in texts)
    assert measured == pytest.approx(nats / torch.log(torch.tensor(2.0)).item() / size, rel=1e-4)


def test_the_commands_import_generate_and_chat(tmp_path):
    write_foreign(tmp_path / "foreign", "qwen2")
    done = minimind("import", tmp_path / "foreign", tmp_path / "ours", "--dtype", "bf16")
    assert done.returncode == 0, done.stderr
    assert "qwen2" in done.stdout
    assert "<|im_end|>" in done.stdout
    assert "bfloat16" in done.stdout
    flags = ("--temperature", "0", "--max-new-tokens", "5", "--json")
    answered = minimind("generate", tmp_path / "ours", "the cat", "--chat", *flags)
    assert answered.returncode == 0, answered.stderr
    assert json.loads(answered.stdout)["tokens"] <= 5
    chatted = minimind("chat", tmp_path / "ours", "--max-new-tokens", "5", stdin="the cat\n/exit\n")
    assert chatted.returncode == 0, chatted.stderr


def test_a_wrong_place_is_told_in_one_line(tmp_path):
    failed = minimind("import", tmp_path / "nowhere", tmp_path / "ours")
    assert failed.returncode == 2
    assert "nowhere" in failed.stderr
    assert "Traceback" not in failed.stderr
