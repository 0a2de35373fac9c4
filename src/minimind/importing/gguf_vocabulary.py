"""The tokenizer of a GGUF file as a tokenizer.json: the same merges, the same pre-tokenizer."""

from __future__ import annotations

from typing import Any, Final

import tokenizers
from tokenizers import Regex, decoders, models, pre_tokenizers, processors

from minimind.errors import TokenizerError
from minimind.importing.vocabulary import make_tokenizer
from minimind.tokenizer import Tokenizer
from minimind.tokenizer.train import run_time_pre_tokenizer

CONTROL, USER_DEFINED = 3, 4
"""llama.cpp's token types: never typed by users; matched as a whole in any text."""


def _byte_level(*, use_regex: bool) -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=use_regex)


def _digits_then_gpt2() -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), _byte_level(use_regex=True)]
    )


PRE_TOKENIZERS: Final = {
    "smollm": _digits_then_gpt2,
    "qwen2": run_time_pre_tokenizer,
    "gpt-2": lambda: _byte_level(use_regex=True),
    "llama-bpe": lambda: pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_LLAMA3_PATTERN), behavior="isolated"),
            _byte_level(use_regex=False),
        ]
    ),
}
"""`tokenizer.ggml.pre` to what cuts text into words before the merges."""

_LLAMA3_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)

_NAMED = {
    "bos_token": "bos_token_id",
    "eos_token": "eos_token_id",
    "unk_token": "unknown_token_id",
    "pad_token": "padding_token_id",
}


def gguf_tokenizer(
    values: dict[str, Any], *, template: str | None = None, origin: str = "GGUF"
) -> Tokenizer:
    """Build the tokenizer that the metadata of a GGUF file describe.

    Args:
        values: the metadata.
        template: chat template to use in place of the file's own.
        origin: what errors call it.

    Raises:
        TokenizerError: no byte-level BPE, or cut into words in a way that isn't known here.
    """
    kind, pre = values.get("tokenizer.ggml.model"), values.get("tokenizer.ggml.pre")
    if kind != "gpt2":
        raise TokenizerError(
            f"{origin}: tokenizer.ggml.model is {kind!r}; 'gpt2' (byte-level BPE) can be imported "
            "from GGUF. Import the model's Hugging Face directory instead"
        )
    if pre not in PRE_TOKENIZERS:
        raise TokenizerError(
            f"{origin}: tokenizer.ggml.pre is {pre!r}; {', '.join(PRE_TOKENIZERS)} can be "
            "imported. Import the model's Hugging Face directory instead"
        )
    tokens: list[str] = values["tokenizer.ggml.tokens"]
    backend = _backend(values, tokens, pre)
    config: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast"}
    for name, key in _NAMED.items():
        token_id = values.get(f"tokenizer.ggml.{key}")
        if token_id is not None:
            config[name] = tokens[token_id]
    if values.get("tokenizer.ggml.add_bos_token") and "bos_token" in config:
        bos = config["bos_token"]
        backend.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", pair=f"{bos} $A $B",
            special_tokens=[(bos, tokens.index(bos))],
        )  # fmt: skip
    ends = (values.get(f"tokenizer.ggml.{key}") for key in ("eos_token_id", "eot_token_id"))
    return make_tokenizer(
        backend.to_str(),
        config=config,
        template=template or values.get("tokenizer.chat_template"),
        eos_ids=[end for end in ends if end is not None],
        origin=origin,
    )


def _backend(values: dict[str, Any], tokens: list[str], pre: str) -> tokenizers.Tokenizer:
    merges = [tuple(merge.split(" ")) for merge in values["tokenizer.ggml.merges"]]
    vocab = {token: token_id for token_id, token in enumerate(tokens)}
    backend = tokenizers.Tokenizer(
        models.BPE(vocab=vocab, merges=merges, ignore_merges=pre == "llama-bpe")
    )
    backend.pre_tokenizer = PRE_TOKENIZERS[pre]()
    backend.decoder = decoders.ByteLevel()
    added = [
        tokenizers.AddedToken(token, special=kind == CONTROL, normalized=False)
        for token, kind in zip(tokens, values["tokenizer.ggml.token_type"], strict=True)
        if kind in (CONTROL, USER_DEFINED)
    ]
    backend.add_tokens(added)
    return backend
