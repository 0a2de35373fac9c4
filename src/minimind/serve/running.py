"""One HTTP request's generations: from the backend's thread to the event loop, and their end.

A step of the backend makes one event for each running request. All of them cross to the event loop
on one wake-up (`Bridge`), and a request that isn't streamed wakes its handler only when it is done:
a wake-up for each token would cost more than small models take to make it.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from functools import partial
from typing import Literal

from minimind.inference.backend import Backend, Generation, TokenEvent
from minimind.inference.sampling import SamplingParams

Abort = Literal["disconnected", "timeout", "shutdown"]


class AbortedError(Exception):
    """The request ends before its answers do; `reason` says who wanted that."""

    def __init__(self, reason: Abort) -> None:
        super().__init__(reason)
        self.reason: Abort = reason


class Bridge:
    """Brings events from other threads to runs on the event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._events: deque[tuple[Run, int, TokenEvent]] = deque()
        self._scheduled = False

    def post(self, run: Run, choice: int, event: TokenEvent) -> None:
        """Take an event, from any thread."""
        self._events.append((run, choice, event))
        # An event put down before the flag is read: `_deliver` lowers the flag before it looks.
        if not self._scheduled and not self._loop.is_closed():
            self._scheduled = True
            self._loop.call_soon_threadsafe(self._deliver)

    def _deliver(self) -> None:
        self._scheduled = False
        while self._events:
            run, choice, event = self._events.popleft()
            run.receive(choice, event)


class Run:
    """The answers to one request.

    Attributes:
        started: `time.perf_counter()` when the request came.
        first_token: the same when the first token came, 0 before.
        last_token: the same for the newest token.
        tokens: how many came.
        aborted: why it ended early.
        images: of the prompt; held until the backend has ended every answer.
    """

    def __init__(self, bridge: Bridge, *, eager: bool, timeout: float) -> None:
        """Begin the clock.

        Args:
            bridge: of this event loop.
            eager: hand events on as they come (a stream, stop strings) or all at the end.
            timeout: seconds until it is aborted.
        """
        self.started = time.perf_counter()
        self.first_token = self.last_token = 0.0
        self.tokens = 0
        self.aborted: Abort | None = None
        self.images: tuple[object, ...] = ()
        self._bridge, self._eager = bridge, eager
        self._generations: list[Generation] = []
        self._open: set[int] = set()
        self._inbox: list[tuple[int, TokenEvent]] = []
        self._news = asyncio.Event()
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(timeout, partial(self.abort, "timeout"))

    def submit(self, backend: Backend, prompt: Sequence[int], params: SamplingParams) -> int:
        """Queue one more answer; return its number.

        Raises:
            QueueFullError, DataError, ConfigError: see `Backend.submit`.
        """
        choice = len(self._generations)
        on_event = partial(self._bridge.post, self, choice)
        self._generations.append(backend.submit(prompt, params, on_event))
        self._open.add(choice)
        return choice

    def receive(self, choice: int, event: TokenEvent) -> None:
        """Take an event, on the event loop."""
        if event.token is not None:
            self.tokens += 1
            self.last_token = time.perf_counter()
            self.first_token = self.first_token or self.last_token
        self._inbox.append((choice, event))
        if event.end is not None:
            self._open.discard(choice)
        if self._eager or not self._open:
            self._news.set()

    async def events(self) -> AsyncIterator[list[tuple[int, TokenEvent]]]:
        """Yield (choice, event) pairs as they come, until every answer has its end.

        Raises:
            AbortedError: `abort` was called.
        """
        while self._open or self._inbox:
            if not self._inbox or (self._open and not self._eager):
                await self._news.wait()
            self._news.clear()
            if self.aborted:
                raise AbortedError(self.aborted)
            batch, self._inbox = self._inbox, []
            yield batch

    def cancel(self, choice: int) -> None:
        """End one answer: no more of it is wanted."""
        self._generations[choice].cancel()

    def abort(self, reason: Abort) -> None:
        """End all answers; `events` raises."""
        if self.aborted is None:
            self.aborted = reason
            self.close()
            self._news.set()

    def close(self) -> None:
        """Free what is still running; harmless when nothing is."""
        self._timer.cancel()
        for generation in self._generations:
            generation.cancel()
