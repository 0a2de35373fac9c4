"""The shapes that rows come in, brought to three: a text, a conversation, a preference pair.

Each function returns the row, or raises `RowError` with the reason why it can't be used; the
reader counts it, keeps it, and goes on.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Literal

from minimind.errors import did_you_mean

Kind = Literal["text", "chat", "preference", "image"]
Message = dict[str, Any]

_ROLES = {
    "user": "user", "human": "user", "prompter": "user", "system": "system",
    "assistant": "assistant", "gpt": "assistant", "bot": "assistant", "chatgpt": "assistant",
    "model": "assistant", "tool": "tool", "observation": "tool", "function": "tool",
    "ipython": "tool", "tool_response": "tool", "tool_call": "assistant",
    "function_call": "assistant",
}  # fmt: skip
_CALLING_ROLES = {"tool_call", "function_call"}
_TEXT_FIELDS = ("text", "content")
_CHAT_FIELDS = ("conversations", "messages", "conversation")
_ALPACA_FIELDS = ("instruction", "prompt", "query")
_ALPACA_ANSWERS = ("output", "response")
_EXPECTED: dict[Kind, str] = {
    "text": '{"text": "..."}',
    "chat": '{"messages": [{"role": "user", "content": "..."}, {"role": "assistant", ...}]} '
    '(or "conversations", or "instruction"/"input"/"output")',
    "preference": '{"chosen": [messages], "rejected": [messages]} '
    '(or "prompt" with "chosen" and "rejected" as strings)',
    "image": '{"image": "FILE", "conversations": [{"role": "user", "content": "<image>..."}, '
    '{"role": "assistant", ...}]} (or "images": ["FILE", ...]), among them rows without an image: '
    "conversations or texts",
}
_FIELDS: dict[Kind, tuple[str, ...]] = {
    "text": _TEXT_FIELDS,
    "chat": _CHAT_FIELDS + _ALPACA_FIELDS,
    "preference": ("chosen", "rejected", "prompt"),
    "image": ("image", "images", *_CHAT_FIELDS, *_ALPACA_FIELDS, *_TEXT_FIELDS),
}


class RowError(ValueError):
    """Why a row can't be used, in words for its author."""


@dataclass(frozen=True, slots=True)
class TextRow:
    """One document."""

    text: str

    @property
    def held_out_key(self) -> str:
        """Return the text that decides on which side the row is."""
        return self.text


@dataclass(frozen=True, slots=True)
class ChatRow:
    """One conversation: roles system, user, assistant, tool."""

    messages: list[Message]
    tools: list[dict[str, Any]] | None = None

    @property
    def held_out_key(self) -> str:
        """Return the first thing that the user says: a question's answers all stay on its side."""
        return first_user_text(self.messages)


@dataclass(frozen=True, slots=True)
class PreferenceRow:
    """Two conversations that begin alike: the preferred and the other."""

    chosen: list[Message]
    rejected: list[Message]

    @property
    def held_out_key(self) -> str:
        """Return the first thing that the user says."""
        return first_user_text(self.chosen)


@dataclass(frozen=True, slots=True)
class ImageRow:
    """One conversation about images.

    Attributes:
        messages: a user's content is a list of parts, some of type `image`.
        images: files, as the row names them: relative to the data file's folder.
        concept: what the images show; rows of one concept are held out together.
    """

    messages: list[Message]
    images: tuple[str, ...]
    concept: str

    @property
    def held_out_key(self) -> str:
        """Return the concept."""
        return self.concept


Row = TextRow | ChatRow | PreferenceRow | ImageRow


def first_user_text(messages: list[Message]) -> str:
    """Return what the user says first, or the first message of all."""
    said = (message for message in messages if message["role"] == "user")
    return str(next(said, messages[0])["content"])


def parse_row(value: Any, kind: Kind) -> Row:
    """Return the row that a parsed JSON line stands for.

    Raises:
        RowError: the line has not the shape of a row of this kind, or nothing to learn.
    """
    if not isinstance(value, dict):
        raise RowError(f"a row is a JSON object, this is {type(value).__name__}")
    if kind == "text":
        return _text(value)
    if kind == "chat":
        return _chat(value)
    if kind == "image":
        return _image(value)
    return _preference(value)


def _text(value: dict[str, Any]) -> TextRow:
    field = _field(value, _TEXT_FIELDS)
    if field is None:
        raise _no_field(value, "text")
    text = value[field]
    if not isinstance(text, str):
        raise RowError(f"{field!r} must be a string, this is {type(text).__name__}")
    if not text.strip():
        raise RowError(f"nothing to learn: {field!r} is empty")
    return TextRow(text)


def _chat(value: dict[str, Any]) -> ChatRow:
    if (field := _field(value, _CHAT_FIELDS)) is not None:
        messages = _messages(value[field], field)
        if isinstance(system := value.get("system"), str) and system:
            messages = [{"role": "system", "content": system}, *messages]
    elif (field := _field(value, _ALPACA_FIELDS)) is not None:
        messages = _alpaca(value, field)
    else:
        raise _no_field(value, "chat")
    learnt = [m for m in messages if m["role"] == "assistant" and _says_something(m)]
    if not learnt:
        raise RowError("nothing to learn: no message of the assistant has any content")
    return ChatRow(messages, _tools(value.get("tools")))


IMAGE_PLACEHOLDER = "<image>"
"""Where a row's text shows an image, as in LLaVA's data."""


def _image(value: dict[str, Any]) -> ImageRow | ChatRow | TextRow:
    field = _field(value, ("image", "images"))
    if field is None or value[field] is None or value[field] == []:
        return _without_image(value)
    if _field(value, _CHAT_FIELDS) is None:
        raise _no_field(value, "image")
    named = [value[field]] if isinstance(value[field], str) else value[field]
    if not isinstance(named, list) or not named or not all(isinstance(n, str) for n in named):
        raise RowError(f"{field!r} must be the path of an image file, or a list of paths")
    messages = [_with_images(message) for message in _chat(value).messages]
    shown = sum(part["type"] == "image" for m in messages for part in _parts_of(m))
    if shown != len(named):
        raise RowError(
            f"the messages have {shown} {IMAGE_PLACEHOLDER}, the row names {len(named)} images: "
            f"write one {IMAGE_PLACEHOLDER} for each, in what the user says"
        )
    concept = value.get("concept")
    return ImageRow(messages, tuple(named), concept if isinstance(concept, str) else named[0])


def _without_image(value: dict[str, Any]) -> ChatRow | TextRow:
    """Return a conversation or a text that is read among images."""
    if _field(value, _CHAT_FIELDS + _ALPACA_FIELDS) is not None:
        row = _chat(value)
        said = [message["content"] for message in row.messages if message["role"] == "user"]
    elif _field(value, _TEXT_FIELDS) is not None:
        row = _text(value)
        said = [row.text]
    else:
        raise _no_field(value, "image")
    if any(IMAGE_PLACEHOLDER in text for text in said):
        raise RowError(
            f"the row says {IMAGE_PLACEHOLDER} and names no image: add its file as 'image', or "
            "take the placeholder out"
        )
    return row


def _with_images(message: Message) -> Message:
    """Return a user's message with its placeholders as parts; `<image>` and a line's end."""
    if message["role"] != "user" or IMAGE_PLACEHOLDER not in message["content"]:
        return message
    first, *texts = message["content"].split(IMAGE_PLACEHOLDER)
    parts: list[dict[str, str]] = [{"type": "text", "text": first}] if first else []
    for text in texts:
        parts.append({"type": "image"})
        if text := text.removeprefix("\n"):
            parts.append({"type": "text", "text": text})
    return message | {"content": parts}


def _parts_of(message: Message) -> list[dict[str, str]]:
    return message["content"] if isinstance(message["content"], list) else []


def _tools(value: Any) -> list[dict[str, Any]] | None:
    """Return the functions' schemas; some data sets give them as a string of JSON."""
    if isinstance(value, str) and value.strip():
        value = _json(value, "'tools'")
    return value if isinstance(value, list) and value else None


def _json(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise RowError(f"{where} is not JSON: {error}") from error


def _preference(value: dict[str, Any]) -> PreferenceRow:
    for field in ("chosen", "rejected"):
        if field not in value:
            raise _no_field(value, "preference")
    prompt = value.get("prompt", value.get("conversations", []))
    if isinstance(prompt, str):
        prompt = [{"role": "user", "content": prompt}] if prompt else []
    prompt = _messages(prompt, "prompt") if prompt else []
    if isinstance(system := value.get("system"), str) and system:
        prompt = [{"role": "system", "content": system}, *prompt]
    sides: list[list[Message]] = []
    for field in ("chosen", "rejected"):
        side = value[field]
        if isinstance(side, str):
            if not prompt:
                raise RowError(f"{field!r} is a string, so the row needs a 'prompt'")
            side = [{"role": "assistant", "content": side}]
        elif isinstance(side, dict):  # one message: LLaMA-Factory's way
            side = [side]
        messages = _messages(side, field)
        if messages[0]["role"] == "assistant":
            messages = prompt + messages
        elif prompt and prompt[0]["role"] == "system" and messages[0]["role"] != "system":
            messages = [prompt[0], *messages]
        if messages[-1]["role"] != "assistant" or not _says_something(messages[-1]):
            raise RowError(f"{field!r} must end with what the assistant says")
        sides.append(messages)
    if sides[0] == sides[1]:
        raise RowError("nothing to learn: 'chosen' and 'rejected' are the same")
    return PreferenceRow(*sides)


def _messages(value: Any, field: str) -> list[Message]:
    if not isinstance(value, list) or not value:
        raise RowError(f"{field!r} must be a list of messages that isn't empty")
    return [_message(message, f"{field}[{i}]") for i, message in enumerate(value)]


def _message(value: Any, where: str) -> Message:
    if not isinstance(value, dict):
        raise RowError(f"{where} must be an object with 'role' and 'content'")
    role = value.get("role", value.get("from"))
    content = value.get("content", value.get("value"))
    if not isinstance(role, str):
        raise RowError(f"{where} has no 'role' (or 'from')")
    known = _ROLES.get(role.lower())
    if known is None:
        raise RowError(f"{where} has the role {role!r}.{did_you_mean(role, _ROLES)} "
                       "Roles: system, user, assistant, tool")  # fmt: skip
    if isinstance(content, list):  # OpenAI's parts; pictures have a format of their own
        texts = [part.get("text") for part in content if isinstance(part, dict)]
        parts = [text for text in texts if isinstance(text, str)]
        if len(parts) != len(content):
            raise RowError(f"{where} has parts that are not text")
        content = "".join(parts)
    if content is None and value.get("tool_calls"):
        content = ""
    if not isinstance(content, str):
        raise RowError(f"{where} has no 'content' (or 'value') that is a string")
    extra = {k: value[k] for k in ("tool_calls", "reasoning_content") if value.get(k)}
    if role.lower() in _CALLING_ROLES:  # ShareGPT's way to write a call
        calls = _json(content, where)
        content, extra["tool_calls"] = "", calls if isinstance(calls, list) else [calls]
    return {"role": known, "content": content, **extra}


def _alpaca(value: dict[str, Any], field: str) -> list[Message]:
    answer_field = _field(value, _ALPACA_ANSWERS)
    if answer_field is None:
        near = next((did_you_mean(key, _ALPACA_ANSWERS) for key in value if key != field), "")
        raise RowError(f"{field!r} is there but no 'output' (or 'response').{near}")
    messages: list[Message] = []
    if isinstance(system := value.get("system"), str) and system:
        messages.append({"role": "system", "content": system})
    history = value.get("history") or []
    if not isinstance(history, list):
        raise RowError("'history' must be a list of [question, answer]")
    for turn in history:
        if not (isinstance(turn, list) and len(turn) == 2):
            raise RowError("'history' must be a list of [question, answer]")
        messages += [{"role": "user", "content": str(turn[0])},
                     {"role": "assistant", "content": str(turn[1])}]  # fmt: skip
    question, more, answer = value[field], value.get("input") or "", value[answer_field]
    if not all(isinstance(text, str) for text in (question, more, answer)):
        raise RowError(f"{field!r}, 'input' and {answer_field!r} must be strings")
    question = f"{question}\n{more}" if more else question
    return [*messages, {"role": "user", "content": question},
            {"role": "assistant", "content": answer}]  # fmt: skip


def _says_something(message: Message) -> bool:
    return bool(message["content"].strip() or message.get("tool_calls"))


def _field(value: dict[str, Any], names: tuple[str, ...]) -> str | None:
    return next((name for name in names if name in value), None)


def _no_field(value: dict[str, Any], kind: Kind) -> RowError:
    fields = ", ".join(repr(key) for key in list(value)[:8]) or "none"
    near = next((n for key in value if (n := did_you_mean(key, _FIELDS[kind]))), "")
    return RowError(
        f"no field for kind {kind!r} among its fields ({fields}).{near} Expected {_EXPECTED[kind]}"
    )
