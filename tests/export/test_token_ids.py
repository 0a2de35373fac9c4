"""10,000 lines: our tokenizer, transformers' AutoTokenizer and llama.cpp give the same ids."""

from __future__ import annotations

import pytest
from export_doubles import lines_of_every_kind, save_random

from doubles import tiny_config
from minimind.export.gguf import export_gguf
from minimind.export.llamacpp import LlamaCpp
from minimind.tokenizer import Tokenizer

LINES = 10_000


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """The package's own vocabulary of 12,000 under a model of no size."""
    folder = tmp_path_factory.mktemp("ids")
    tokenizer = Tokenizer.load("default")
    config = tiny_config(vocab_size=tokenizer.vocab_size)
    checkpoint = save_random(folder / "checkpoint", config, tokenizer)
    export_gguf(checkpoint, folder / "model.gguf", type="f16", verify=False)
    return checkpoint, folder / "model.gguf"


def test_ids_of_10_000_lines_are_the_same_everywhere(exported):
    transformers = pytest.importorskip("transformers")
    checkpoint, gguf = exported
    lines = lines_of_every_kind(LINES)
    assert len(lines) == LINES
    assert len(set(lines)) > LINES * 0.9
    ours = Tokenizer.load(checkpoint).encode_batch(lines)
    hugging = transformers.AutoTokenizer.from_pretrained(checkpoint)
    theirs = hugging(lines, add_special_tokens=False)["input_ids"]
    wrong = [line for line, a, b in zip(lines, ours, theirs, strict=True) if a != b]
    assert not wrong, f"{len(wrong)} of {LINES} differ in transformers, first {wrong[0]!r}"
    with LlamaCpp(gguf) as reader:
        read = [reader.tokenize(line) for line in lines]
    wrong = [line for line, a, b in zip(lines, ours, read, strict=True) if a != b]
    assert not wrong, f"{len(wrong)} of {LINES} differ in llama.cpp, first {wrong[0]!r}"


def test_a_rendered_conversation_is_read_back_as_the_ids_it_was_made_of(exported):
    checkpoint, gguf = exported
    tokenizer = Tokenizer.load(checkpoint)
    messages = [
        {"role": "system", "content": "你是助手。"},
        {"role": "user", "content": "天气？"},
        {"role": "assistant", "reasoning_content": "想想", "content": "晴。"},
        {"role": "user", "content": "谢谢"},
    ]
    ids = tokenizer.render(messages, add_generation_prompt=True).ids
    with LlamaCpp(gguf) as reader:
        assert reader.tokenize(tokenizer.decode(ids), parse_special=True) == ids
        assert [token for token in range(16) if reader.is_end(token)] == [0, 2]
