"""POST /v1/chat/completions."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from minimind.errors import UserError
from minimind.serve.answering import Answering
from minimind.serve.choices import Choice, Delta
from minimind.serve.errors import bad_request
from minimind.serve.http import EventStream, answer, read_body
from minimind.serve.images import see
from minimind.serve.logprobs import chat_logprobs
from minimind.serve.params import room_for, sampling_params, too_long
from minimind.serve.protocol import (
    AssistantMessage,
    ChatCompletionRequest,
    ChatMessage,
    Content,
    ImagePart,
    UserContent,
)
from minimind.serve.registry import Served
from minimind.serve.responses import ChatChoice, Headed, ToolCallOut, head
from minimind.serve.server import Server
from minimind.serve.text import TokenAt
from minimind.serve.tools import ToolCall
from minimind.serve.validation import parse
from minimind.tokenizer import Message, Tokenizer


async def chat_completions(request: Request, server: Server) -> Response:
    """Answer a conversation."""
    body = parse(ChatCompletionRequest, await read_body(request, server))
    served = await server.find(body.model)
    images = await see(served, body.messages)
    prompt = chat_prompt(served, body, images=[image.ids for image in images])
    room = room_for(body, prompt_tokens=len(prompt), context=served.backend.context_length)
    with_tools = offers_tools(body)
    one_call = body.parallel_tool_calls is False

    def new_choice() -> Choice:
        return Choice(served.tokenizer, stops=body.stops, tools=with_tools, one_call=one_call)

    eager = bool(body.stream or body.stops or (with_tools and one_call))
    answering = Answering(server, served, [prompt], n=body.choices, eager=eager, choice=new_choice)
    answering.run.images = tuple(images)
    answering.submit(
        lambda number: sampling_params(
            body,
            max_new_tokens=room,
            alternatives=(body.top_logprobs or 0) if body.logprobs else None,
            stop_ids=tuple(served.tokenizer.stop_ids),
            vocab_size=served.tokenizer.vocab_size,
            choice=number,
        ),
        param="messages",
    )
    if body.stream:
        chunks = _chunks(body, served, answering)
        return EventStream(server, answering.run, chunks, answering.end)
    return await answer(request, server, answering.run, _whole(body, served, answering))


def offers_tools(body: ChatCompletionRequest) -> bool:
    """Tell whether the model is shown tools: with `none` it isn't, so it can't call one."""
    return bool(body.tools) and body.tool_choice != "none"


def chat_prompt(
    served: Served, body: ChatCompletionRequest, *, images: Sequence[Sequence[int]] = ()
) -> list[int]:
    """Render the messages to token ids, up to where the answer begins.

    Raises:
        ApiError: 400; the chat template refuses them, or they are too long.
    """
    messages = [to_message(message) for message in body.messages]
    if served.system and not any(message["role"] == "system" for message in messages):
        messages = [{"role": "system", "content": served.system}, *messages]
    tools = [tool.shown() for tool in body.tools or ()] if offers_tools(body) else None
    # Bytes over those of the longest token: fewer tokens it can't be. A text of megabytes is
    # refused by that, before it is encoded.
    least = sum(map(_size, messages)) // served.longest_token
    if least >= served.backend.context_length:
        raise too_long(least, served.backend.context_length, param="messages", at_least=True)
    try:
        rendered = served.tokenizer.render(
            messages, add_generation_prompt=True, tools=tools, images=images
        )
    except UserError as error:
        raise bad_request(str(error), param="messages", code="invalid_value") from error
    return rendered.ids


def to_message(message: ChatMessage) -> Message:
    """Return the message as the tokenizer takes it: plain strings, `developer` is `system`."""
    role = "system" if message.role == "developer" else message.role
    text = _content(message.content)
    if not isinstance(message, AssistantMessage):
        return {"role": role, "content": text}
    calls = [{"name": call.function.name, "arguments": call.function.arguments}
             for call in message.tool_calls or ()]  # fmt: skip
    return {
        "role": role,
        "content": text,
        "reasoning_content": message.reasoning_content,
        "tool_calls": calls or None,
    }


def _content(content: Content | UserContent | None) -> str | list[dict[str, str]] | None:
    """Return a text; or text and images in the order in which they were said."""
    if content is None or isinstance(content, str):
        return content
    parts = [
        {"type": "image"} if isinstance(part, ImagePart) else {"type": "text", "text": part.text}
        for part in content
    ]
    if any(part["type"] == "image" for part in parts):
        return parts
    return "".join(part["text"] for part in parts)


def _size(message: Message) -> int:
    calls = (call["name"] + call["arguments"] for call in message.get("tool_calls") or ())
    said = message["content"] or ""
    said = [said] if isinstance(said, str) else [part.get("text", "") for part in said]
    texts = (*said, message.get("reasoning_content") or "", *calls)
    return sum(len(text.encode()) for text in texts)


def _head(kind: str, body: ChatCompletionRequest, served: Served) -> Headed:
    return head(kind, prefix="chatcmpl", model=body.model, fingerprint=served.fingerprint)


async def _whole(
    body: ChatCompletionRequest, served: Served, answering: Answering
) -> dict[str, Any]:
    response = _head("chat.completion", body, served)
    answers = await answering.collect()
    response["choices"] = [
        _choice(number, delta, served.tokenizer if body.logprobs else None)
        for number, delta in enumerate(answers)
    ]
    return response | {"usage": answering.usage}


def _choice(index: int, delta: Delta, logprobs: Tokenizer | None) -> ChatChoice:
    content = delta.text if delta.text or not delta.calls else None
    choice: ChatChoice = {
        "index": index,
        "message": {"role": "assistant", "content": content, "refusal": None},
        "logprobs": chat_logprobs(logprobs, delta.tokens) if logprobs else None,
        "finish_reason": delta.finish or "stop",
    }
    if delta.calls:
        choice["message"]["tool_calls"] = [_call(call) for call in delta.calls]
    return choice


def _call(call: ToolCall) -> ToolCallOut:
    function = {"name": call.name, "arguments": call.arguments}
    return {"id": call.id, "type": "function", "function": function}  # pyright: ignore


async def _chunks(
    body: ChatCompletionRequest, served: Served, answering: Answering
) -> AsyncIterator[dict[str, Any]]:
    """Yield the chunks: role, content, calls, finish of each answer; the usage if asked for."""
    base = _head("chat.completion.chunk", body, served)
    usage = {"usage": None} if body.include_usage else {}
    tokenizer = served.tokenizer if body.logprobs else None

    def chunk(
        index: int,
        delta: dict[str, Any],
        tokens: list[TokenAt] | None = None,
        finish: str | None = None,
    ) -> dict[str, Any]:
        logprobs = chat_logprobs(tokenizer, tokens) if tokenizer and tokens else None
        choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish}
        return base | {"choices": [choice]} | usage

    for index in range(len(answering.choices)):
        yield chunk(index, {"role": "assistant", "content": "", "refusal": None})
    kept: dict[int, list[TokenAt]] = {}  # tokens of a call, until it is whole
    async for index, delta in answering.deltas():
        tokens = kept.pop(index, []) + delta.tokens
        if not delta.is_news:
            kept[index] = tokens
            continue
        if delta.text:
            yield chunk(index, {"content": delta.text}, tokens)
            tokens = []
        for call in delta.calls:
            called = {"index": call.index, **_call(call)}
            called["function"] = {"name": call.name, "arguments": ""}
            yield chunk(index, {"tool_calls": [called]}, tokens)
            tokens = []
            rest = {"index": call.index, "function": {"arguments": call.arguments}}
            yield chunk(index, {"tool_calls": [rest]})
        if delta.finish:
            yield chunk(index, {}, tokens, delta.finish)
    if body.include_usage:
        yield base | {"choices": [], "usage": answering.usage}
