"""POST /v1/completions: text is continued, and with `echo` and `logprobs` scored."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from minimind.errors import UserError
from minimind.inference.api import prompt_ids
from minimind.serve.answering import Answering
from minimind.serve.choices import Choice, Delta
from minimind.serve.errors import bad_request, queue_full
from minimind.serve.http import EventStream, answer, read_body
from minimind.serve.logprobs import text_logprobs
from minimind.serve.params import room_for, sampling_params, too_long
from minimind.serve.protocol import CompletionRequest
from minimind.serve.registry import Served
from minimind.serve.responses import Headed, TextChoice, head
from minimind.serve.server import Server
from minimind.serve.text import TokenAt
from minimind.serve.validation import parse
from minimind.tokenizer import Tokenizer


@dataclass(slots=True)
class Prompt:
    """One text to continue.

    Attributes:
        ids: its tokens.
        marks: how many of them were put before the text and are no part of it.
        text: as it is echoed.
        tokens: its tokens with log-probabilities, once it is scored.
    """

    ids: list[int]
    marks: int = 0
    text: str = ""
    tokens: list[TokenAt] = field(default_factory=list)


async def completions(request: Request, server: Server) -> Response:
    """Continue texts."""
    body = parse(CompletionRequest, await read_body(request, server))
    served = await server.find(body.model)
    prompts = read_prompts(served, body)
    context = served.backend.context_length
    rooms = [room_for(body, prompt_tokens=len(p.ids), context=context) for p in prompts]
    if body.max_tokens == 0 and not body.echo:
        message = "'max_tokens' is 0 and 'echo' is off: there is nothing to do."
        raise bad_request(message, param="max_tokens", code="invalid_value")
    if body.echo and body.logprobs is not None:
        await _score(server, served, prompts, alternatives=body.logprobs)

    # With log-probabilities the token that ends an answer is listed too, as OpenAI does: programs
    # that score texts cut the last token off. The backend would keep it to itself.
    stop_ids = tuple(served.tokenizer.stop_ids)
    own_stops = stop_ids if body.logprobs is not None else ()

    def new_choice() -> Choice:
        return Choice(served.tokenizer, stops=body.stops, stop_ids=own_stops)

    generated = [p.ids for p in prompts] if body.max_tokens != 0 else []
    eager = bool(body.stream or body.stops or own_stops)
    answering = Answering(server, served, generated, n=body.choices, eager=eager, choice=new_choice)
    answering.submit(
        lambda number: sampling_params(
            body,
            max_new_tokens=rooms[number // body.choices],
            alternatives=body.logprobs,
            stop_ids=() if own_stops else stop_ids,
            vocab_size=served.tokenizer.vocab_size,
            choice=number,
        ),
        param="prompt",
    )
    if body.stream:
        chunks = _chunks(body, served, prompts, answering)
        return EventStream(server, answering.run, chunks, answering.end)
    whole = _whole(body, served, prompts, answering)
    return await answer(request, server, answering.run, whole)


def read_prompts(served: Served, body: CompletionRequest) -> list[Prompt]:
    """Return the prompts as token ids.

    Raises:
        ApiError: 400; one is too long, or has ids that the model doesn't have.
    """
    given = body.prompt if body.prompt is not None else ""
    is_one = isinstance(given, str) or isinstance(given[0], int)
    several = [given] if is_one else given
    return [_prompt(served, one) for one in several]  # pyright: ignore[reportArgumentType]


def _prompt(served: Served, given: str | list[int]) -> Prompt:
    tokenizer, context = served.tokenizer, served.backend.context_length
    if isinstance(given, str):
        least = len(given.encode()) // served.longest_token
        if least >= context:
            raise too_long(least, context, param="prompt", at_least=True)
        # The mark that opens a document is the model's affair, not the client's.
        return Prompt(prompt_ids(tokenizer, given), marks=1, text=given)
    if max(given) >= tokenizer.vocab_size:
        raise bad_request(
            f"Invalid value for 'prompt': there is no token {max(given)}; this model has 0 to "
            f"{tokenizer.vocab_size - 1}.",
            param="prompt",
            code="invalid_value",
        )
    text = tokenizer.decode(given, skip_special_tokens=True) if len(given) <= context else ""
    return Prompt(given, text=text)


async def _score(
    server: Server, served: Served, prompts: list[Prompt], *, alternatives: int
) -> None:
    """Give every prompt the log-probabilities of its own tokens."""
    scorer = served.scorer
    if scorer is None:
        raise bad_request(
            f"The model '{served.id}' runs in {served.backend.kind}, which gives no "
            "log-probabilities of a prompt: leave out 'echo' or 'logprobs'.",
            param="echo",
            code="unsupported_value",
        )
    if server.scores_waiting >= served.backend.stats().queue_limit:
        raise queue_full("Too many requests wait for log-probabilities.", retry_after=1)
    loop = asyncio.get_running_loop()
    server.scores_waiting += 1
    try:
        for prompt in prompts:
            scored = await loop.run_in_executor(
                server.scoring, scorer.score, prompt.ids, alternatives
            )
            decode, shown = served.tokenizer.stream(), 0
            for token in scored[prompt.marks :]:
                at = TokenAt(token.id, token.logprob, token.alternatives, shown)
                prompt.tokens.append(at)
                hidden = token.id in served.tokenizer.control_ids
                shown += 0 if hidden else len(decode(token.id))
    except UserError as error:
        raise bad_request(str(error), param="prompt", code="invalid_value") from error
    finally:
        server.scores_waiting -= 1


def _head(body: CompletionRequest, served: Served) -> Headed:
    fingerprint = served.fingerprint
    return head("text_completion", prefix="cmpl", model=body.model, fingerprint=fingerprint)


def _choice(
    index: int, delta: Delta, *, body: CompletionRequest, tokenizer: Tokenizer
) -> TextChoice:
    logprobs = None
    if body.logprobs is not None:
        logprobs = text_logprobs(tokenizer, delta.tokens, alternatives=body.logprobs)
    return {"index": index, "text": delta.text, "logprobs": logprobs, "finish_reason": delta.finish}


def _behind(prompt: Prompt, delta: Delta) -> Delta:
    """Count the positions of an answer from the beginning of its echoed prompt."""
    moved = [replace(token, start=token.start + len(prompt.text)) for token in delta.tokens]
    return Delta(delta.text, moved, finish=delta.finish)


def _echo(prompt: Prompt) -> Delta:
    """Return the prompt as the beginning of an answer."""
    return Delta(prompt.text, list(prompt.tokens))


async def _whole(
    body: CompletionRequest, served: Served, prompts: list[Prompt], answering: Answering
) -> dict[str, Any]:
    response = _head(body, served)
    answers = await answering.collect() or _nothing(body, prompts)
    choices = []
    for index, delta in enumerate(answers):
        if body.echo:
            prompt = prompts[index // body.choices]
            echoed = _echo(prompt)
            echoed.add(_behind(prompt, delta))
            delta = echoed
        choices.append(_choice(index, delta, body=body, tokenizer=served.tokenizer))
    return response | {"choices": choices, "usage": _usage(prompts, answering)}


def _nothing(body: CompletionRequest, prompts: list[Prompt]) -> list[Delta]:
    """Return the answers to `max_tokens: 0`."""
    return [Delta(finish="length") for _ in range(len(prompts) * body.choices)]


def _usage(prompts: list[Prompt], answering: Answering) -> dict[str, Any]:
    counted = answering.usage
    read = sum(len(prompt.ids) for prompt in prompts)  # also those that were only scored
    total = read + counted["completion_tokens"]
    return {**counted, "prompt_tokens": read, "total_tokens": total}


async def _chunks(
    body: CompletionRequest, served: Served, prompts: list[Prompt], answering: Answering
) -> AsyncIterator[dict[str, Any]]:
    base = _head(body, served)
    usage = {"usage": None} if body.include_usage else {}

    def chunk(index: int, delta: Delta) -> dict[str, Any]:
        choice = _choice(index, delta, body=body, tokenizer=served.tokenizer)
        return base | {"choices": [choice]} | usage

    if body.echo:
        for index in range(len(prompts) * body.choices):
            yield chunk(index, _echo(prompts[index // body.choices]))
    for index, delta in enumerate(_nothing(body, prompts) if body.max_tokens == 0 else ()):
        yield chunk(index, delta)
    async for index, delta in answering.deltas():
        if delta.is_news:
            prompt = prompts[index // body.choices]
            yield chunk(index, _behind(prompt, delta) if body.echo else delta)
    if body.include_usage:
        yield base | {"choices": [], "usage": _usage(prompts, answering)}
