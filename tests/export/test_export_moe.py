"""A mixture of experts as its readers get it: transformers, llama.cpp, fewer bits; refusals."""

from __future__ import annotations

from pathlib import Path

import gguf as gguf_package
import pytest
import torch
from export_doubles import random_checkpoint

import minimind
from minimind import checkpoint
from minimind.checkpoint.quantize import quantize_checkpoint
from minimind.config import MoEConfig
from minimind.errors import ConfigError, ExportError
from minimind.export.gguf import export_gguf
from minimind.export.hf import export_hf
from minimind.export.onnx import export_onnx
from minimind.importing import import_model
from minimind.model.upcycle import upcycle

MOE = MoEConfig(num_experts=4, moe_intermediate_size=64)


@pytest.fixture(scope="module")
def mixture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random, with experts that differ little: a choice that rounding flips changes little.

    (`test_every_shape_gives_our_logits_in_llama_cpp` has experts that differ in everything.)
    """
    where = tmp_path_factory.mktemp("mixture")
    dense = random_checkpoint(where / "dense", hidden_size=64, intermediate_size=64)
    model, tokenizer = minimind.load(dense)
    torch.manual_seed(2)
    return checkpoint.save(
        where / "mixture", model=upcycle(model, MOE, noise=0.05), tokenizer=tokenizer
    )


@pytest.mark.parametrize("kind", ["f32", "q8_0", "q4_k_m"])
def test_llama_cpp_computes_what_we_do(kind: str, mixture: Path, tmp_path: Path) -> None:
    summary = export_gguf(mixture, tmp_path / "m.gguf", type=kind)
    assert [check.name for check in summary.checks][-2:] == ["logits", "greedy continuation"]
    assert all(check.passed for check in summary.checks)
    reader = gguf_package.GGUFReader(tmp_path / "m.gguf")
    fields = {name: field.contents() for name, field in reader.fields.items()}
    assert fields["general.architecture"] == "qwen3moe"
    assert (fields["qwen3moe.expert_count"], fields["qwen3moe.expert_used_count"]) == (4, 2)
    assert fields["qwen3moe.expert_feed_forward_length"] == 64
    types = {tensor.name: tensor.tensor_type.name for tensor in reader.tensors}
    assert types["blk.0.ffn_gate_inp.weight"] == "F32"
    wanted = {"f32": "F32", "q8_0": "Q8_0", "q4_k_m": "Q5_0"}[kind]  # rows of 64: no K-blocks
    assert types["blk.0.ffn_gate_exps.weight"] == wanted


def test_transformers_reads_an_export_and_its_own_copy_comes_back(
    mixture: Path, tmp_path: Path
) -> None:
    summary = export_hf(mixture, tmp_path / "hf", dtype="fp32")
    assert all(check.passed for check in summary.checks)
    import_model(tmp_path / "hf", tmp_path / "back")
    ours, tokenizer = minimind.load(mixture)
    back, _ = minimind.load(tmp_path / "back")
    assert back.config == ours.config
    ids = torch.tensor([tokenizer.encode("从前有座山，山里有座庙。")])
    with torch.no_grad():
        assert torch.equal(back(ids).logits, ours(ids).logits)


@pytest.mark.parametrize(("method", "most"), [("int8", 0.08), ("int4", 0.35)])
def test_experts_of_few_bits(method: str, most: float, mixture: Path, tmp_path: Path) -> None:
    """Rounding moves the logits a little; a saved checkpoint gives the same ones again."""
    quantize_checkpoint(mixture, tmp_path / "q", method=method, dtype=torch.float32)
    plain, tokenizer = minimind.load(mixture)
    rounded, _ = minimind.load(tmp_path / "q")
    names = set(rounded.state_dict())
    part = "weight" if method == "int8" else "packed"
    assert f"model.layers.1.mlp.experts.3.down_proj.{part}" in names
    assert "model.layers.1.mlp.gate.weight" in names  # the router keeps all its bits
    ids = torch.tensor([tokenizer.encode("庙里有个老和尚在讲故事。")])
    with torch.no_grad():
        logits, expected = rounded(ids).logits, plain(ids).logits
    assert 0 < (logits - expected).norm() / expected.norm() < most
    size = sum(file.stat().st_size for file in (tmp_path / "q").glob("*.safetensors"))
    assert size < 0.45 * (mixture / "model.safetensors").stat().st_size
    with pytest.raises(ConfigError, match="quantised experts of a mixture can't be compiled"):
        rounded.set_compiled_decoding()


def test_what_cannot_be_said_elsewhere_is_refused(mixture: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="SparseMoE feed-forward: the ONNX export"):
        export_onnx(mixture, tmp_path / "onnx")
    unnormed = MoEConfig(num_experts=4, moe_intermediate_size=64, norm_topk_prob=False)
    other = random_checkpoint(tmp_path / "other", moe=unnormed, hidden_size=64)
    with pytest.raises(ExportError, match="norm_topk_prob = false"):
        export_gguf(other, tmp_path / "m.gguf", type="f32")
    with pytest.raises(ConfigError, match="bitsandbytes has no layer for the experts"):
        quantize_checkpoint(mixture, tmp_path / "q", method="bnb-int8")
