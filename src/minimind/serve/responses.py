"""What the server sends: the shapes of OpenAI's responses, as typed dictionaries.

They are written to the wire as they are, and the OpenAPI document is made from their types.
"""

from __future__ import annotations

import json
import secrets
import time
from typing import Any, Literal

from typing_extensions import TypedDict  # pydantic needs this one before Python 3.12

FinishReason = Literal["stop", "length", "tool_calls"]


class PromptTokensDetails(TypedDict):
    """`cached_tokens` came from the prefix cache."""

    cached_tokens: int


class Usage(TypedDict):
    """Tokens of a request, all its answers together."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails


class TopLogprob(TypedDict):
    """A likely token; `bytes` because it may be part of a character."""

    token: str
    logprob: float
    bytes: list[int]


class TokenLogprob(TopLogprob):
    """A token of the answer and what else was likely."""

    top_logprobs: list[TopLogprob]


class ChatLogprobs(TypedDict):
    """One entry for each token of the content."""

    content: list[TokenLogprob]
    refusal: None


class CallOut(TypedDict):
    """`arguments` is the text of a JSON object."""

    name: str
    arguments: str


class ToolCallOut(TypedDict):
    """A call of a tool."""

    id: str
    type: Literal["function"]
    function: CallOut


class AssistantOut(TypedDict, total=False):
    """The answer; `tool_calls` only where there are any."""

    role: Literal["assistant"]
    content: str | None
    refusal: None
    tool_calls: list[ToolCallOut]


class ChatChoice(TypedDict):
    """One answer."""

    index: int
    message: AssistantOut
    logprobs: ChatLogprobs | None
    finish_reason: FinishReason


class ChatCompletion(TypedDict):
    """The response of POST /v1/chat/completions."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage
    system_fingerprint: str


class TextLogprobs(TypedDict):
    """Four lists of one length; the first token of a text has no log-probability."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None] | None
    text_offset: list[int]


class TextChoice(TypedDict):
    """One continuation; in a stream `finish_reason` is null until the last."""

    index: int
    text: str
    logprobs: TextLogprobs | None
    finish_reason: FinishReason | None


class TextCompletion(TypedDict):
    """The response of POST /v1/completions."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[TextChoice]
    usage: Usage
    system_fingerprint: str


class ModelCard(TypedDict):
    """A model that requests can name; `parent` is the base of an adapter."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    max_model_len: int
    parent: str | None
    input_modalities: list[Literal["text", "image"]]


class ModelList(TypedDict):
    """The response of GET /v1/models."""

    object: Literal["list"]
    data: list[ModelCard]


class Health(TypedDict):
    """`status` is the server's; models are ready when it is."""

    status: Literal["loading", "ready", "draining"]
    models: list[str]


Headed = dict[str, Any]
"""id, object, created, model and system_fingerprint: the same in every chunk of a stream."""


def head(kind: str, *, prefix: str, model: str, fingerprint: str) -> Headed:
    """Begin a response."""
    return {
        "id": f"{prefix}-{secrets.token_hex(14)}",
        "object": kind,
        "created": int(time.time()),
        "model": model,
        "system_fingerprint": fingerprint,
    }


def usage(*, prompt_tokens: int, completion_tokens: int, cached_tokens: int) -> Usage:
    """Add up."""
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
        "prompt_tokens_details": {"cached_tokens": cached_tokens},
    }


def to_json(value: Any) -> bytes:
    """Return compact JSON.

    Raises:
        ValueError: a number that JSON can't say.
    """
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def event(value: Any) -> bytes:
    """Return one server-sent event."""
    return b"data: " + to_json(value) + b"\n\n"


DONE = b"data: [DONE]\n\n"
