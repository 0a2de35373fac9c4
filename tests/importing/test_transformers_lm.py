"""GPT-2 through transformers: measured by our evaluation with transformers' numbers."""

import math

import pytest
import torch
import transformers
from importing_doubles import byte_level_tokenizer, write_foreign

from minimind.data.document import Document
from minimind.errors import CheckpointError
from minimind.eval.bits_per_byte import bits_per_byte
from minimind.eval.transformers_lm import TransformersLM, load_transformers


def tiny_gpt2(vocab_size, **changes):
    torch.manual_seed(0)
    shape = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "initializer_range": 0.3}
    config = transformers.GPT2Config(
        vocab_size=vocab_size, bos_token_id=0, eos_token_id=0, **(shape | changes)
    )
    return transformers.GPT2LMHeadModel(config).eval()


@pytest.fixture
def directory(tmp_path):
    tokenizer = byte_level_tokenizer()
    tokenizer.eos_token = "<|endoftext|>"
    tiny_gpt2(len(tokenizer)).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    return tmp_path


def test_bits_per_byte_of_gpt2_are_transformers_losses(directory):
    model, tokenizer = load_transformers(directory)
    assert model.config.max_position_embeddings == 64
    texts = ["the cat sat on the mat 12", "从前有一座山，😀"]
    documents = [Document(text=text, id=text, meta={}) for text in texts]
    theirs = transformers.GPT2LMHeadModel.from_pretrained(directory).eval()
    their_tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
    nats = 0.0
    for text in texts:
        ids = torch.tensor([[0, *their_tokenizer(text).input_ids, 0]])
        with torch.no_grad():
            nats += theirs(ids, labels=ids).loss.item() * (ids.shape[1] - 1)
    size = sum(len(text.encode()) for text in texts)
    measured = bits_per_byte(model, tokenizer, documents)
    assert measured.value == pytest.approx(nats / math.log(2) / size, rel=1e-5)


def test_a_head_with_something_behind_it_is_refused():
    config = transformers.CohereConfig(
        vocab_size=64, hidden_size=32, num_hidden_layers=1, num_attention_heads=4,
        num_key_value_heads=4, intermediate_size=32, logit_scale=0.5,
    )  # fmt: skip
    with pytest.raises(CheckpointError, match="scale"):
        TransformersLM(transformers.CohereForCausalLM(config))


def test_weights_that_transformers_would_draw_at_random_are_refused(directory):
    from safetensors.torch import load_file, save_file

    file = directory / "model.safetensors"
    tensors = load_file(file)
    del tensors["transformer.h.1.mlp.c_fc.weight"]
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"at random: .*h\.1\.mlp\.c_fc"):
        load_transformers(directory)


def test_what_is_not_there_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"config\.json"):
        load_transformers(tmp_path)


def test_an_imported_shape_measures_the_same_either_way(tmp_path):
    from minimind import checkpoint
    from minimind.importing import import_model

    write_foreign(tmp_path / "foreign", "qwen2")
    import_model(tmp_path / "foreign", tmp_path / "ours")
    documents = [Document(text="the cat sat", id="1", meta={})]
    ours = bits_per_byte(*checkpoint.load(tmp_path / "ours"), documents).value
    theirs = bits_per_byte(*load_transformers(tmp_path / "foreign"), documents).value
    assert ours == pytest.approx(theirs, rel=1e-5)
