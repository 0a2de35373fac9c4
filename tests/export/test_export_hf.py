"""The Hugging Face export against what transformers and peft themselves read and write."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from export_doubles import learnt, random_checkpoint, save_adapters
from safetensors.torch import load_file, save_file

import minimind
from minimind.cli import main
from minimind.config import RopeScaling
from minimind.errors import CheckpointError, ExportError, VerificationError
from minimind.export import hf
from minimind.export.hf import export_hf
from minimind.export.verify import our_greedy

transformers = pytest.importorskip("transformers")
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()

SHAPES = {
    "plain": {},
    "head of its own": {"tie_word_embeddings": False},
    "spare rows": {"vocab_size": 300},
    "linear": {"rope_scaling": RopeScaling(rope_type="linear", factor=4.0)},
    "dynamic": {
        "rope_scaling": RopeScaling(
            rope_type="dynamic", factor=2.0, original_max_position_embeddings=64
        )
    },
    "yarn": {
        "rope_scaling": RopeScaling(
            rope_type="yarn", factor=2.0, original_max_position_embeddings=32
        )
    },
    "windows": {
        "sliding_window": 16,
        "layer_types": ("full_attention", "sliding_attention"),
    },
}
CONTENTS = {
    "README.md", "chat_template.jinja", "config.json", "generation_config.json", "manifest.json",
    "model.safetensors", "tokenizer.json", "tokenizer_config.json",
}  # fmt: skip


def described(path: Path) -> dict:
    """The names, shapes and dtypes in a safetensors file."""
    return {name: (tuple(t.shape), t.dtype) for name, t in load_file(path).items()}


def fields(path: Path) -> dict:
    """A JSON file of a model directory without the version of whoever wrote it."""
    values = json.loads(path.read_text(encoding="utf-8"))
    values.pop("transformers_version", None)
    return values


@pytest.mark.parametrize("shape", SHAPES)
def test_it_is_what_save_pretrained_of_the_same_model_writes(shape, tmp_path):
    """What vLLM reads is what transformers writes: same keys, shapes, dtypes, config fields."""
    checkpoint = random_checkpoint(tmp_path / "checkpoint", **SHAPES[shape])
    summary = export_hf(checkpoint, tmp_path / "out", dtype="bf16")
    assert all(check.passed for check in summary.checks)
    assert {path.name for path in (tmp_path / "out").iterdir()} == CONTENTS == set(summary.files)
    theirs = tmp_path / "theirs"
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    model.save_pretrained(theirs)
    transformers.AutoTokenizer.from_pretrained(tmp_path / "out").save_pretrained(theirs)
    assert described(tmp_path / "out/model.safetensors") == described(theirs / "model.safetensors")
    for name in ("config.json", "generation_config.json"):
        assert fields(tmp_path / "out" / name) == fields(theirs / name)
    assert fields(tmp_path / "out/config.json")["dtype"] == "bfloat16"
    ours, saved = (fields(folder / "tokenizer.json") for folder in (tmp_path / "out", theirs))
    assert ours["model"]["vocab"] == saved["model"]["vocab"]
    assert ours["added_tokens"] == saved["added_tokens"]
    assert (tmp_path / "out/chat_template.jinja").read_text() == (
        theirs / "chat_template.jinja"
    ).read_text()


@pytest.mark.parametrize(("dtype", "wanted"), hf.DTYPES.items())
def test_a_learnt_model_continues_the_same_in_transformers(dtype, wanted, tmp_path):
    checkpoint, rest = learnt()
    summary = export_hf(checkpoint, tmp_path / "out", dtype=dtype)
    assert [check.name for check in summary.checks] == [
        "weights", "config", "token ids", "chat template", "logits", "greedy continuation",
    ]  # fmt: skip
    tensors = load_file(tmp_path / "out/model.safetensors")
    assert {tensor.dtype for tensor in tensors.values()} == {wanted}
    assert summary.parameters == sum(t.numel() for t in tensors.values())
    # Not through the export's own checks: a prompt of the held-out text, in both programs.
    model, tokenizer = minimind.load(tmp_path / "out", dtype=torch.float32)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "out", dtype=torch.float32
    )
    prompt = tokenizer.encode(rest)[:40]
    ids = torch.tensor([prompt])
    with torch.no_grad():
        assert (theirs(ids).logits - model(ids).logits).abs().max() < 1e-3
    continued = theirs.generate(ids, max_new_tokens=200, do_sample=False, eos_token_id=None)
    assert our_greedy(model, prompt, ()) == continued[0, 40:].tolist()


@pytest.mark.parametrize("rslora", [False, True])
def test_adapters_kept_give_the_same_logits_in_peft(rslora, tmp_path):
    peft = pytest.importorskip("peft")
    base = random_checkpoint(tmp_path / "base")
    model = save_adapters(base, tmp_path / "lora", rslora=rslora)
    summary = export_hf(tmp_path / "lora", tmp_path / "out", dtype="fp32", keep_adapter=True)
    assert summary.format == "peft adapter"
    assert summary.tensors == 2 * 7 * 2
    theirs = peft.AutoPeftModelForCausalLM.from_pretrained(tmp_path / "out")
    ids = torch.randint(272, (2, 30), generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        expected, plain = model(ids).logits, minimind.load(base)[0](ids).logits
        assert (theirs(input_ids=ids).logits - expected).abs().max() < 1e-3
        assert (plain - expected).abs().max() > 0.1
        assert torch.equal(minimind.load(tmp_path / "out")[0](ids).logits, expected)
    export_hf(
        tmp_path / "lora", tmp_path / "named", keep_adapter=True, base_name="me/base", verify=False
    )
    assert fields(tmp_path / "named/adapter_config.json")["base_model_name_or_path"] == "me/base"
    assert str(base) not in (tmp_path / "named/README.md").read_text(encoding="utf-8")


def test_adapters_merged_are_a_whole_model(tmp_path):
    base = random_checkpoint(tmp_path / "base")
    model = save_adapters(base, tmp_path / "lora")
    summary = export_hf(tmp_path / "lora", tmp_path / "out", dtype="fp32")
    assert summary.notes == ("LoRA adapters were merged into the weights",)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    ids = torch.randint(272, (2, 30), generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        assert (theirs(ids).logits - model(ids).logits).abs().max() < 1e-3
    with pytest.raises(ExportError, match="is a whole model, not adapters"):
        export_hf(tmp_path / "out", tmp_path / "again", keep_adapter=True)


def test_an_export_that_transformers_reads_otherwise_is_not_kept(tmp_path, monkeypatch):
    checkpoint = random_checkpoint(tmp_path / "checkpoint")
    right = hf.hf_config

    def wrong(config, tokenizer, *, dtype):
        return right(replace(config, rope_theta=500.0), tokenizer, dtype=dtype)

    monkeypatch.setattr(hf, "hf_config", wrong)
    with pytest.raises(VerificationError, match=r"was not written.*logits: largest difference"):
        export_hf(checkpoint, tmp_path / "out")
    assert main(["export", "hf", str(checkpoint), str(tmp_path / "out")]) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]
    summary = export_hf(checkpoint, tmp_path / "out", verify=False)
    assert summary.checks == ()


def test_what_can_not_be_exported_says_so_and_leaves_nothing(tmp_path):
    checkpoint = random_checkpoint(tmp_path / "checkpoint")
    out = tmp_path / "out"
    with pytest.raises(ExportError, match="Did you mean 'bf16'"):
        export_hf(checkpoint, out, dtype="bf61")
    with pytest.raises(CheckpointError, match="there is no checkpoint or run"):
        export_hf(tmp_path / "nowhere", out)
    weights = checkpoint / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-100])
    with pytest.raises(CheckpointError, match="is truncated"):
        export_hf(checkpoint, out)
    (checkpoint / "manifest.json").unlink()  # as in a directory that others made
    with pytest.raises(CheckpointError, match="truncated or corrupted"):
        export_hf(checkpoint, out)
    weights.write_bytes(whole)
    tensors = load_file(weights)
    tensors["model.layers.0.mlp.up_proj.weight"][0, 0] = 1e6
    save_file(tensors, weights, metadata={"format": "pt"})
    with pytest.raises(ExportError, match=r"layers\.0\.mlp\.up_proj.*doesn't fit.*1e\+06"):
        export_hf(checkpoint, out, dtype="fp16")
    values = json.loads((checkpoint / "config.json").read_text())
    (checkpoint / "config.json").write_text(json.dumps(values | {"vocab_size": 200}))
    with pytest.raises(minimind.MiniMindError, match="272 tokens, the model 200"):
        export_hf(checkpoint, out)
    (checkpoint / "config.json").write_text(json.dumps(values | {"model_type": "gpt_neox"}))
    with pytest.raises(CheckpointError, match="gpt_neox"):
        export_hf(checkpoint, out)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


def test_only_an_export_is_replaced_and_only_by_force(tmp_path):
    checkpoint = random_checkpoint(tmp_path / "checkpoint")
    out = tmp_path / "out"
    leftover = tmp_path / ".out.minimind-export-1"
    leftover.mkdir()
    export_hf(checkpoint, out, dtype="fp32", verify=False)
    assert not leftover.exists()
    with pytest.raises(ExportError, match=r"is there already.*--force"):
        export_hf(checkpoint, out, dtype="bf16", verify=False)
    export_hf(checkpoint, out, dtype="bf16", verify=False, force=True)
    assert fields(out / "config.json")["dtype"] == "bfloat16"
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis.txt").write_text("x")
    with pytest.raises(ExportError, match="no export made"):
        export_hf(checkpoint, precious, verify=False, force=True)
    assert (precious / "thesis.txt").exists()


def test_the_card_tells_the_data_their_licences_and_the_scores(tmp_path):
    run = tmp_path / "sft"
    step = random_checkpoint(run / "checkpoints/step-000010")
    source = {"source": "idioms", "licence": "MIT", "upstream": "pwxcoo"}
    entry = {"path": "a/b.jsonl", "bytes": 5, "sha256": "f" * 64, "licences": ["MIT"],
             "sources": [source]}  # fmt: skip
    ledger = {"data": [entry], "from": {}, "used": {"documents": 3, "tokens": 70}}
    (run / "ledger.json").write_text(json.dumps(ledger))
    export_hf(run, tmp_path / "out", licence="apache-2.0", name="小模型", verify=False)
    card = (tmp_path / "out/README.md").read_text(encoding="utf-8")
    assert card.startswith("---\nlicense: apache-2.0\n")
    assert "# 小模型" in card
    assert "| b.jsonl | 5 | ffffffffffff | MIT | idioms (MIT, pwxcoo) |" in card
    assert "3 documents, 70 tokens" in card
    assert "the run has not been evaluated" in card
    measure = {"value": 0.25, "low": 0.2, "high": 0.3, "n": 40, "unit": "questions", "chance": 0.25}
    (tmp_path / "eval.json").write_text(json.dumps({"results": {"sft": {"idioms": measure}}}))
    export_hf(step, tmp_path / "out", verify=False, force=True)
    card = (tmp_path / "out/README.md").read_text(encoding="utf-8")
    assert "| idioms | 0.250 | 0.200 to 0.300 | 40 questions | 0.250 |" in card
    assert "license: other" in card
    assert "not chosen" in card
    export_hf(tmp_path / "out", tmp_path / "copy", verify=False)
    assert "not recorded" in (tmp_path / "copy/README.md").read_text(encoding="utf-8")


def test_the_command_prints_a_summary_for_people_and_for_programs(tmp_path, capsys):
    checkpoint = random_checkpoint(tmp_path / "checkpoint")
    argv = ["export", "hf", str(checkpoint), str(tmp_path / "out"), "--dtype", "fp32"]
    assert main(argv) == 0
    shown = capsys.readouterr().out
    assert "hf fp32" in shown
    assert "ok greedy continuation" in shown
    assert main([*argv, "--force", "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["bytes"] == sum(p.stat().st_size for p in (tmp_path / "out").iterdir())
    assert all(check["passed"] for check in summary["checks"])
    assert main(argv) == 2
    assert main(["export", "ggfu", "a", "b"]) == 2
    assert "Did you mean 'gguf'" in capsys.readouterr().err
