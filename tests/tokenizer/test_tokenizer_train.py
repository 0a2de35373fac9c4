"""Training: jieba keeps merges inside words, and leaves no trace but that."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import rjieba
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, pre_tokenizers

from minimind.errors import ConfigError
from minimind.tokenizer import SPECIAL_TOKENS, Tokenizer, train_tokenizer
from minimind.tokenizer.train import (
    MARK,
    MAX_TOKEN_BYTES,
    QWEN2_PATTERN,
    mark_words,
    run_time_pre_tokenizer,
)

CORPUS = [
    "我的一个朋友说，今天的一切都很好；你的一生，他的一天。",
    "我们在北京大学学习人工智能，机器学习是人工智能的一部分。",
    "卡拉OK里有T恤， 北京欢迎你， hello world hello  world",
    "def hello(world):\n    return world  # 返回世界\n\n    hello(world)",
] * 40


def texts_of(tokenizer: Tokenizer) -> set[str]:
    ids = range(len(SPECIAL_TOKENS), tokenizer.vocab_size)
    return {tokenizer.token_bytes(i).decode(errors="ignore") for i in ids}


@pytest.fixture(scope="module")
def guided() -> Tokenizer:
    return train_tokenizer(CORPUS, vocab_size=600)


def test_no_texts_give_bare_bytes() -> None:
    assert train_tokenizer([], vocab_size=5_000).vocab_size == 256 + 16
    assert train_tokenizer(["", ""], vocab_size=272).encode("a") == [16 + ord("a") - ord("!")]


def test_a_vocabulary_without_room_for_the_bytes_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"vocab_size = 271: must be at least 272"):
        train_tokenizer(CORPUS, vocab_size=271)


def test_merges_stay_inside_words(guided: Tokenizer) -> None:
    words = {word for text in CORPUS for word in rjieba.cut(text)}
    hanzi = [text for text in texts_of(guided) if any("一" <= char <= "龥" for char in text)]
    assert {"我们", "人工智能", "朋友", "北京大学", "卡拉"} <= set(hanzi)
    assert all(any(text in word for word in words) for text in hanzi)


def test_plain_merges_do_not(guided: Tokenizer) -> None:
    plain = train_tokenizer(CORPUS, vocab_size=600, jieba=False)
    crossing = {"的一", "，今天", "的一天"}
    assert crossing & texts_of(plain)
    assert not crossing & texts_of(guided)


def test_english_and_code_keep_their_leading_space(guided: Tokenizer) -> None:
    assert {" hello", " world", "   "} <= texts_of(guided)
    pieces = [guided.token_bytes(i).decode() for i in guided.encode("    return world hello")]
    assert pieces[-2:] == [" world", " hello"]


def test_the_mark_is_in_no_token() -> None:
    marked = train_tokenizer([f"今{MARK}天{MARK}{MARK}hello{MARK} world"] * 50, vocab_size=400)
    clean = train_tokenizer(["今天hello world"] * 50, vocab_size=400)
    assert marked.fingerprint() == clean.fingerprint()
    assert MARK not in "".join(texts_of(marked))
    assert marked.decode(marked.encode(MARK)) == MARK


def test_no_token_is_longer_than_the_limit() -> None:
    long = train_tokenizer(["=" * 100 + "\n" + "ab" * 50] * 20, vocab_size=1_000)
    lengths = [len(long.token_bytes(i)) for i in range(16, long.vocab_size)]
    assert max(lengths) <= MAX_TOKEN_BYTES


alphabet = st.one_of(
    st.sampled_from("今天天气的一是不了人我在有他这中大来上国　，。！ \n\r\tabAB'st12〇々"),
    st.characters(exclude_categories=["Cs"], exclude_characters=MARK),
)


@given(st.text(alphabet=alphabet, max_size=60))
@settings(max_examples=300, deadline=None)
def test_marks_do_not_move_the_cuts_of_the_pattern(text: str) -> None:
    cut = pre_tokenizers.Split(Regex(QWEN2_PATTERN), behavior="isolated").pre_tokenize_str
    without = [piece for piece, _ in cut(text)]
    assert [piece.replace(MARK, "") for piece, _ in cut(mark_words(text))] == without


def test_words_are_marked_where_jieba_cuts() -> None:
    marked = mark_words("我们爱北京， 卡拉OK hello世界").replace(MARK, "|")
    assert marked == "|我们|爱|北京， |卡拉|OK hello|世界"


def test_the_pattern_is_that_of_qwen2() -> None:
    module = pytest.importorskip("transformers.models.qwen2.tokenization_qwen2")
    assert module.PRETOKENIZE_REGEX == QWEN2_PATTERN


def test_run_time_cuts_at_no_mark(guided: Tokenizer) -> None:
    backend = tokenizers.Tokenizer.from_str(guided._json)
    assert MARK not in guided._json
    assert backend.normalizer is None
    text = f"今天{MARK}天气"
    assert backend.pre_tokenizer is not None
    assert len(backend.pre_tokenizer.pre_tokenize_str(text)) == 1
    assert backend.pre_tokenizer.pre_tokenize_str(text) == (
        run_time_pre_tokenizer().pre_tokenize_str(text)
    )


def test_the_same_text_gives_the_same_file(guided: Tokenizer) -> None:
    code = (
        "from test_tokenizer_train import CORPUS, train_tokenizer;"
        "print(train_tokenizer(CORPUS, vocab_size=600).fingerprint())"
    )
    for threads in ("1", "2"):
        path = os.pathsep.join(sys.path)
        env = os.environ | {
            "PYTHONPATH": path,
            "PYTHONHASHSEED": threads,
            "RAYON_NUM_THREADS": threads,
            "TOKENIZERS_PARALLELISM": "true",
        }
        run = subprocess.run(
            [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
        )
        assert run.stdout.strip() == guided.fingerprint()


def test_progress_is_told() -> None:
    told: list[str] = []
    train_tokenizer(CORPUS, vocab_size=300, progress=told.append)
    assert told[0].startswith("read 160 documents")
    assert told[-1] == "300 tokens"
