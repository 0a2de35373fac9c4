"""Training a tokenizer: byte-level BPE whose merges jieba keeps inside words.

Plain BPE on Chinese spends vocabulary on frequent strings that are no words (`的一`, `，我`),
because Qwen2's pattern, like most, splits at spaces and punctuation, and Chinese has no spaces.
Here jieba marks the words of the training text and merges never cross a mark. Nothing of that
is needed afterwards: the result is an ordinary BPE file.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Final

import tokenizers
from tokenizers import Regex, decoders, models, pre_tokenizers, processors, trainers

from minimind.errors import ConfigError
from minimind.tokenizer.chat import SPECIAL_TOKENS
from minimind.tokenizer.tokenizer import VISIBLE_TOKENS, Tokenizer

QWEN2_PATTERN: Final = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""Qwen2's pre-tokenizer pattern; llama.cpp knows it by the name `qwen2`."""

MARK: Final = "\U00010000"
"""Word boundary in the training text: LINEAR B SYLLABLE B008 A.

It has to be a **letter**: then Qwen2's pattern, which runs first and treats all letters alike, cuts
the marked text exactly where it cuts the text without marks, leading spaces and punctuation
included. Where training text really has this letter it is left out (its bytes are in the alphabet).
"""

MIN_VOCAB_SIZE: Final = 256 + len(SPECIAL_TOKENS)
MIN_FREQUENCY: Final = 2
# 8 hanzi. Longer tokens are rows of dashes and the boilerplate of single sources.
MAX_TOKEN_BYTES: Final = 24
PROGRESS_BYTES: Final = 8 * 2**20

# Only ranges that have long been full: an unassigned code point is no letter to the pattern.
_HAN = "\u3005\u3400-\u4db5\u4e00-\u9fd5\uf900-\ufa6d\U00020000-\U0002a6d6"
# Hanzi with the Latin letters that touch them, as in 卡拉OK and T恤, which jieba knows as words.
_HAN_RUN = re.compile(f"(?<![A-Za-z])[A-Za-z]*+[{_HAN}][A-Za-z{_HAN}]*")
_HAN_CHARACTER = re.compile(f"[{_HAN}]")

Progress = Callable[[str], None]
"""Is told in a few words what is being done."""


def train_tokenizer(
    texts: Iterable[str],
    *,
    vocab_size: int,
    jieba: bool = True,
    progress: Progress | None = None,
) -> Tokenizer:
    """Train a tokenizer; the same texts in the same order give the same file.

    Args:
        texts: the training text. Empty: a tokenizer of bare bytes without merges.
        vocab_size: tokens wanted, the 16 special ones and the 256 bytes included. Fewer come out
            when the text has too few pairs that occur twice.
        jieba: keep merges inside the words that jieba finds.
        progress: is told how far the work is; it also turns on the trainer's own bars on stderr.

    Raises:
        ConfigError: `vocab_size` has no room for the bytes.
    """
    if vocab_size < MIN_VOCAB_SIZE:
        raise ConfigError(
            f"vocab_size = {vocab_size}: must be at least {MIN_VOCAB_SIZE} "
            f"(256 bytes and {len(SPECIAL_TOKENS)} special tokens)"
        )
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = _training_pre_tokenizer()
    backend.decoder = decoders.ByteLevel()
    backend.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=MIN_FREQUENCY,
        max_token_length=MAX_TOKEN_BYTES,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=progress is not None,
    )
    prepare = mark_words if jieba else _without_marks
    backend.train_from_iterator(map(prepare, _reported(texts, progress)), trainer=trainer)
    backend.pre_tokenizer = run_time_pre_tokenizer()
    _add_special_tokens(backend)
    tokenizer = Tokenizer(backend.to_str(pretty=True))
    if progress:
        progress(f"{tokenizer.vocab_size:,} tokens")
    return tokenizer


def mark_words(text: str) -> str:
    """Put `MARK` between the words that jieba finds, and in front of those that begin in hanzi."""
    return _HAN_RUN.sub(_marked_run, _without_marks(text))


def _without_marks(text: str) -> str:
    return text.replace(MARK, "")


def _marked_run(match: re.Match[str]) -> str:
    import rjieba  # only training needs it: loading its dictionary takes a moment

    run = match[0]
    marked = MARK.join(rjieba.cut(run))
    # A mark in front parts `，今天` into `，` and `今天`. Not before Latin letters: " T恤" keeps
    # the leading space that English words have.
    return MARK + marked if _HAN_CHARACTER.match(run) else marked


def run_time_pre_tokenizer() -> pre_tokenizers.PreTokenizer:
    """Return Qwen2's pre-tokenizer: its pattern, then bytes as printable characters."""
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN2_PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


def _training_pre_tokenizer() -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN2_PATTERN), behavior="isolated"),
            pre_tokenizers.Split(MARK, behavior="removed"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


def _add_special_tokens(backend: tokenizers.Tokenizer) -> None:
    """Say how each special token is treated: `<think>` and the like stay visible, as in Qwen3."""
    content = [
        tokenizers.AddedToken(token, special=token not in VISIBLE_TOKENS, normalized=False)
        for token in SPECIAL_TOKENS
    ]
    backend.add_tokens(content)


def _reported(texts: Iterable[str], progress: Progress | None) -> Iterator[str]:
    """Pass texts through, telling every few MB how much was read."""
    documents = characters = 0
    next_report = PROGRESS_BYTES
    for text in texts:
        documents += 1
        characters += len(text)
        if progress and characters >= next_report:
            progress(f"read {documents:,} documents, {characters / 1e6:,.0f} M characters")
            next_report = characters + PROGRESS_BYTES
        yield text
    if progress:
        progress(f"read {documents:,} documents, {characters / 1e6:,.0f} M characters; merging")
