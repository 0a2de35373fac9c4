"""Submit to a backend and collect what comes."""

from __future__ import annotations

import threading

from minimind.inference.backend import Backend, Generation, TokenEvent
from minimind.inference.sampling import SamplingParams

PATIENCE = 300.0  # seconds; a shared machine may take long


class Listener:
    """The events of one request.

    Args:
        backend: what it is submitted to.
        prompt: token ids.
        params: how to continue it.
        until: each event waits for it, and the backend's thread with it: a small model would be
            done before a test that was not given a processor looks again.

    Attributes:
        events: in order.
        generation: to cancel it.
    """

    def __init__(
        self,
        backend: Backend,
        prompt: list[int],
        params: SamplingParams,
        *,
        until: threading.Event | None = None,
    ) -> None:
        self.events: list[TokenEvent] = []
        self._until = until
        self.over = threading.Event()
        self.generation: Generation = backend.submit(prompt, params, self._on_event)

    def _on_event(self, event: TokenEvent) -> None:
        self.events.append(event)
        if self._until is not None:
            self._until.wait(PATIENCE)
        if event.end is not None:
            self.over.set()

    @property
    def ids(self) -> list[int]:
        return [event.token for event in self.events if event.token is not None]

    def wait(self) -> Listener:
        assert self.over.wait(PATIENCE), "no last event in five minutes"
        return self

    @property
    def end(self) -> str | None:
        return self.wait().events[-1].end
