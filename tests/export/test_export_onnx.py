"""ONNX exports, against onnxruntime and transformers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from doubles import byte_tokenizer, tiny_config
from minimind import checkpoint
from minimind.cli import export_onnx as verb
from minimind.config import LoraConfig, ModelConfig, RopeScaling, RunConfig
from minimind.errors import (
    CheckpointError,
    ConfigError,
    ExportError,
    TokenizerError,
    VerificationError,
)
from minimind.export import onnx as exporter
from minimind.export import onnx_verify
from minimind.export.common import Summary
from minimind.export.onnx import export_onnx
from minimind.export.onnx_session import OnnxSession
from minimind.export.onnx_verify import verify_file
from minimind.inference import Engine, SamplingParams
from minimind.model import CausalLM, inject_lora

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

LOUD = 0.2
"""Standard deviation of random weights: logits with a spread, as trained ones have."""


def save_model(where: Path, *, seed: int = 0, **changes: object) -> Path:
    torch.manual_seed(seed)
    config = tiny_config(**({"initializer_range": LOUD} | changes))
    return checkpoint.save(where, model=CausalLM(config), tokenizer=byte_tokenizer())


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Summary]:
    """A checkpoint, its export in all three dtypes, and the summary."""
    where = tmp_path_factory.mktemp("plain")
    source = save_model(where / "checkpoint")
    summary = export_onnx(source, where / "out", dtypes=("fp32", "fp16", "int8"))
    return source, where / "out", summary


def test_the_directory_is_what_transformers_js_and_optimum_look_for(
    plain: tuple[Path, Path, Summary],
) -> None:
    _, out, summary = plain
    found = {str(p.relative_to(out)) for p in out.rglob("*") if p.is_file()}
    assert found == {
        "config.json", "generation_config.json", "genai_config.json", "tokenizer.json",
        "tokenizer_config.json", "chat_template.jinja", "onnx/model.onnx",
        "onnx/model_fp16.onnx", "onnx/model_quantized.onnx",
    }  # fmt: skip
    assert all(check.passed for check in summary.checks)
    assert [check.name for check in summary.checks if "logits" in check.name] == [
        "fp32 logits", "fp16 logits", "int8 logits",
    ]  # fmt: skip
    chat = [{"role": "user", "content": "你好"}]
    rendered = AutoTokenizer.from_pretrained(out).apply_chat_template(
        chat, add_generation_prompt=True, return_dict=False
    )
    assert rendered == byte_tokenizer().render(chat, add_generation_prompt=True).ids


def test_inputs_and_outputs_have_the_names_and_axes_of_optimum(
    plain: tuple[Path, Path, Summary],
) -> None:
    _, out, _ = plain
    graph = onnx.load(out / "onnx/model.onnx").graph

    def axes(value: onnx.ValueInfoProto) -> list[str | int]:
        return [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]

    past, total = "past_sequence_length", "past_sequence_length + sequence_length"
    caches = [f"{layer}.{part}" for layer in range(2) for part in ("key", "value")]
    assert {value.name: axes(value) for value in graph.input} == {
        "input_ids": ["batch_size", "sequence_length"],
        "attention_mask": ["batch_size", total],
        "position_ids": ["batch_size", "sequence_length"],
        **{f"past_key_values.{cache}": ["batch_size", 2, past, 8] for cache in caches},
    }
    assert {value.name: axes(value) for value in graph.output} == {
        "logits": ["batch_size", "sequence_length", 272],
        **{f"present.{cache}": ["batch_size", 2, total, 8] for cache in caches},
    }


def test_weights_are_stored_once_and_nothing_of_this_machine(
    plain: tuple[Path, Path, Summary],
) -> None:
    source, out, summary = plain
    model, _ = checkpoint.load(source)
    numbers = sum(weight.numel() for weight in model.parameters())
    for name, width in (("model.onnx", 4), ("model_fp16.onnx", 2), ("model_quantized.onnx", 1)):
        graph = onnx.load(out / "onnx" / name).graph
        held = sum(len(onnx.numpy_helper.to_array(t).tobytes()) for t in graph.initializer)
        assert held < numbers * width * 1.35, name  # scales, zero points, fp32 norms, constants
        content = (out / "onnx" / name).read_bytes()
        assert str(Path.home()).encode() not in content
        assert b"site-packages" not in content
    # Equal tensors (norms that were never trained) are stored once.
    assert 0.98 * numbers < summary.parameters < 1.01 * numbers


@pytest.mark.parametrize(("name", "bound"), [("model.onnx", 1e-3), ("model_fp16.onnx", 0.05)])
def test_a_left_padded_batch_gives_the_logits_of_transformers(
    plain: tuple[Path, Path, Summary], name: str, bound: float
) -> None:
    source, out, _ = plain
    theirs = AutoModelForCausalLM.from_pretrained(source).eval()
    rows = [[5, 40, 90, 130, 200, 33, 71], [17, 260, 4], [99, 7]]
    ids = np.array([[0] * (7 - len(row)) + row for row in rows])
    mask = np.array([[0] * (7 - len(row)) + [1] * len(row) for row in rows])
    positions = (mask.cumsum(1) - 1).clip(min=0)
    session = OnnxSession(out / "onnx" / name)
    first, past = session.run(
        ids[:, :4], session.empty(3), mask_BS=mask[:, :4], positions=positions[:, :4]
    )
    second, _ = session.run(ids[:, 4:], past, mask_BS=mask, positions=positions[:, 4:])
    ours = np.concatenate((first, second), axis=1)
    assert np.isfinite(ours).all()
    for row, padded in zip(rows, ours, strict=True):
        with torch.no_grad():
            expected = theirs(torch.tensor([row])).logits[0].numpy()
        assert np.abs(padded[-len(row) :] - expected).max() < bound


def test_greedy_ids_are_those_of_the_engine(plain: tuple[Path, Path, Summary]) -> None:
    source, out, _ = plain
    model, tokenizer = checkpoint.load(source)
    prompt = tokenizer.encode("春眠不觉晓")
    params = SamplingParams(temperature=0.0, repetition_penalty=1.0, max_new_tokens=40)
    ours = Engine(model).generate([prompt], params)[0]
    assert OnnxSession(out / "onnx/model.onnx").greedy(prompt, steps=40) == ours


def test_onnxruntime_genai_reads_the_directory(plain: tuple[Path, Path, Summary]) -> None:
    genai = pytest.importorskip("onnxruntime_genai")
    source, out, _ = plain
    model, tokenizer = checkpoint.load(source)
    prompt = tokenizer.encode("春眠不觉晓")
    values = json.loads((out / "genai_config.json").read_text())
    assert values["model"]["decoder"]["filename"] == "onnx/model_quantized.onnx"
    values["model"]["decoder"]["filename"] = "onnx/model.onnx"
    (out / "genai_config.json").write_text(json.dumps(values))
    theirs = genai.Model(str(out))
    assert list(genai.Tokenizer(theirs).encode("春眠不觉晓")) == prompt
    settings = genai.GeneratorParams(theirs)
    settings.set_search_options(max_length=len(prompt) + 30, do_sample=False)
    generator = genai.Generator(theirs, settings)
    generator.append_tokens(np.array([prompt], np.int32))
    made = []
    while not generator.is_done():
        generator.generate_next_token()
        made.append(int(generator.get_next_tokens()[0]))
    params = SamplingParams(
        temperature=0.0, repetition_penalty=1.0, max_new_tokens=30, stop_ids=tokenizer.stop_ids
    )
    ours = Engine(model).generate([prompt], params)[0]
    assert [token for token in made if token not in tokenizer.stop_ids] == ours


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param(
            {
                "sliding_window": 5,
                "layer_types": ("sliding_attention", "full_attention"),
                "rope_scaling": RopeScaling(
                    rope_type="yarn", factor=4.0, original_max_position_embeddings=16
                ),
                "tie_word_embeddings": False,
            },
            id="window-yarn-untied",
        ),
        pytest.param(
            {
                "model_type": "qwen2",
                "num_key_value_heads": 4,
                "rope_scaling": RopeScaling(
                    rope_type="linear", factor=2.0, original_max_position_embeddings=32
                ),
            },
            id="qwen2-linear",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            {
                "model_type": "llama",
                "num_key_value_heads": 1,
                "rope_scaling": RopeScaling(
                    rope_type="dynamic", factor=2.0, original_max_position_embeddings=64
                ),
            },
            id="llama-dynamic",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_every_variant_of_the_model_is_expressed(
    tmp_path: Path, changes: dict[str, object]
) -> None:
    source = save_model(tmp_path / "checkpoint", **changes)
    summary = export_onnx(source, tmp_path / "out", dtypes=("fp32", "int8"))
    assert len(summary.checks) == 4
    assert all(check.passed for check in summary.checks)
    theirs = AutoModelForCausalLM.from_pretrained(source).eval()
    row = list(range(20, 50))  # six windows long
    logits, _ = (session := OnnxSession(tmp_path / "out/onnx/model.onnx")).run(
        np.array([row]), session.empty(1)
    )
    with torch.no_grad():
        assert np.abs(logits[0] - theirs(torch.tensor([row])).logits[0].numpy()).max() < 1e-3


def test_adapters_are_merged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = save_model(tmp_path / "base")
    model, tokenizer = checkpoint.load(base)
    lora = LoraConfig(rank=2, target_modules=("q_proj", "down_proj"))
    inject_lora(model, lora)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.3)
    checkpoint.save(
        tmp_path / "adapter", model=model, tokenizer=tokenizer, run=RunConfig(lora=lora), base=base
    )
    verb.main([str(tmp_path / "adapter"), str(tmp_path / "out"), "--no-verify"])
    assert "not verified" in capsys.readouterr().out
    logits, _ = (session := OnnxSession(tmp_path / "out/onnx/model.onnx")).run(
        np.array([[30, 31, 32, 33]]), session.empty(1)
    )
    with torch.no_grad():
        expected = model.eval()(torch.tensor([[30, 31, 32, 33]])).logits[0].numpy()
    assert np.abs(logits[0] - expected).max() < 1e-3


def test_another_model_does_not_pass(plain: tuple[Path, Path, Summary], tmp_path: Path) -> None:
    _, out, _ = plain
    other, tokenizer = checkpoint.load(save_model(tmp_path / "other", seed=1))
    for dtype, name in (("fp32", "model.onnx"), ("int8", "model_quantized.onnx")):
        checks = verify_file(out / "onnx" / name, dtype=dtype, model=other, tokenizer=tokenizer)
        assert not checks[0].passed


def test_an_export_that_is_not_exact_enough_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = save_model(tmp_path / "checkpoint", num_hidden_layers=1)
    impossible = onnx_verify.Tolerance(logits=0.0, relative=0.0, greedy=True)
    monkeypatch.setitem(onnx_verify.TOLERANCES, "fp32", impossible)
    with pytest.raises(VerificationError, match="fp32 logits: largest difference"):
        export_onnx(source, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint"]


def test_a_file_that_does_not_load_is_named(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"not a graph")
    with pytest.raises(VerificationError, match=r"onnxruntime can't load .*model.onnx"):
        OnnxSession(tmp_path / "model.onnx")


def test_the_verb_prints_json_and_a_summary(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = save_model(tmp_path / "checkpoint", num_hidden_layers=1)
    verb.main([str(source), str(tmp_path / "a"), "--json"])
    printed = capsys.readouterr()
    values = json.loads(printed.out)
    assert values["checks"][0]["figures"]["largest"] < 1e-3
    assert values["bytes"] == sum(p.stat().st_size for p in (tmp_path / "a").rglob("*.*"))
    assert "[1/4] read the checkpoint" in printed.err
    with pytest.raises(ExportError, match=r"is there already.*--force"):
        verb.main([str(source), str(tmp_path / "a")])


def test_bad_input_is_named_and_writes_nothing(tmp_path: Path) -> None:
    source = save_model(tmp_path / "checkpoint")
    with pytest.raises(ConfigError, match=r"--dtype fp31.*Did you mean 'fp32'"):
        export_onnx(source, tmp_path / "out", dtypes=("fp31",))
    with pytest.raises(CheckpointError, match="nowhere"):
        export_onnx(tmp_path / "nowhere", tmp_path / "out")
    damaged = tmp_path / "damaged"
    shutil.copytree(source, damaged)
    weights = damaged / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="truncated"):
        export_onnx(damaged, tmp_path / "out")
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years of work")
    with pytest.raises(ExportError, match="it is not deleted"):
        export_onnx(source, mine, force=True)
    assert (mine / "thesis.txt").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint", "damaged", "mine"]


def test_a_vocabulary_that_does_not_match_is_refused(tmp_path: Path) -> None:
    source = save_model(tmp_path / "checkpoint")
    config = json.loads((source / "config.json").read_text())
    (source / "manifest.json").unlink()
    (source / "config.json").write_text(json.dumps(config | {"vocab_size": 200}))
    with pytest.raises((TokenizerError, CheckpointError), match="200"):
        export_onnx(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_model_past_two_gigabytes_is_refused_with_the_way_out() -> None:
    with torch.device("meta"):
        large = CausalLM(
            ModelConfig(hidden_size=4096, intermediate_size=16384, num_hidden_layers=4)
        )
    with pytest.raises(ExportError, match=r"at most 2 GiB.*--dtype fp16 alone"):
        exporter._check_size(large, ("fp32",))
