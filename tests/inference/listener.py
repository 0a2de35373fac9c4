"""Submit to a backend and collect what comes."""

from __future__ import annotations

import threading

from minimind.inference.backend import Backend, Generation, TokenEvent
from minimind.inference.sampling import SamplingParams


class Listener:
    """The events of one request.

    Attributes:
        events: in order.
        generation: to cancel it.
    """

    def __init__(self, backend: Backend, prompt: list[int], params: SamplingParams) -> None:
        self.events: list[TokenEvent] = []
        self.over = threading.Event()
        self.generation: Generation = backend.submit(prompt, params, self._on_event)

    def _on_event(self, event: TokenEvent) -> None:
        self.events.append(event)
        if event.end is not None:
            self.over.set()

    @property
    def ids(self) -> list[int]:
        return [event.token for event in self.events if event.token is not None]

    def wait(self) -> Listener:
        assert self.over.wait(60), "no last event within a minute"
        return self

    @property
    def end(self) -> str | None:
        return self.wait().events[-1].end
