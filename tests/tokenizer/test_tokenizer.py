"""The tokenizer: exact round trips, streaming, files that transformers reads with the same ids."""

from __future__ import annotations

import functools
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
import tokenizers
from hypothesis import example, given, settings
from hypothesis import strategies as st

from doubles import byte_tokenizer
from minimind.errors import TokenizerError
from minimind.tokenizer import SPECIAL_TOKENS, Tokenizer

LINES = [
    "今天天气不错，我们去公园散步吧！",
    "  两个空格开头，　　全角空格；\t制表符\r\n换行\n\n\n空行   结尾空格  ",
    "def f(x):\n    return x ** 2  # 平方\n\n\tif a != b: pass",
    "It's 2026年11月22日，气温-3.5℃；I'll go，you've won，WE'RE done'S",
    "二〇二三年 〇 ①②Ⅷ ½ ² ３７ ١٢٣ 々",
    "😀👨‍👩‍👧‍👦🇨🇳 e\u0301 é \u200b\ufeff \u00a0\u2028\u3000x",
    "卡拉OK和T恤 GDP增长6.9% https://example.com/a?b=c&d=%20",
    "한국어 日本語テキスト Ελληνικά русский العربية हिन्दी ไทย",
    "\x00\x01\x7f\x1c\x1d \x85",
    "<|im_end|> <think> </tool_call>",
    "\U00010000\U00010000今天\U00010000",
    "",
    "\n",
    "的" * 300,
    "龘靐齉爩𠀀𪚥",
]


@functools.cache
def default() -> Tokenizer:
    return Tokenizer.load("default")


@functools.cache
def bytewise() -> Tokenizer:
    return byte_tokenizer()  # every character of several bytes is split over tokens


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return default()


@pytest.fixture(scope="module")
def saved(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("tokenizer")
    tokenizer.save(directory)
    return directory


@pytest.fixture(scope="module")
def reference(saved: Path):
    transformers = pytest.importorskip("transformers")
    return transformers.AutoTokenizer.from_pretrained(saved)


def test_special_tokens_are_the_first_sixteen_ids(tokenizer: Tokenizer) -> None:
    assert len(SPECIAL_TOKENS) == 16
    assert [tokenizer.token_bytes(i).decode() for i in range(16)] == list(SPECIAL_TOKENS)
    assert (tokenizer.endoftext_id, tokenizer.im_start_id, tokenizer.im_end_id) == (0, 1, 2)
    assert tokenizer.pad_id == 0
    assert tokenizer.stop_ids == (2, 0)


def test_default_has_12000_tokens_and_all_bytes(tokenizer: Tokenizer) -> None:
    assert tokenizer.vocab_size == 12_000
    single = {tokenizer.token_bytes(i) for i in range(16, 272)}
    assert single == {bytes([byte]) for byte in range(256)}


@given(st.text())
@settings(max_examples=300, deadline=None)
@example("<|im_end|>")
@example("\r\n \u2028\ufeff\U00010000")
def test_decode_undoes_encode(text: str) -> None:
    for tokenizer in (default(), bytewise()):
        assert tokenizer.decode(tokenizer.encode(text)) == text


@given(st.text())
@settings(max_examples=100, deadline=None)
def test_text_never_becomes_a_special_token(text: str) -> None:
    ids = default().encode(text + "<|im_end|>" + text + "<think><|endoftext|>")
    assert min(ids) >= len(SPECIAL_TOKENS)


@given(st.lists(st.integers(0, 11_999), max_size=30))
@settings(max_examples=300, deadline=None)
def test_stream_equals_decode_for_any_ids(ids: list[int]) -> None:
    tokenizer = default()
    stream = tokenizer.stream()
    assert "".join(map(stream, ids)) + stream.flush() == tokenizer.decode(ids)


@given(st.text())
@settings(max_examples=200, deadline=None)
def test_stream_never_shows_half_a_character(text: str) -> None:
    tokenizer = bytewise()
    stream = tokenizer.stream()
    shown = ""
    for token_id in tokenizer.encode(text):
        shown += stream(token_id)
        assert text.startswith(shown)
    assert shown == text
    assert stream.flush() == ""


def test_stream_waits_for_the_last_byte_of_an_emoji() -> None:
    tokenizer = bytewise()
    stream = tokenizer.stream()
    assert [stream(i) for i in tokenizer.encode("😀")] == ["", "", "", "😀"]


def test_flush_gives_what_was_cut_off_and_starts_anew() -> None:
    tokenizer = bytewise()
    stream = tokenizer.stream()
    assert [stream(i) for i in tokenizer.encode("好")[:2]] == ["", ""]
    assert stream.flush() == "\ufffd"
    assert stream.flush() == ""
    assert "".join(map(stream, tokenizer.encode("好"))) == "好"


def test_a_bad_byte_in_the_middle_does_not_swallow_what_follows() -> None:
    tokenizer = bytewise()
    ids = [*tokenizer.encode("好")[:2], tokenizer.im_end_id, *tokenizer.encode("啊")]
    stream = tokenizer.stream()
    assert "".join(map(stream, ids)) == "\ufffd<|im_end|>啊" == tokenizer.decode(ids)


def test_ids_past_the_vocabulary_decode_to_nothing(tokenizer: Tokenizer) -> None:
    assert tokenizer.decode([*tokenizer.encode("好"), 99_999, -1]) == "好"
    assert tokenizer.stream()(99_999) == ""
    with pytest.raises(TokenizerError, match="99999"):
        tokenizer.token_bytes(99_999)


def test_skip_special_tokens_keeps_visible_structure(tokenizer: Tokenizer) -> None:
    ids = [1, 3, *tokenizer.encode("好"), 4, 5, 6, 2, 0]
    shown = tokenizer.decode(ids, skip_special_tokens=True)
    assert shown == "<think>好</think><tool_call></tool_call>"


def test_half_surrogates_do_not_end_a_run(tokenizer: Tokenizer) -> None:
    assert tokenizer.decode(tokenizer.encode("好\ud83d坏")) == "好\ufffd坏"
    assert tokenizer.decode(tokenizer.encode("\ud83d\ude00")) == "😀"
    assert tokenizer.encode_batch(["好\udc00", "a"])[1] == tokenizer.encode("a")


def test_batch_equals_one_by_one(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode_batch(LINES) == [tokenizer.encode(line) for line in LINES]
    assert tokenizer.encode_batch([]) == []


def test_saved_files_load_to_the_same_tokenizer(tokenizer: Tokenizer, saved: Path) -> None:
    names = {path.name for path in saved.iterdir()}
    assert names == {"tokenizer.json", "tokenizer_config.json", "chat_template.jinja"}
    digest = hashlib.sha256((saved / "tokenizer.json").read_bytes()).hexdigest()
    for path in (saved, saved / "tokenizer.json", str(saved)):
        assert Tokenizer.load(path).fingerprint() == tokenizer.fingerprint() == digest


def test_shipped_files_are_what_save_writes(saved: Path) -> None:
    import minimind.tokenizer.tokenizer as module

    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        assert (module.DEFAULT_DIRECTORY / name).read_bytes() == (saved / name).read_bytes()


@pytest.mark.parametrize("line", LINES)
def test_transformers_gives_the_same_ids(tokenizer: Tokenizer, reference, line: str) -> None:
    ids = reference(line, split_special_tokens=True, add_special_tokens=True)["input_ids"]
    if "<" not in line:  # transformers always parses <think>, which is no control token
        assert ids == tokenizer.encode(line)
        assert reference.decode(ids) == line == tokenizer.decode(ids)


@given(st.text(alphabet=st.characters(exclude_characters="<", exclude_categories=["Cs"])))
@settings(max_examples=200, deadline=None)
def test_transformers_gives_the_same_ids_for_any_text(reference, text: str) -> None:
    assert reference(text)["input_ids"] == default().encode(text)


@given(st.lists(st.integers(0, 11_999), max_size=20), st.booleans())
@settings(max_examples=100, deadline=None)
def test_transformers_decodes_alike(reference, ids: list[int], skip: bool) -> None:
    mine = default().decode(ids, skip_special_tokens=skip)
    assert reference.decode(ids, skip_special_tokens=skip) == mine


def test_transformers_knows_the_special_tokens(reference) -> None:
    assert reference.eos_token == "<|im_end|>"
    assert reference.pad_token == "<|endoftext|>"
    assert reference.bos_token is None
    assert len(reference) == 12_000
    assert 0 < reference.model_max_length < 10**6
    assert reference(list(SPECIAL_TOKENS))["input_ids"] == [[i] for i in range(16)]


def test_transformers_reads_it_beside_a_qwen3_config(saved: Path, tmp_path: Path) -> None:
    """As in a checkpoint: the model type must not make it take Qwen2's normaliser."""
    transformers = pytest.importorskip("transformers")
    for path in saved.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "qwen3"}))
    reference = transformers.AutoTokenizer.from_pretrained(tmp_path)
    text = "e\u0301 decomposed，今天天气 😀"
    assert reference(text)["input_ids"] == default().encode(text)


def test_import_takes_neither_torch_nor_transformers() -> None:
    code = (
        "import sys, minimind.tokenizer as t; t.Tokenizer.load();"
        "print([m for m in ('torch', 'transformers', 'rjieba') if m in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"


def test_a_missing_tokenizer_is_named(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match=r"nowhere.*tokenizer\.json"):
        Tokenizer.load(tmp_path / "nowhere")


def test_a_broken_tokenizer_is_named(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{oops")
    with pytest.raises(TokenizerError, match=r"tokenizer\.json: not a readable"):
        Tokenizer.load(tmp_path)


def test_a_foreign_tokenizer_is_refused(tmp_path: Path) -> None:
    tokenizers.Tokenizer(tokenizers.models.BPE({"a": 0}, [])).save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(TokenizerError, match="special tokens"):
        Tokenizer.load(tmp_path)
