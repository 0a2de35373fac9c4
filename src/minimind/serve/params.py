"""From the fields of a request to the engine's parameters; the defaults are OpenAI's."""

from __future__ import annotations

from minimind.inference.sampling import SamplingParams
from minimind.serve.errors import ApiError, bad_request, context_length_exceeded
from minimind.serve.protocol import ChatCompletionRequest, CompletionRequest, GenerationRequest

COMPLETION_MAX_TOKENS = 16
"""OpenAI's default of the older endpoint; a chat may fill the context."""
_COLDEST = 1e-3
"""A temperature below this is greedy: logits divided by less could overflow."""


def sampling_params(
    request: GenerationRequest,
    *,
    max_new_tokens: int,
    alternatives: int | None,
    stop_ids: tuple[int, ...],
    vocab_size: int,
    choice: int,
) -> SamplingParams:
    """Return the parameters of one answer; answer `choice` draws from `seed + choice`.

    Raises:
        ApiError: 400; a bias for a token that there isn't.
    """
    temperature = 1.0 if request.temperature is None else request.temperature
    bias = {int(token): value for token, value in (request.logit_bias or {}).items()}
    for token in bias:
        if token >= vocab_size:
            raise bad_request(
                f"Invalid value for 'logit_bias': there is no token {token}; this model has "
                f"0 to {vocab_size - 1}.",
                param="logit_bias",
                code="invalid_value",
            )
    return SamplingParams(
        temperature=0.0 if temperature < _COLDEST else temperature,
        top_k=max(0, request.top_k or 0),
        top_p=1.0 if request.top_p is None else max(request.top_p, 1e-6),
        min_p=request.min_p or 0.0,
        repetition_penalty=request.repetition_penalty or 1.0,
        presence_penalty=request.presence_penalty or 0.0,
        frequency_penalty=request.frequency_penalty or 0.0,
        logit_bias=tuple(bias.items()),
        alternatives=alternatives,
        seed=None if request.seed is None else (request.seed + choice) % 2**63,
        max_new_tokens=max_new_tokens,
        stop_ids=stop_ids,
    )


def room_for(
    request: ChatCompletionRequest | CompletionRequest, *, prompt_tokens: int, context: int
) -> int:
    """Return how many tokens an answer may have.

    Raises:
        ApiError: 400 `context_length_exceeded`; the message has all the numbers.
    """
    chat = isinstance(request, ChatCompletionRequest)
    param = "messages" if chat else "prompt"
    asked = request.max_tokens
    if chat and request.max_completion_tokens is not None:
        asked = request.max_completion_tokens
    room = context - prompt_tokens
    if room < 0 or (room == 0 and (chat or asked != 0)):
        raise too_long(prompt_tokens, context, param=param)
    if asked is None:
        return room if chat else min(COMPLETION_MAX_TOKENS, room)
    if asked > room:
        raise context_length_exceeded(
            f"This model's maximum context length is {context} tokens. You asked for "
            f"{prompt_tokens + asked}: {prompt_tokens} in the {param}, {asked} in the answer. "
            f"Shorten the {param}, or ask for at most {room}.",
            param=param,
        )
    return asked


def too_long(prompt_tokens: int, context: int, *, param: str, at_least: bool = False) -> ApiError:
    """400: the prompt alone doesn't fit."""
    about = "at least " if at_least else ""
    return context_length_exceeded(
        f"This model's maximum context length is {context} tokens. The {param} alone: {about}"
        f"{prompt_tokens}, and an answer needs one more. Shorten the {param}.",
        param=param,
    )
