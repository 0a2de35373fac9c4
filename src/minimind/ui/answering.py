"""From a message to an answer: the request, what doesn't fit is left out, stop, what went wrong."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from minimind.ui.client import Server, ServerError
from minimind.ui.conversation import Conversation, Turn, messages_of

TICK = 0.1
"""Seconds between two changes of the page. 50 characters a second come as 5 at a time: text still
flows, and the browser lays it out 10 times a second instead of 50."""


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """What the controls say; the neutral values are those that change nothing."""

    temperature: float = 0.7
    top_p: float = 0.9
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.1
    max_tokens: int = 256
    seed: int | None = None

    def options(self) -> dict[str, Any]:
        """Return the fields of a request; those beyond OpenAI's only where they do something."""
        options: dict[str, Any] = {
            "temperature": self.temperature,
            "top_p": self.top_p,
            "max_tokens": self.max_tokens,
        }
        beyond = {"top_k": (self.top_k, 0), "min_p": (self.min_p, 0.0),
                  "repetition_penalty": (self.repetition_penalty, 1.0),
                  "seed": (self.seed, None)}  # fmt: skip
        return options | {
            name: value for name, (value, neutral) in beyond.items() if value != neutral
        }


async def answer(
    server: Server, conversation: Conversation, turn: Turn, sampling: Sampling
) -> AsyncIterator[None]:
    """Fill `turn`, the last of the conversation; yield at most every `TICK` when it has grown.

    `conversation.stop()` ends it in between, and so does closing this iterator: the connection is
    closed, by which the server frees the slot.
    """
    task = asyncio.create_task(_read(server, conversation, turn, sampling))
    conversation.reading = task
    size = 0
    try:
        while not task.done():
            await asyncio.wait({task}, timeout=TICK)
            if len(turn.answer) != size and not task.done():
                size = len(turn.answer)
                yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def _read(server: Server, conversation: Conversation, turn: Turn, sampling: Sampling) -> None:
    try:
        await _read_what_fits(server, conversation, turn, sampling)
    except ServerError as error:
        turn.error = error
    except asyncio.CancelledError:
        turn.finish = "stopped"
        raise
    except Exception as error:  # whatever it is, the page must say it and keep the conversation
        turn.error = ServerError("failed", f"{type(error).__name__}: {error}")


async def _read_what_fits(
    server: Server, conversation: Conversation, turn: Turn, sampling: Sampling
) -> None:
    """Ask; while the context is too small, leave out the oldest turn, at last the length asked for.

    Only the server can count the tokens. Its refusals are quick: nothing is generated for them.
    """
    options = sampling.options()
    turns = [*conversation.turns]
    while True:
        messages = messages_of(turns, system=conversation.system)
        try:
            await _read_once(server, turn, messages, options)
            return
        except ServerError as error:
            if error.code != "context_length_exceeded" or turn.answer:
                raise
            if len(turns) > 1:
                turns = turns[1:]
                turn.dropped += 1
            elif options.pop("max_tokens", None) is not None:
                turn.shortened = True
            else:
                raise


async def _read_once(
    server: Server, turn: Turn, messages: list[dict[str, Any]], options: dict[str, Any]
) -> None:
    started = time.perf_counter()
    pieces = server.chat(turn.model, messages, options)
    async with contextlib.aclosing(pieces):
        async for piece in pieces:
            turn.seconds = time.perf_counter() - started
            if piece.text:
                turn.first = turn.first or turn.seconds
            turn.answer += piece.text
            turn.tokens += piece.tokens
            turn.finish = piece.finish or turn.finish
            turn.counted = piece.completion_tokens or turn.counted
