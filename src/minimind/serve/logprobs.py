"""Log-probabilities in OpenAI's two shapes: chat has a list of objects, text four lists."""

from __future__ import annotations

from collections.abc import Sequence

from minimind.serve.responses import ChatLogprobs, TextLogprobs, TopLogprob
from minimind.serve.text import TokenAt
from minimind.tokenizer import Tokenizer

NEVER = -9999.0
"""What OpenAI writes for minus infinity, which JSON can't say."""


def _finite(logprob: float) -> float:
    return max(logprob, NEVER)


def _shown(raw: bytes, *, prefix: str = "") -> str:
    r"""Show a token; parts of characters as OpenAI does, `\xe4\xbd` behind `prefix`."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return prefix + "".join(f"\\x{byte:02x}" for byte in raw)


def _bytes_of(tokenizer: Tokenizer, token: int) -> bytes:
    # A model may have spare rows behind its tokenizer's last token.
    return tokenizer.token_bytes(token) if token < tokenizer.vocab_size else b""


def _entry(tokenizer: Tokenizer, token: int, logprob: float) -> TopLogprob:
    raw = _bytes_of(tokenizer, token)
    return {"token": _shown(raw), "logprob": _finite(logprob), "bytes": list(raw)}


def chat_logprobs(tokenizer: Tokenizer, tokens: Sequence[TokenAt]) -> ChatLogprobs:
    """Return the shape of chat completions."""
    return {
        "content": [
            {
                **_entry(tokenizer, token.id, token.logprob or 0.0),
                "top_logprobs": [_entry(tokenizer, *pair) for pair in token.alternatives],
            }
            for token in tokens
        ],
        "refusal": None,
    }


def text_logprobs(
    tokenizer: Tokenizer, tokens: Sequence[TokenAt], *, alternatives: int
) -> TextLogprobs:
    """Return the shape of completions.

    Args:
        tokenizer: of the model.
        tokens: of the piece.
        alternatives: how many were asked for; the token itself comes on top of them.
    """

    def name(token: int) -> str:
        return _shown(_bytes_of(tokenizer, token), prefix="bytes:")

    def likely(token: TokenAt) -> dict[str, float] | None:
        if token.logprob is None:
            return None
        pairs = (*token.alternatives, (token.id, token.logprob))
        named: dict[str, float] = {}
        for other, logprob in pairs:
            named.setdefault(name(other), _finite(logprob))  # two ids may have the same text
        return named

    return {
        "tokens": [name(token.id) for token in tokens],
        "token_logprobs": [
            None if token.logprob is None else _finite(token.logprob) for token in tokens
        ],
        "top_logprobs": [likely(token) for token in tokens] if alternatives else None,
        "text_offset": [token.start for token in tokens],
    }
