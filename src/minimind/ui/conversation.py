"""A conversation: its turns, what of them goes to the server, what is shown, and what is saved."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from minimind.ui.client import ServerError, Token
from minimind.ui.images import Attached
from minimind.ui.words import Language, word

Message = dict[str, Any]


@dataclass(kw_only=True)
class Turn:
    """A message of the user and the answer to it, as far as there is one.

    Attributes:
        user: the message.
        image: what it shows.
        answer: its text.
        tokens: of the answer; empty where the server gives none.
        model: which one answered.
        finish: why it ended: `stop`, `length`, `tool_calls`; `stopped` by the user; None while it
            runs or where an error ended it.
        error: what went wrong.
        dropped: how many earlier turns didn't fit into the context.
        shortened: the longest answer asked for didn't fit either.
        counted: tokens of the answer by the server's count.
        seconds: from the request to the last piece.
        first: seconds to the first piece.
    """

    user: str
    image: Attached | None = None
    answer: str = ""
    tokens: list[Token] = field(default_factory=list)
    model: str = ""
    finish: str | None = None
    error: ServerError | None = None
    dropped: int = 0
    shortened: bool = False
    counted: int | None = None
    seconds: float = 0.0
    first: float = 0.0

    def keep(self, other: Turn) -> None:
        """Take over the answer of another turn; an error of this one stays beside it."""
        self.answer, self.tokens, self.model = other.answer, other.tokens, other.model


@dataclass(kw_only=True)
class Conversation:
    """What one open page holds.

    Attributes:
        turns: oldest first.
        system: the system prompt that the last request had.
        language: of the page.
        reading: the answer that is being read; cancelling it closes the connection.
        status: what the status line said last about the server.
        models: ids and names that the choice of models has.
        sees: whether the chosen model reads images.
        image: goes with the next message.
    """

    turns: list[Turn] = field(default_factory=list)
    system: str = ""
    language: Language = "en"
    reading: asyncio.Task[None] | None = None
    status: str = ""
    models: tuple[tuple[str, str], ...] = ()
    sees: bool = False
    image: Attached | None = None

    @property
    def busy(self) -> bool:
        """Whether an answer is being read."""
        return self.reading is not None and not self.reading.done()

    def stop(self) -> None:
        """End the answer that is being read; what came of it stays."""
        if self.reading is not None:
            self.reading.cancel()


def messages_of(turns: Sequence[Turn], *, system: str = "") -> list[Message]:
    """Return turns in OpenAI's shape; an answer that never came is left out."""
    messages: list[Message] = []
    if system.strip():
        messages.append({"role": "system", "content": system})
    for turn in turns:
        messages.append({"role": "user", "content": _said(turn)})
        if turn.answer:
            messages.append({"role": "assistant", "content": turn.answer})
    return messages


def _said(turn: Turn) -> str | list[dict[str, Any]]:
    """Return what the user said as OpenAI's clients send it."""
    if turn.image is None:
        return turn.user
    shown = {"type": "image_url", "image_url": {"url": turn.image.uri}}
    return [shown, {"type": "text", "text": turn.user}]


def explained(error: ServerError, language: Language, *, url: str) -> str:
    """Return an error in words: what happened, and what to do."""
    return word(error.kind, language, message=error.message, url=url)


def shown(turns: Sequence[Turn], language: Language, *, url: str) -> list[dict[str, Any]]:
    """Return turns as the chatbot takes them: an error stands where the answer would."""
    messages: list[dict[str, Any]] = []
    for turn in turns:
        if turn.image is not None:
            messages.append({"role": "user", "content": {"path": turn.image.path}})
        messages.append({"role": "user", "content": harmless(turn.user)})
        running = turn.finish is None and turn.error is None
        if turn.answer or running:
            # A space that isn't one: an empty message would have no bubble.
            messages.append({"role": "assistant", "content": harmless(turn.answer) or "\u2060…"})
        elif turn.finish:
            ended = word(f"ended_{turn.finish}", language)
            messages.append({"role": "assistant", "content": f"*（{ended}）*"})
        if turn.error:
            text = harmless(explained(turn.error, language, url=url)).replace("\n", "\n> ")
            messages.append({"role": "assistant", "content": f"> ⚠️ {text}"})
    return messages


_CODE = re.compile(r"(```.*?(?:```|\Z)|`[^`\n]+`)", re.DOTALL)


def harmless(text: str) -> str:
    """Return Markdown that shows `text`, in which tags are letters and pictures aren't fetched.

    The page's own sanitizer would drop what looks like a tag; here it stays readable.
    """
    parts = _CODE.split(text)
    for number in range(0, len(parts), 2):
        plain = parts[number].replace("&", "&amp;").replace("<", "&lt;")
        parts[number] = plain.replace("![", "!&#91;")
    return "".join(parts)


def to_json(conversation: Conversation) -> str:
    """Return a conversation as `{"messages": [...]}`, a row that `minimind train sft` takes too."""
    messages = messages_of(conversation.turns, system=conversation.system)
    return json.dumps({"messages": messages}, ensure_ascii=False, indent=2) + "\n"


def to_markdown(conversation: Conversation) -> str:
    """Return a conversation for people: a heading for each message, errors as quotes."""
    language = conversation.language
    parts = [f"# MiniMind · {word('title', language)}"]
    if conversation.system.strip():
        parts += [f"## {word('system', language)}", conversation.system.strip()]
    for turn in conversation.turns:
        parts += [f"## {word('user', language)}"]
        if turn.image is not None:
            parts += [f"[{turn.image.name}]"]
        parts += [turn.user]
        if turn.answer or turn.error:
            model = f" · {turn.model}" if turn.model else ""
            parts += [f"## {word('assistant', language)}{model}"]
        if turn.answer:
            parts += [turn.answer]
        if turn.error:
            parts += [f"> {word('error', language)}: {turn.error.message}"]
    return "\n\n".join(parts) + "\n"


def figures(turn: Turn, language: Language) -> str:
    """Return one line on an answer: its length, its speed, how it ended."""
    parts = []
    count = turn.counted or len(turn.tokens)
    if count and turn.seconds > 0:
        rate = (count - 1) / (turn.seconds - turn.first) if turn.seconds > turn.first else 0.0
        parts.append(word("figures", language, tokens=count, rate=rate, first=turn.first))
    if turn.finish:
        known = turn.finish in {"stop", "length", "tool_calls", "stopped"}
        parts.append(word(f"ended_{turn.finish}", language) if known else turn.finish)
    if turn.dropped:
        parts.append(word("dropped", language, count=turn.dropped))
    if turn.shortened:
        parts.append(word("shortened", language))
    return " · ".join(parts)
