"""Quantised checkpoints: whole round trips, transformers' side, and what is refused."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

import minimind
from doubles import byte_tokenizer, tiny_config
from minimind import checkpoint, cli
from minimind.checkpoint.quantize import quantize_checkpoint
from minimind.config import LoraConfig, RunConfig
from minimind.errors import CheckpointError
from minimind.inference import SamplingParams
from minimind.model import CausalLM, inject_lora
from minimind.model.quantized import QuantizedMatrix
from run_doubles import write_rows

METHODS = ("int8", "int4", "bnb-int8", "bnb-nf4")
IDS = torch.arange(20, 80).view(2, 30)


def saved_plain(path, **changes):
    torch.manual_seed(0)
    shape = {"hidden_size": 64, "intermediate_size": 128, "head_dim": 16, "initializer_range": 0.2}
    model = CausalLM(tiny_config(**shape, **changes)).eval()
    return checkpoint.save(path, model=model, tokenizer=byte_tokenizer())


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return saved_plain(tmp_path_factory.mktemp("plain") / "original")


@pytest.fixture(scope="module", params=METHODS)
def method(request):
    if request.param.startswith("bnb"):
        pytest.importorskip("bitsandbytes")
    return request.param


@pytest.fixture(scope="module")
def quantised(plain, method):
    return quantize_checkpoint(plain, plain.parent / method, method=method, dtype=torch.float32)


@pytest.fixture
def int8(plain, tmp_path):
    return quantize_checkpoint(plain, tmp_path / "int8", method="int8")


def logits(model, ids=IDS):
    with torch.no_grad():
        return model(ids).logits


def test_a_round_trip_changes_no_bit(quantised, method, tmp_path):
    model, tokenizer = checkpoint.load(quantised)
    again = checkpoint.save(tmp_path / "again", model=model, tokenizer=tokenizer)
    for name in ("model.safetensors", "config.json", "tokenizer.json"):
        assert (again / name).read_bytes() == (quantised / name).read_bytes()
    reloaded, _ = checkpoint.load(again)
    assert torch.equal(logits(model), logits(reloaded))
    assert model.quantization is not None
    assert model.quantization.method == method
    assert not model.training


def test_it_generates_scores_and_is_near_the_original(quantised, method, plain):
    model, tokenizer = minimind.load(str(quantised))
    original, _ = minimind.load(str(plain))
    error = (logits(model) - logits(original)).norm() / logits(original).norm()
    assert error < (0.05 if method.endswith("int8") else 0.5)
    text = minimind.generate(
        model, tokenizer, "abc", params=SamplingParams(max_new_tokens=8, seed=1)
    )
    assert text != ""
    total, _ = minimind.Engine(model).loglikelihood([1, 2], [3, 4])
    assert total < 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_dtype_of_the_activations_is_chosen_at_load(quantised, dtype):
    model, _ = checkpoint.load(quantised, dtype=dtype)
    assert logits(model).dtype == dtype
    as_saved, _ = checkpoint.load(quantised)
    error = (logits(model).float() - logits(as_saved)).norm() / logits(as_saved).norm()
    assert error < 0.06


def test_an_untied_head_and_other_families(tmp_path):
    for model_type in ("qwen2", "llama"):
        source = saved_plain(
            tmp_path / model_type, tie_word_embeddings=False, model_type=model_type
        )
        for way in ("int8", "int4"):
            made = quantize_checkpoint(source, tmp_path / f"{model_type}-{way}", method=way)
            model, _ = checkpoint.load(made)
            assert isinstance(model.lm_head, QuantizedMatrix)
            assert logits(model).isfinite().all()
            assert model.config == checkpoint.load(source)[0].config


@pytest.mark.parametrize("way", ["bnb-int8", "bnb-nf4"])
def test_transformers_reads_bitsandbytes_ones_and_we_read_its(way, plain, tmp_path):
    pytest.importorskip("bitsandbytes")
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    ours = quantize_checkpoint(plain, tmp_path / way, method=way, dtype=torch.float32)
    model, tokenizer = checkpoint.load(ours)
    theirs = AutoModelForCausalLM.from_pretrained(ours)
    assert type(theirs.model.layers[0].mlp.up_proj) is type(model.model.layers[0].mlp.up_proj)
    # int8 rounds activations too, which turns differences of fp32 into whole steps.
    near = 0.01 if way == "bnb-nf4" else 0.02
    difference = (logits(theirs) - logits(model)).norm() / logits(model).norm()
    assert difference < near

    options = (
        {"load_in_8bit": True}
        if way == "bnb-int8"
        else {
            "load_in_4bit": True,
            "bnb_4bit_quant_type": "nf4",
            "bnb_4bit_compute_dtype": torch.bfloat16,
        }
    )
    made = AutoModelForCausalLM.from_pretrained(
        plain, quantization_config=BitsAndBytesConfig(**options), device_map="cpu"
    )
    made.save_pretrained(tmp_path / "theirs")
    tokenizer.save(tmp_path / "theirs")
    read, _ = checkpoint.load(tmp_path / "theirs")
    assert read.quantization.method == way
    names = load_file(ours / "model.safetensors").keys()
    assert names == load_file(tmp_path / "theirs/model.safetensors").keys()
    assert (logits(made) - logits(read)).norm() / logits(read).norm() < near


def test_transformers_refuses_ours(int8):
    from transformers import AutoModelForCausalLM

    with pytest.raises(ValueError, match="minimind-quantized-qwen3"):
        AutoModelForCausalLM.from_pretrained(int8)


def test_adapters_are_merged_first(plain, tmp_path):
    model, tokenizer = checkpoint.load(plain)
    run = RunConfig(model=model.config, lora=LoraConfig(rank=4))
    inject_lora(model, run.lora)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    adapters = checkpoint.save(
        tmp_path / "lora", model=model, tokenizer=tokenizer, run=run, base=plain
    )
    expected = logits(model)
    made = quantize_checkpoint(adapters, tmp_path / "int8", method="int8", dtype=torch.float32)
    found = logits(checkpoint.load(made)[0])
    assert (found - expected).norm() / expected.norm() < 0.03
    assert (logits(checkpoint.load(plain)[0]) - expected).norm() / expected.norm() > 0.1


def test_what_needs_plain_weights_names_the_original(plain, int8, tmp_path, capsys):
    rows = write_rows(tmp_path / "chat.jsonl", "chat", rows=20)
    commands = {
        "can't be trained": [
            "train", "sft", "nano", "--init.checkpoint", str(int8), "--data.train", str(rows),
            "--out", str(tmp_path / "runs"), "--train.steps", "1",
        ],
        "can't be exported": ["export", "hf", str(int8), str(tmp_path / "hf")],
        "can't be quantised again": ["quantize", str(int8), str(tmp_path / "twice")],
        "minimind-quantized-qwen3": ["import", str(int8), str(tmp_path / "in")],
    }  # fmt: skip
    for message, command in commands.items():
        assert cli.main(command) == 2
        error = " ".join(capsys.readouterr().err.split())
        assert message in error
        assert str(plain) in error or command[0] == "import"
    assert not any((tmp_path / name).exists() for name in ("hf", "twice", "in", "runs"))


def test_a_lora_run_on_a_quantised_base_is_refused(int8, tmp_path, capsys):
    rows = write_rows(tmp_path / "chat.jsonl", "chat", rows=20)
    command = [
        "train", "lora", "nano", "--init.checkpoint", str(int8), "--data.train", str(rows),
        "--out", str(tmp_path / "runs"), "--train.steps", "1",
    ]  # fmt: skip
    assert cli.main(command) == 2
    assert "with adapters or without" in " ".join(capsys.readouterr().err.split())


def test_the_original_is_found_after_the_tree_has_moved(plain, tmp_path):
    shutil.copytree(plain, tmp_path / "tree/original")
    quantize_checkpoint(tmp_path / "tree/original", tmp_path / "tree/int8", method="int8")
    (tmp_path / "tree").rename(tmp_path / "moved")
    assert checkpoint.original_of(tmp_path / "moved/int8") == str(tmp_path / "moved/original")
    (tmp_path / "moved/int8/original.json").unlink()
    assert "made from" in checkpoint.original_of(tmp_path / "moved/int8")


def edited(directory, change):
    """Apply `change` to config.json; without a manifest, as a directory of another's has none."""
    (directory / "manifest.json").unlink()
    config = json.loads((directory / "config.json").read_text())
    change(config)
    (directory / "config.json").write_text(json.dumps(config))
    return directory


@pytest.mark.parametrize(
    "foreign",
    [
        {"quant_method": "gptq", "bits": 4},
        {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "fp4"},
        {"quant_method": "minimind", "method": "int4", "version": 1},
        {"quant_method": "minimind", "method": "int8", "version": 2},
        {"quant_method": "minimind", "method": "int3", "version": 1},
        "int8",
        {},
    ],
)
def test_a_foreign_or_damaged_configuration_is_named(foreign, int8):
    directory = edited(int8, lambda config: config.update(quantization_config=foreign))
    with pytest.raises(CheckpointError, match=r"quantization_config is .*Take the unquantised"):
        checkpoint.load(directory)


def test_tensors_that_do_not_fit_are_named(plain, int8, tmp_path):
    tensors = load_file(int8 / "model.safetensors")
    key = "model.layers.0.mlp.up_proj"
    (int8 / "manifest.json").unlink()

    def load_with(**changes):
        state = {k: t for k, t in (tensors | changes).items() if t is not None}
        save_file(state, int8 / "model.safetensors", metadata={"format": "pt"})
        return checkpoint.load(int8)

    with pytest.raises(CheckpointError, match=f"missing {key}.scale"):
        load_with(**{f"{key}.scale": None})
    with pytest.raises(CheckpointError, match=r"up_proj.weight is torch.float32"):
        load_with(**{f"{key}.weight": tensors[f"{key}.weight"].float()})
    with pytest.raises(CheckpointError, match=r"up_proj.weight is \(64, 128\)"):
        load_with(**{f"{key}.weight": tensors[f"{key}.weight"].T.contiguous()})
    load_with()
    # The configuration of int8 over plain weights, and none over those of int8.
    shutil.copy(plain / "model.safetensors", int8 / "model.safetensors")
    with pytest.raises(CheckpointError, match="doesn't fit its configuration"):
        checkpoint.load(int8)


def test_a_damaged_bitsandbytes_file_is_named(plain, tmp_path):
    pytest.importorskip("bitsandbytes")
    for way, part in (("bnb-int8", "SCB"), ("bnb-nf4", "weight.absmax")):
        directory = quantize_checkpoint(plain, tmp_path / way, method=way)
        (directory / "manifest.json").unlink()
        tensors = load_file(directory / "model.safetensors")
        del tensors[f"model.layers.1.mlp.gate_proj.{part}"]
        save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(CheckpointError, match=r"model.layers.1.mlp.gate_proj is not a matrix"):
            checkpoint.load(directory)


def test_truncation_is_found_by_the_manifest(int8):
    path = int8 / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="truncated"):
        checkpoint.load(int8)
