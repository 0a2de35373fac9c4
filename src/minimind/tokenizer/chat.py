"""The chat format: which pieces a conversation is made of, and which of them are learnt.

ChatML with Qwen3's tool syntax. The format is written twice, as `chat_parts` for training and
inference here and as `CHAT_TEMPLATE` (Jinja) for everybody else's programs; the tests hold the two
equal. A conversation only ever grows at its end (reasoning of earlier turns is kept), so the ids of
a prompt are a prefix of the ids of the whole conversation and a KV cache can be reused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from minimind.errors import DataError
from minimind.tokenizer.messages import Message, check_messages, shown

SPECIAL_TOKENS: tuple[str, ...] = (
    "<|endoftext|>",  # ends a document; also padding
    "<|im_start|>",
    "<|im_end|>",
    "<think>",
    "</think>",
    "<tool_call>",
    "</tool_call>",
    "<tool_response>",
    "</tool_response>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|reserved_0|>",
    "<|reserved_1|>",
    "<|reserved_2|>",
    "<|reserved_3|>",
)
"""Tokens with ids 0 to 15. Only the chat renderer and the data loader produce them."""

TOOLS_HEAD = (
    "# Tools\n\nYou may call one or more functions to assist with the user query.\n\n"
    "You are provided with function signatures within <tools></tools> XML tags:\n<tools>"
)
TOOLS_TAIL = (
    "\n</tools>\n\nFor each function call, return a json object with function name and arguments "
    "within <tool_call></tool_call> XML tags:\n<tool_call>\n"
    '{"name": <function-name>, "arguments": <args-json-object>}\n</tool_call>'
)

IMAGE_PAD = "<|image_pad|>"
IMAGE_FORMAT = f"<|vision_start|>{IMAGE_PAD}<|vision_end|>"
"""An image in a message. The model reads as many vectors there as its encoder gives: the renderer
puts that many ids in place of `<|image_pad|>`."""

CHAT_TEMPLATE = """\
{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- if messages[0].role == 'system' %}
        {{- messages[0].content + '\\n\\n' }}
    {%- endif %}
    {{- TOOLS_HEAD }}
    {%- for tool in tools %}
        {{- '\\n' }}
        {{- tool | tojson }}
    {%- endfor %}
    {{- TOOLS_TAIL }}
    {{- '<|im_end|>\\n' }}
{%- elif messages[0].role == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
    {%- if message.role == 'user' or (message.role == 'system' and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
    {%- elif message.role == 'assistant' %}
        {{- '<|im_start|>assistant\\n' }}
        {%- set content = (message.content or '') | trim %}
        {%- set reasoning = (message.reasoning_content or '') | trim %}
        {%- if reasoning %}
            {{- '<think>\\n' + reasoning + '\\n</think>\\n\\n' }}
        {%- endif %}
        {{- content }}
        {%- for tool_call in message.tool_calls or [] %}
            {%- if content or not loop.first %}
                {{- '\\n' }}
            {%- endif %}
            {%- if tool_call.function %}
                {%- set tool_call = tool_call.function %}
            {%- endif %}
            {{- '<tool_call>\\n{"name": "' + tool_call.name + '", "arguments": ' }}
            {%- if tool_call.arguments is string %}
                {{- tool_call.arguments }}
            {%- else %}
                {{- tool_call.arguments | tojson }}
            {%- endif %}
            {{- '}\\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>' }}
        {{- '\\n' }}
    {%- elif message.role == 'tool' %}
        {%- if loop.first or messages[loop.index0 - 1].role != 'tool' %}
            {{- '<|im_start|>user' }}
        {%- endif %}
        {{- '\\n<tool_response>\\n' + message.content + '\\n</tool_response>' }}
        {%- if loop.last or messages[loop.index0 + 1].role != 'tool' %}
            {{- '<|im_end|>\\n' }}
        {%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
""".replace("TOOLS_HEAD", json.dumps(TOOLS_HEAD)).replace("TOOLS_TAIL", json.dumps(TOOLS_TAIL))
"""What is exported as chat_template.jinja; for transformers, vLLM and llama.cpp alike."""


@dataclass(frozen=True, slots=True)
class Rendered:
    """A conversation as token ids.

    Attributes:
        ids: token ids.
        mask: one flag an id; True where the assistant speaks (its reasoning, its tool calls and
            its `<|im_end|>` included), which is what SFT learns.
    """

    ids: list[int]
    mask: list[bool]


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a conversation: either one special token, or plain text."""

    text: str
    special: bool
    learn: bool


_SPECIAL = re.compile("(" + "|".join(map(re.escape, SPECIAL_TOKENS)) + ")")


def chat_parts(
    messages: Sequence[Message],
    tools: Sequence[dict[str, Any]] | None = None,
    *,
    add_generation_prompt: bool = False,
) -> list[Part]:
    """Lay a conversation out as special tokens and text, neighbouring text joined.

    What users and models wrote is always plain text, even where it spells a special token: nobody
    can end a turn or start a system message from inside a message.

    Raises:
        DataError: a message or tool is malformed; names its index and what is expected.
    """
    check_messages(messages)
    parts: list[Part] = []
    for text, is_format, learn in _pieces(messages, tools or [], add_generation_prompt):
        split = _SPECIAL.split(text) if is_format else [text]
        for piece in filter(None, split):
            special = is_format and piece in SPECIAL_TOKENS
            last = parts[-1] if parts else None
            if last and not special and not last.special and last.learn == learn:
                parts[-1] = Part(last.text + piece, special=False, learn=learn)
            else:
                parts.append(Part(piece, special=special, learn=learn))
    return parts


_Piece = tuple[str, bool, bool]  # text, does it belong to the format (not to a message), learnt?


def _pieces(
    messages: Sequence[Message], tools: Sequence[dict[str, Any]], add_generation_prompt: bool
) -> Iterator[_Piece]:
    has_system = messages[0]["role"] == "system"
    if tools:
        yield "<|im_start|>system\n", True, False
        if has_system:
            yield messages[0]["content"], False, False
            yield "\n\n", True, False
        yield from _tool_list(tools)
    for index, message in enumerate(messages):
        role = message["role"]
        if role == "assistant":
            yield from _assistant(message)
        elif role == "tool":
            first = index == 0 or messages[index - 1]["role"] != "tool"
            last = index + 1 == len(messages) or messages[index + 1]["role"] != "tool"
            yield ("<|im_start|>user" if first else "") + "\n<tool_response>\n", True, False
            yield message["content"], False, False
            yield "\n</tool_response>" + ("<|im_end|>\n" if last else ""), True, False
        elif not (tools and has_system and index == 0):
            yield f"<|im_start|>{role}\n", True, False
            yield from _content(message["content"])
            yield "<|im_end|>\n", True, False
    if add_generation_prompt:
        yield "<|im_start|>assistant\n", True, False


def _content(content: str | list[dict[str, Any]]) -> Iterator[_Piece]:
    """Yield a text, or the parts of one with images."""
    for part in [{"type": "text", "text": content}] if isinstance(content, str) else content:
        if part["type"] == "image":
            yield IMAGE_FORMAT, True, False
        else:
            yield part["text"], False, False


def _tool_list(tools: Sequence[dict[str, Any]]) -> Iterator[_Piece]:
    yield TOOLS_HEAD, True, False
    for index, tool in enumerate(tools):
        if not isinstance(tool, dict):
            raise DataError(f"tools[{index}] is {shown(tool)}: must be an object (a JSON schema)")
        yield "\n" + json.dumps(tool, ensure_ascii=False), False, False
    yield TOOLS_TAIL + "<|im_end|>\n", True, False


def _assistant(message: Message) -> Iterator[_Piece]:
    yield "<|im_start|>assistant\n", True, False
    # Trimmed, because a leading newline would melt into the header's token, which no longer would
    # be the token that the generation prompt ends with.
    content = (message.get("content") or "").strip()
    reasoning = (message.get("reasoning_content") or "").strip()
    if reasoning:
        yield "<think>\n", True, True
        yield reasoning, False, True
        yield "\n</think>\n\n", True, True
    yield content, False, True
    for number, call in enumerate(message.get("tool_calls") or []):
        call = call.get("function") or call
        arguments = call["arguments"]
        if not isinstance(arguments, str):
            arguments = json.dumps(arguments, ensure_ascii=False)
        yield ("\n" if content or number else "") + "<tool_call>\n", True, True
        yield f'{{"name": "{call["name"]}", "arguments": {arguments}}}', False, True
        yield "\n</tool_call>", True, True
    yield "<|im_end|>", True, True
    yield "\n", True, False
