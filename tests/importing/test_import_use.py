"""What an imported model is for: chat, fine-tuning, adapters, measuring; and the command line."""

import json
from dataclasses import replace

import pytest
import torch
import transformers
from importing_doubles import byte_level_tokenizer, sentencepiece_tokenizer, write_foreign

from minimind import checkpoint
from minimind.cli import main
from minimind.config import InitConfig, LoraConfig, ModelConfig
from minimind.data.document import Document
from minimind.eval.bits_per_byte import bits_per_byte
from minimind.importing import import_model
from minimind.inference import Conversation, SamplingParams
from minimind.train.run import run
from run_doubles import run_directory, tiny_run, write_rows

MAKERS = {"qwen2": byte_level_tokenizer, "llama": sentencepiece_tokenizer}


@pytest.fixture(params=MAKERS)
def imported(request, tmp_path):
    tokenizer = MAKERS[request.param]()
    write_foreign(tmp_path / "foreign", request.param, tokenizer=tokenizer)
    import_model(tmp_path / "foreign", tmp_path / "ours")
    return tmp_path / "ours"


@pytest.mark.parametrize("lora", [None, LoraConfig(rank=2)])
def test_two_steps_of_sft_change_the_weights_and_transformers_reads_the_result(imported, lora):
    where = imported.parent
    write_rows(where / "chat.jsonl", "chat", rows=60)
    config = tiny_run(where, kind="chat", steps=2)
    config = replace(
        config,
        model=ModelConfig(),
        init=InitConfig(checkpoint=str(imported)),
        lora=lora,
        data=replace(config.data, sequence_length=128),
        save=replace(config.save, every=2),
    )
    run(config)
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


def test_the_commands_import_and_generate_and_a_conversation_runs(tmp_path, capsys):
    write_foreign(tmp_path / "foreign", "qwen2")
    out = str(tmp_path / "ours")
    assert main(["import", str(tmp_path / "foreign"), out, "--dtype", "bf16"]) == 0
    shown = capsys.readouterr().out
    assert "qwen2" in shown
    assert "<|im_end|>" in shown
    assert "bfloat16" in shown
    flags = ["--temperature", "0", "--max-new-tokens", "5", "--json"]
    assert main(["generate", out, "the cat", "--chat", *flags]) == 0
    assert json.loads(capsys.readouterr().out)["tokens"] <= 5
    model, tokenizer = checkpoint.load(out)
    chat = Conversation(model, tokenizer)
    params = SamplingParams(temperature=0, max_new_tokens=5, stop_ids=tokenizer.stop_ids)
    first = "".join(chat.reply("the cat", params))
    assert first == chat.messages[-1]["content"]
    assert "<|" not in "".join(chat.reply("and 12?", params))


def test_a_wrong_place_is_told_in_one_line(tmp_path, capsys):
    assert main(["import", str(tmp_path / "nowhere"), str(tmp_path / "ours")]) == 2
    said = capsys.readouterr().err
    assert "nowhere" in said
    assert "Traceback" not in said
