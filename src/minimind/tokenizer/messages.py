"""Conversations as they are given: which messages there are, and what is wrong with one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from minimind.errors import DataError, did_you_mean

ROLES = ("system", "user", "assistant", "tool")

Message = dict[str, Any]
"""`{"role": "system|user|assistant|tool", "content": str}`; a user's content may also be a list of
`{"type": "text", "text": str}` and `{"type": "image"}`; an assistant message may also have
`reasoning_content` (str) and `tool_calls` (a list of `{"name", "arguments"}` or OpenAI's
`{"type": "function", "function": {"name", "arguments"}}`), and then needs no content."""


def check_messages(messages: Sequence[Message]) -> None:
    """Check the shape of a conversation.

    Raises:
        DataError: it is empty, or a message has an unknown role, no content, or a wrong type; the
            message names the index, the key, the value and what is expected.
    """
    if isinstance(messages, (str, bytes, dict)) or not isinstance(messages, Sequence):
        raise DataError(f"messages is {shown(messages)}: must be a list of messages")
    if not messages:
        raise DataError('messages is empty: give at least {"role": "user", "content": "..."}')
    for index, message in enumerate(messages):
        where = f"messages[{index}]"
        if not isinstance(message, dict):
            raise DataError(f"{where} is {shown(message)}: must be an object with role and content")
        role = message.get("role")
        if role not in ROLES:
            hint = did_you_mean(role, ROLES) if isinstance(role, str) else ""
            raise DataError(f"{where}.role is {shown(role)}: use one of {', '.join(ROLES)}.{hint}")
        _check_text(message, where)
        _check_tool_calls(message, where)


def _check_text(message: Message, where: str) -> None:
    content = message.get("content")
    may_be_missing = message["role"] == "assistant" and (
        message.get("tool_calls") or message.get("reasoning_content")
    )
    if content is None and not may_be_missing:
        raise DataError(f"{where}.content is missing: must be a string")
    if message["role"] == "user" and isinstance(content, list):
        _check_parts(content, where)
    elif content is not None and not isinstance(content, str):
        raise DataError(f"{where}.content is {shown(content)}: must be a string")
    reasoning = message.get("reasoning_content")
    if reasoning is not None and not isinstance(reasoning, str):
        raise DataError(f"{where}.reasoning_content is {shown(reasoning)}: must be a string")


def _check_parts(parts: list[Any], where: str) -> None:
    for number, part in enumerate(parts):
        is_text = isinstance(part, dict) and part.get("type") == "text"
        is_image = isinstance(part, dict) and part.get("type") == "image"
        if not is_image and not (is_text and isinstance(part.get("text"), str)):
            raise DataError(
                f'{where}.content[{number}] is {shown(part)}: must be {{"type": "text", "text": '
                '"..."} or {"type": "image"}'
            )


def _check_tool_calls(message: Message, where: str) -> None:
    calls = message.get("tool_calls")
    if calls is None:
        return
    if not isinstance(calls, list):
        raise DataError(f"{where}.tool_calls is {shown(calls)}: must be a list")
    for number, call in enumerate(calls):
        at = f"{where}.tool_calls[{number}]"
        function = (call.get("function") or call) if isinstance(call, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise DataError(f'{at} is {shown(call)}: must have a "name" (a string)')
        if not isinstance(function.get("arguments"), (str, dict)):
            raise DataError(
                f'{at} is {shown(call)}: must have "arguments" (an object, or its JSON string)'
            )


def shown(value: object) -> str:
    """Show a value in an error, shortened."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def count_images(messages: Sequence[Message]) -> int:
    """Return how many images a conversation shows."""
    contents = [message.get("content") for message in messages]
    parts = [part for content in contents if isinstance(content, list) for part in content]
    return sum(part.get("type") == "image" for part in parts)


def check_image_count(messages: Sequence[Message], given: int) -> None:
    """Refuse a conversation that shows more or fewer images than were given.

    Raises:
        DataError: says both numbers.
    """
    check_messages(messages)
    shown = count_images(messages)
    if shown != given:
        raise DataError(
            f"the messages show {shown} image{'s' * (shown != 1)} (parts of type image, or <image> "
            f"in a data row), {given} {'were' if given != 1 else 'was'} given: give one for each"
        )
