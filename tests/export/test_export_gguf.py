"""GGUF files in the real llama.cpp: every type, every shape, adapters, and what is refused."""

from __future__ import annotations

import math
import sys
from dataclasses import replace
from pathlib import Path

import gguf as gguf_package
import numpy as np
import pytest
import torch
from export_doubles import learnt, random_checkpoint, save_adapters

import minimind
from minimind.cli import main
from minimind.config import MoEConfig, RopeScaling
from minimind.errors import CheckpointError, ExportError, MissingExtraError, VerificationError
from minimind.export import gguf, gguf_metadata, gguf_types, llamacpp
from minimind.export.gguf import export_gguf
from minimind.export.gguf_adapter import export_gguf_adapter
from minimind.export.llamacpp import LlamaCpp
from minimind.export.verify import our_greedy, our_logits


def yarn(factor: float, trained: int) -> RopeScaling:
    return RopeScaling(rope_type="yarn", factor=factor, original_max_position_embeddings=trained)


SHAPES = {
    "plain": {},
    "head of its own": {"tie_word_embeddings": False},
    "spare rows": {"vocab_size": 300},
    "one key head": {"num_key_value_heads": 1, "head_dim": 16},
    "linear": {"rope_scaling": RopeScaling(rope_type="linear", factor=4.0)},
    "yarn": {"rope_scaling": yarn(2.0, 32), "rope_theta": 500.0},
    "yarn, far": {"rope_scaling": yarn(8.0, 64), "max_position_embeddings": 512},
    "experts": {"moe": MoEConfig(num_experts=4, moe_intermediate_size=32)},
    "one expert a token": {
        "moe": MoEConfig(num_experts=4, num_experts_per_tok=1, moe_intermediate_size=64)
    },
    "a window as long as the context": {"sliding_window": 64},
}


def perplexity(reader: LlamaCpp, ids: list[int], *, window: int = 96) -> float:
    """In llama.cpp, of the second half of each window."""
    total, count = 0.0, 0
    for start in range(0, len(ids) - window, window // 2):
        row = ids[start : start + window]
        logits = reader.logits(row)[window // 2 - 1 : -1]
        log_probs = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
        total -= log_probs[np.arange(window // 2), row[window // 2 :]].sum()
        count += window // 2
    return math.exp(total / count)


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_gives_our_logits_in_llama_cpp(shape, tmp_path):
    checkpoint = random_checkpoint(tmp_path / "checkpoint", **SHAPES[shape])
    summary = export_gguf(checkpoint, tmp_path / "m.gguf", type="f32")
    assert all(check.passed for check in summary.checks)
    model, _ = minimind.load(checkpoint)
    length = model.config.max_position_embeddings
    ids = torch.randint(272, (length,), generator=torch.Generator().manual_seed(3)).tolist()
    with LlamaCpp(tmp_path / "m.gguf") as reader:
        assert reader.n_ctx == length
        assert reader.vocab_size == model.config.vocab_size
        assert np.abs(reader.logits(ids) - our_logits(model, ids)).max() < 1e-3


@pytest.mark.parametrize("kind", gguf_types.FILE_TYPES)
def test_every_type_computes_what_our_model_does_on_its_rounded_weights(kind, tmp_path):
    checkpoint, _ = learnt()
    summary = export_gguf(checkpoint, tmp_path / "m.gguf", type=kind)
    assert [check.name for check in summary.checks] == [
        "tensors", "token ids", "logits", "greedy continuation",
    ]  # fmt: skip
    reader = gguf_package.GGUFReader(tmp_path / "m.gguf")
    fields = {name: field.contents() for name, field in reader.fields.items()}
    assert fields["general.file_type"] == gguf_types.FILE_TYPES[kind].number
    assert fields["general.architecture"] == "qwen3"
    assert fields["general.name"] == "learnt"
    assert fields["tokenizer.ggml.pre"] == "qwen2"
    assert fields["tokenizer.ggml.eos_token_id"] == 2
    assert fields["tokenizer.ggml.token_type"][:4] == [3, 3, 3, 4]
    assert "generation" not in fields["tokenizer.chat_template"].replace("generation_prompt", "")
    types = {tensor.name: tensor.tensor_type.name for tensor in reader.tensors}
    assert types["output_norm.weight"] == types["blk.0.attn_q_norm.weight"] == "F32"
    assert types["blk.1.attn_q.weight"] == gguf_types.FILE_TYPES[kind].base
    assert types["token_embd.weight"] == gguf_types.FILE_TYPES[kind].output
    assert "output.weight" not in types


@pytest.mark.parametrize("kind", ["f32", "f16"])
def test_200_greedy_tokens_are_ours_and_transformers(kind, tmp_path):
    transformers = pytest.importorskip("transformers")
    checkpoint, rest = learnt()
    export_gguf(checkpoint, tmp_path / "m.gguf", type=kind, verify=False)
    model, tokenizer = minimind.load(checkpoint)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(checkpoint)
    prompt = tokenizer.encode(rest)[:60]
    # Ours and transformers' run on past an end token; llama.cpp's ends there.
    ours = our_greedy(model, prompt, ())
    assert len(ours) == 200
    out = theirs.generate(
        torch.tensor([prompt]), max_new_tokens=200, do_sample=False, eos_token_id=None
    )
    assert out[0, 60:].tolist() == ours
    with LlamaCpp(tmp_path / "m.gguf") as reader:
        made = reader.greedy(prompt, max_new_tokens=200)
        read = reader.logits([*prompt, *ours])
    expected = our_logits(model, [*prompt, *ours])
    assert np.abs(read - expected).max() < (1e-3 if kind == "f32" else 0.05)
    if made != ours[: len(made)]:  # a first divergence is a tie within the rounding of f16
        at = next(i for i, (a, b) in enumerate(zip(made, ours, strict=False)) if a != b)
        row = expected[len(prompt) + at - 1]
        assert kind == "f16"
        assert row[ours[at]] - row[made[at]] < 0.1
    else:
        assert len(made) == 200 or ours[len(made)] in tokenizer.stop_ids


def test_perplexity_in_llama_cpp_stays_within_1_and_5_percent(tmp_path):
    checkpoint, rest = learnt()
    ids = minimind.Tokenizer.load(checkpoint).encode(rest)[:1600]
    measured = {}
    for kind in ("f32", "q8_0", "q4_k_m"):
        path = tmp_path / f"{kind}.gguf"
        export_gguf(checkpoint, path, type=kind, verify=False)
        with LlamaCpp(path) as reader:
            measured[kind] = perplexity(reader, ids)
    assert measured["f32"] < 640 / 3  # it learnt something
    assert abs(measured["q8_0"] / measured["f32"] - 1) < 0.01
    assert abs(measured["q4_k_m"] / measured["f32"] - 1) < 0.05


def test_k_quants_fall_back_where_rows_do_not_divide(tmp_path):
    checkpoint = random_checkpoint(tmp_path / "checkpoint", intermediate_size=40)
    summary = export_gguf(checkpoint, tmp_path / "m.gguf", type="q4_k_m")
    types = {t.name: t.tensor_type.name for t in gguf_package.GGUFReader(summary.path).tensors}
    assert types["blk.0.attn_q.weight"] == "Q5_0"
    assert types["token_embd.weight"] == "Q8_0"
    assert types["blk.0.ffn_down.weight"] == "F16"  # 40 columns: no block divides them
    assert "rows that q4_k_m's blocks don't divide" in summary.notes[0]
    with pytest.raises(ExportError, match="Did you mean 'q4_k_m'"):
        export_gguf(checkpoint, tmp_path / "x.gguf", type="q4_k")


def test_llama_cpp_mixture_rule():
    """16 layers: the first and last two and every third in between, as llama.cpp has it."""
    more = [n for n in range(16) if gguf_types.use_more_bits(n, 16)]
    assert more == [0, 1, 4, 7, 10, 13, 14, 15]


def test_quantiser_is_llama_cpps_and_agrees_with_the_gguf_package():
    values = np.random.default_rng(0).normal(size=(8, 256)).astype(np.float32)
    for name in ("Q8_0", "Q4_0", "Q5_0", "Q5_1"):
        kind = gguf_package.GGMLQuantizationType[name]
        made = gguf_package.quants.dequantize(llamacpp.quantise(values, int(kind)), kind)
        reference = gguf_package.quants.dequantize(gguf_package.quants.quantize(values, kind), kind)
        assert np.abs(made - reference).max() < 1e-6
    errors = {}
    for name in ("Q4_K", "Q5_K", "Q6_K"):
        kind = gguf_package.GGMLQuantizationType[name]
        made = gguf_package.quants.dequantize(llamacpp.quantise(values, int(kind)), kind)
        errors[name] = float(np.sqrt(((made - values) ** 2).mean()))
    assert 0 < errors["Q6_K"] < errors["Q5_K"] < errors["Q4_K"] < 0.1


@pytest.mark.parametrize("rslora", [False, True])
@pytest.mark.parametrize("kind", ["f32", "f16"])
def test_a_gguf_adapter_changes_the_output_as_merged_weights_do(kind, rslora, tmp_path):
    base = random_checkpoint(tmp_path / "base")
    model = save_adapters(base, tmp_path / "lora", rslora=rslora)
    export_gguf(base, tmp_path / "base.gguf", type="f32", verify=False)
    export_gguf(tmp_path / "lora", tmp_path / "merged.gguf", type="f32")
    summary = export_gguf_adapter(
        tmp_path / "lora", tmp_path / "lora.gguf", type=kind, base=tmp_path / "base.gguf"
    )
    assert summary.tensors == 2 * 7 * 2
    assert summary.files == ("lora.gguf", "lora.Modelfile")
    modelfile = (tmp_path / "lora.Modelfile").read_text(encoding="utf-8")
    assert modelfile.startswith("FROM ./base.gguf\nADAPTER ./lora.gguf\n")
    ids = torch.randint(272, (40,), generator=torch.Generator().manual_seed(3)).tolist()
    with LlamaCpp(tmp_path / "base.gguf") as reader, LlamaCpp(tmp_path / "merged.gguf") as merged:
        plain = reader.logits(ids)
        reader.use_adapter(tmp_path / "lora.gguf")
        adapted, wanted = reader.logits(ids), merged.logits(ids)
    bound = 1e-3 if kind == "f32" else 0.02 * np.abs(wanted - plain).max()
    assert np.abs(wanted - plain).max() > 0.1
    assert np.abs(adapted - wanted).max() < bound
    assert np.abs(wanted - our_logits(model, ids)).max() < 1e-3


def test_adapters_of_no_adapter_of_small_types_and_without_base(tmp_path):
    base = random_checkpoint(tmp_path / "base")
    with pytest.raises(ExportError, match="is a whole model, not adapters"):
        export_gguf_adapter(base, tmp_path / "a.gguf")
    with pytest.raises(ExportError, match="an adapter can be f32, f16, bf16"):
        export_gguf_adapter(base, tmp_path / "a.gguf", type="q8_0")
    with pytest.raises(ExportError, match="there is no such file"):
        export_gguf_adapter(base, tmp_path / "a.gguf", base=tmp_path / "no.gguf")
    assert main(["export", "gguf", str(base), str(tmp_path / "a.gguf"), "--base", "x"]) == 2


@pytest.mark.parametrize(
    ("shape", "reason"),
    [
        ({"sliding_window": 16}, "sliding_window = 16 is shorter than the context of 64"),
        (
            {"rope_scaling": RopeScaling(
                rope_type="dynamic", factor=2.0, original_max_position_embeddings=64)},
            "'dynamic' changes with the length",
        ),
        ({"attention_bias": True}, "attention_bias = true"),
        ({"model_type": "llama"}, "model_type 'llama' is not exported"),
    ],
)  # fmt: skip
def test_what_llama_cpp_can_not_express_is_refused_with_the_reason(shape, reason, tmp_path):
    checkpoint = random_checkpoint(tmp_path / "checkpoint", **shape)
    with pytest.raises(ExportError, match=reason):
        export_gguf(checkpoint, tmp_path / "m.gguf", type="f32")
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


def test_a_file_that_llama_cpp_reads_otherwise_is_not_kept(tmp_path, monkeypatch):
    """Faults that a wrong converter makes: a wrong theta, swapped matrices, wrong token order."""
    checkpoint = random_checkpoint(tmp_path / "checkpoint")
    out = tmp_path / "m.gguf"
    right_shape, right_names = gguf_metadata._write_shape, gguf.gguf_tensors

    def wrong_theta(writer, config):
        right_shape(writer, replace(config, rope_theta=500.0))

    def swapped(config, state):
        named = right_names(config, state)
        gate, up = "blk.0.ffn_gate.weight", "blk.0.ffn_up.weight"
        if {gate, up} <= named.keys() and not named[gate].is_meta:
            named[gate], named[up] = named[up], named[gate]
        return named

    with monkeypatch.context() as patch:
        patch.setattr(gguf_metadata, "_write_shape", wrong_theta)
        with pytest.raises(VerificationError, match=r"was not written.*logits: largest difference"):
            export_gguf(checkpoint, out, type="f32")
        assert main(["export", "gguf", str(checkpoint), str(out), "--type", "f16"]) == 1
    with monkeypatch.context() as patch:
        patch.setattr(gguf_metadata, "PRE_TOKENIZER", "default")
        with pytest.raises(VerificationError, match=r"token ids: \d+ of \d+ hard strings"):
            export_gguf(learnt()[0], out, type="f32")  # bare bytes have nothing to cut wrongly
    with monkeypatch.context() as patch:
        patch.setattr(gguf, "gguf_tensors", swapped)
        written = export_gguf(checkpoint, out, type="f32", verify=False)
    model, _ = minimind.load(checkpoint)
    with LlamaCpp(Path(written.path)) as reader:
        assert np.abs(reader.logits([0, 50, 90]) - our_logits(model, [0, 50, 90])).max() > 1e-2


def test_damage_wrong_names_and_files_that_are_there(tmp_path):
    checkpoint = random_checkpoint(tmp_path / "checkpoint")
    with pytest.raises(ExportError, match=r"ends in \.gguf"):
        export_gguf(checkpoint, tmp_path / "model.bin")
    weights = checkpoint / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:1000])
    with pytest.raises(CheckpointError, match="truncated"):
        export_gguf(checkpoint, tmp_path / "m.gguf")
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]
    weights.write_bytes(whole)
    export_gguf(checkpoint, tmp_path / "m.gguf", verify=False)
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoint", "m.gguf", "m.Modelfile"}
    with pytest.raises(ExportError, match="is there already"):
        export_gguf(checkpoint, tmp_path / "m.gguf", verify=False)
    (tmp_path / "m.gguf").write_bytes((tmp_path / "m.gguf").read_bytes()[:5000])
    with pytest.raises(CheckpointError, match=r"llama\.cpp can't load"):
        LlamaCpp(tmp_path / "m.gguf")


def test_without_xllamacpp_floats_and_q8_0_can_still_be_written(tmp_path, monkeypatch):
    checkpoint = random_checkpoint(tmp_path / "checkpoint")
    llamacpp.library.cache_clear()
    monkeypatch.setitem(sys.modules, "xllamacpp", None)
    for kind in ("f32", "q4_k_m"):
        with pytest.raises(MissingExtraError, match=r"pip install 'minimind\[gguf\]'"):
            export_gguf(checkpoint, tmp_path / "m.gguf", type=kind)
    with pytest.raises(MissingExtraError):
        export_gguf(checkpoint, tmp_path / "m.gguf", type="q4_k_m", verify=False)
    summary = export_gguf(checkpoint, tmp_path / "m.gguf", type="q8_0", verify=False)
    assert summary.checks == ()
    monkeypatch.undo()
    llamacpp.library.cache_clear()
    with LlamaCpp(tmp_path / "m.gguf") as reader:
        assert reader.vocab_size == 272


def test_another_llama_cpp_is_an_error_and_not_a_crash(monkeypatch):
    llamacpp.library.cache_clear()
    monkeypatch.setitem(llamacpp._CONTEXT_DEFAULTS, 40, 12345)
    with pytest.raises(MissingExtraError, match=r"pip install xllamacpp==2026"):
        llamacpp.library()
    llamacpp.library.cache_clear()


def test_generation_marks_are_for_transformers_only():
    marked = "a{%- generation %}b{{- x }}{%- endgeneration -%}c{% if add_generation_prompt %}d"
    expected = "ab{{- x }}c{% if add_generation_prompt %}d"
    assert gguf_metadata.without_generation_marks(marked) == expected
