"""Foreign directories: transformers wrote them, and must agree with what we make of them."""

import json
from pathlib import Path

import pytest
import torch
import transformers
from importing_doubles import (
    foreign_model,
    write_foreign,
)

from minimind import checkpoint
from minimind.config import LoraConfig
from minimind.errors import CheckpointError, MiniMindError, TokenizerError
from minimind.importing import import_model
from minimind.inference import Engine, SamplingParams
from minimind.model import CausalLM, inject_lora, merge_lora

QWEN2_WINDOW = {"use_sliding_window": True, "sliding_window": 6, "max_window_layers": 1}
SHAPES = {
    "qwen3-tied": ("qwen3", {"tie_word_embeddings": True, "head_dim": 16}),
    "qwen3-biases": ("qwen3", {"attention_bias": True, "head_dim": 8}),
    "qwen2-untied": ("qwen2", {"tie_word_embeddings": False}),
    "qwen2-tied-window": ("qwen2", {"tie_word_embeddings": True} | QWEN2_WINDOW),
    "llama-untied": ("llama", {"tie_word_embeddings": False, "rms_norm_eps": 1e-5}),
    "llama-biases": ("llama", {"attention_bias": True, "tie_word_embeddings": True}),
    "llama-head-dim": ("llama", {"head_dim": 16, "rope_parameters": {
        "rope_type": "linear", "factor": 4.0, "rope_theta": 50_000.0}}),
    "qwen2-yarn": ("qwen2", {"rope_parameters": {
        "rope_type": "yarn", "factor": 2.0, "rope_theta": 10_000.0,
        "original_max_position_embeddings": 64}}),
}  # fmt: skip


def logits_of(model, ids):
    with torch.no_grad():
        return model(ids).logits


def some_ids(model, rows=2, length=40):
    torch.manual_seed(5)
    return torch.randint(model.config.vocab_size, (rows, length))


@pytest.mark.parametrize("name", SHAPES)
def test_logits_and_greedy_ids_are_theirs_and_the_checkpoint_is_what_it_was(name, tmp_path):
    kind, changes = SHAPES[name]
    theirs = write_foreign(tmp_path / "foreign", kind, **changes)
    import_model(tmp_path / "foreign", tmp_path / "ours")
    model, _ = checkpoint.load(tmp_path / "ours")
    assert model.config.model_type == kind
    ids = some_ids(theirs)
    assert (logits_of(model, ids) - logits_of(theirs, ids)).abs().max() < 1e-4

    prompt = ids[:1, :7]
    theirs.generation_config.eos_token_id = None
    expected = theirs.generate(prompt, max_new_tokens=20, do_sample=False)[0, 7:].tolist()
    params = SamplingParams(temperature=0, repetition_penalty=1, max_new_tokens=20)
    assert Engine(model).generate([prompt[0].tolist()], params)[0] == expected

    again, loading = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "ours", output_loading_info=True
    )
    assert type(again) is type(theirs)
    assert not loading["missing_keys"]
    assert not loading["unexpected_keys"]
    assert torch.equal(logits_of(again, ids), logits_of(theirs, ids))


def test_shards_a_pickle_and_one_file_give_the_same_tensors(tmp_path):
    theirs = write_foreign(tmp_path / "one", "llama")
    write_foreign(tmp_path / "shards", "llama", max_shard_size="20KB")
    assert len(list((tmp_path / "shards").glob("model-*.safetensors"))) > 2
    (tmp_path / "pickle").mkdir()
    for file in (tmp_path / "one").iterdir():
        if file.suffix != ".safetensors":
            (tmp_path / "pickle" / file.name).write_bytes(file.read_bytes())
    state = theirs.state_dict()
    # As transformers saved in 2023: frequencies among the weights.
    state["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(4)
    torch.save(state, tmp_path / "pickle/pytorch_model.bin")
    states = []
    for name in ("one", "shards", "pickle"):
        import_model(tmp_path / name, tmp_path / f"out-{name}")
        states.append(checkpoint.load(tmp_path / f"out-{name}")[0].state_dict())
    for other in states[1:]:
        assert other.keys() == states[0].keys()
        assert all(torch.equal(other[name], states[0][name]) for name in other)


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_dtype_is_the_one_asked_for(dtype, tmp_path):
    write_foreign(tmp_path / "foreign", "qwen2")
    assert import_model(tmp_path / "foreign", tmp_path / "o", dtype=dtype).dtype in str(
        {"bf16": torch.bfloat16, "fp16": torch.float16}[dtype]
    )
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "o")
    assert again.dtype == {"bf16": torch.bfloat16, "fp16": torch.float16}[dtype]


def test_a_transformers_4_config_with_theta_outside_is_read(tmp_path):
    theirs = write_foreign(tmp_path / "foreign", "llama")
    change_json(
        tmp_path / "foreign/config.json",
        lambda v: (v.pop("rope_parameters"), v.update(rope_theta=777.0, rope_scaling=None)),
    )
    import_model(tmp_path / "foreign", tmp_path / "ours")
    model, _ = checkpoint.load(tmp_path / "ours")
    assert model.config.rope_theta == 777.0
    reread = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "foreign")
    ids = some_ids(theirs)
    assert (logits_of(model, ids) - logits_of(reread, ids)).abs().max() < 1e-4


def test_lora_keeps_the_biases_of_qwen2(tmp_path):
    write_foreign(tmp_path / "foreign", "qwen2")
    import_model(tmp_path / "foreign", tmp_path / "ours")
    model, _ = checkpoint.load(tmp_path / "ours")
    ids = some_ids(model)
    before = logits_of(model, ids)
    names = set(model.state_dict())
    inject_lora(model, LoraConfig(rank=2))
    assert torch.equal(logits_of(model, ids), before)
    merge_lora(model)
    assert set(model.state_dict()) == names
    assert torch.equal(logits_of(model, ids), before)


def test_fresh_biases_are_zero():
    model = CausalLM(checkpoint.config_from_hf(foreign_model("qwen2", 50).config.to_dict()))
    biases = [weight for name, weight in model.named_parameters() if name.endswith("bias")]
    assert len(biases) == 6
    assert all((bias == 0).all() for bias in biases)


def change_json(path: Path, change) -> None:
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


def drop_a_shard(directory: Path) -> None:
    sorted(directory.glob("model-*.safetensors"))[1].unlink()


def truncate(directory: Path) -> None:
    shard = sorted(directory.glob("model-*.safetensors"))[0]
    shard.write_bytes(shard.read_bytes()[:-100])


def set_config(**changes):
    return lambda directory: change_json(directory / "config.json", lambda v: v.update(changes))


LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "rope_theta": 1e4, "low_freq_factor": 1.0,
          "high_freq_factor": 4.0, "original_max_position_embeddings": 64}  # fmt: skip
DAMAGES = {
    "another architecture": (set_config(model_type="mistral"), "mistral"),
    "llama3 scaling": (set_config(rope_parameters=LLAMA3), "llama3"),
    "partial rotation": (set_config(partial_rotary_factor=0.5), "partial_rotary_factor"),
    "quantised": (set_config(quantization_config={"quant_method": "gptq"}), "gptq"),
    "biases in the feed-forward": (set_config(mlp_bias=True), "mlp_bias"),
    "a missing shard": (drop_a_shard, "model-00002-of-"),
    "a truncated shard": (truncate, "truncated or corrupted"),
    "a tensor too many": (set_config(num_hidden_layers=1), "unexpected model.layers.1"),
    "a tensor too few": (set_config(num_hidden_layers=3), "missing model.layers.2"),
    "another vocabulary": (set_config(vocab_size=200), "tokens"),
    "another shape": (set_config(intermediate_size=64), "instead of"),
    "no tokenizer": (lambda d: (d / "tokenizer.json").unlink(), "tokenizer.json"),
    "no weights": (lambda d: [f.unlink() for f in d.glob("model*")], "no weights"),
}


@pytest.fixture(scope="module")
def sharded(tmp_path_factory):
    directory = tmp_path_factory.mktemp("sharded") / "foreign"
    write_foreign(directory, "llama", max_shard_size="20KB")
    return directory


@pytest.mark.parametrize("name", DAMAGES)
def test_what_is_wrong_is_named_and_nothing_is_written(name, sharded, tmp_path):
    damage, said = DAMAGES[name]
    foreign = tmp_path / "in/foreign"
    foreign.mkdir(parents=True)
    for file in sharded.iterdir():
        (foreign / file.name).write_bytes(file.read_bytes())
    damage(foreign)
    with pytest.raises(MiniMindError, match=said):
        import_model(foreign, tmp_path / "out/ours")
    assert not (tmp_path / "out").exists()


def test_a_real_mistral_is_refused(tmp_path):
    write_foreign(tmp_path / "foreign", "mistral")
    with pytest.raises(CheckpointError, match=r"'mistral'.*qwen3, qwen2, llama"):
        import_model(tmp_path / "foreign", tmp_path / "ours")


def test_a_pickle_that_would_run_code_is_not_run(tmp_path):
    write_foreign(tmp_path / "foreign", "llama")
    (tmp_path / "foreign/model.safetensors").unlink()
    torch.save({"a": print}, tmp_path / "foreign/pytorch_model.bin")
    with pytest.raises(CheckpointError, match="not run"):
        import_model(tmp_path / "foreign", tmp_path / "ours")


def test_a_head_that_is_not_the_embedding_it_claims_to_be_is_refused(tmp_path):
    write_foreign(tmp_path / "foreign", "llama", tie_word_embeddings=False)
    set_config(tie_word_embeddings=True)(tmp_path / "foreign")
    with pytest.raises(CheckpointError, match="tie_word_embeddings"):
        import_model(tmp_path / "foreign", tmp_path / "ours")


def test_a_place_that_is_taken_is_left_alone(tmp_path):
    write_foreign(tmp_path / "foreign", "llama")
    (tmp_path / "ours").mkdir()
    with pytest.raises(CheckpointError, match="there already"):
        import_model(tmp_path / "foreign", tmp_path / "ours")


def test_a_vocabulary_of_another_kind_is_refused(tmp_path):
    from tokenizers import Tokenizer, models

    write_foreign(tmp_path / "foreign", "llama")
    backend = Tokenizer(models.WordLevel({"a": 0, "</s>": 1}, unk_token="a"))
    (tmp_path / "foreign/tokenizer.json").write_text(backend.to_str())
    with pytest.raises(TokenizerError, match="WordLevel"):
        import_model(tmp_path / "foreign", tmp_path / "ours")


def test_our_own_export_comes_back_with_our_tokenizer(tmp_path):
    from doubles import byte_tokenizer, tiny_config

    torch.manual_seed(0)
    model = CausalLM(tiny_config())
    checkpoint.save(tmp_path / "c", model=model, tokenizer=byte_tokenizer())
    import_model(tmp_path / "c", tmp_path / "again")
    again, tokenizer = checkpoint.load(tmp_path / "again")
    assert tokenizer.fingerprint() == byte_tokenizer().fingerprint()
    assert all(
        torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True)
    )
