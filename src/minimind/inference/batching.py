"""Backends: one thread that steps a `Batch` while others submit and cancel.

`TorchBackend` is the one to use; `BatchBackend` is all of it but the model.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from minimind.errors import ConfigError, DataError
from minimind.inference.backend import (
    BackendClosedError,
    BackendStats,
    OnEvent,
    QueueFullError,
    TokenEvent,
)
from minimind.inference.batch import Batch
from minimind.inference.decode import check_ids
from minimind.inference.rows import Rows, TorchRows
from minimind.inference.sampling import SamplingParams
from minimind.inference.slots import Request
from minimind.model import CausalLM

log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class _Ticket:
    """A submitted request on its way: who wants its events, and whether they still do."""

    request: Request
    on_event: OnEvent
    backend: BatchBackend
    cancelled: bool = False

    def cancel(self) -> None:
        """End it (see `Generation`)."""
        self.backend._cancel(self)


class BatchBackend:
    """Generates for many requests at once (see `backend.Backend`), whatever computes.

    Waiting requests are served in order. A slot that is free keeps its tokens, so the next turn of
    a conversation reads only what is new. With nothing to do its thread sleeps.

    Args:
        rows: of the model that generates; only this backend's thread uses them from now on.
        kind: name of the implementation.
        queue_limit: how many more requests than there are rows may wait.
        prefill_tokens: prompt tokens read in a step while others decode: fewer makes their tokens
            come more evenly, more makes a long prompt's first token come sooner.

    Raises:
        ConfigError: a number is out of range.
    """

    def __init__(
        self, rows: Rows, *, kind: str, queue_limit: int = 64, prefill_tokens: int = 128
    ) -> None:
        if queue_limit < 0:
            raise ConfigError(f"--queue-limit {queue_limit}: must be at least 0")
        self.kind = kind
        self.queue_limit = queue_limit
        self._rows = rows
        self._batch = Batch(rows, prefill_tokens=prefill_tokens)
        self._slots = rows.count
        self._waiting: deque[_Ticket] = deque()
        self._cancelled: list[_Ticket] = []
        self._running: dict[Request, _Ticket] = {}
        # What is above is shared; whoever touches it holds this. The batch is the thread's own.
        self._changed = threading.Condition()
        self._deadline: float | None = None
        self._thread = threading.Thread(target=self._run, name=f"minimind-{kind}", daemon=True)
        self._thread.start()

    @property
    def context_length(self) -> int:
        """Return how many tokens prompt and answer together can have."""
        return self._rows.context

    def submit(self, prompt: Sequence[int], params: SamplingParams, on_event: OnEvent) -> _Ticket:
        """Queue a prompt (see `backend.Backend.submit`)."""
        prompt = list(prompt)
        context, vocab_size = self._rows.context, self._rows.vocab_size
        check_ids(prompt, context=context, vocab_size=vocab_size)
        if len(prompt) == context:
            raise DataError(
                f"the prompt has {len(prompt):,} tokens and fills the model's context: "
                "shorten it, an answer needs room"
            )
        params.check_vocabulary(vocab_size)
        ticket = _Ticket(Request(prompt, params), on_event, self)
        with self._changed:
            if self._deadline is not None:
                raise BackendClosedError("the server is shutting down and takes no new requests")
            if len(self._running) + len(self._waiting) >= self._slots + self.queue_limit:
                raise QueueFullError(
                    f"{len(self._running)} requests run and {len(self._waiting)} wait: that is the "
                    f"limit (slots {self._slots}, queue {self.queue_limit}); try again later"
                )
            self._waiting.append(ticket)
            self._changed.notify()
        return ticket

    def stats(self) -> BackendStats:
        """Return counts for `/metrics`."""
        with self._changed:
            running, waiting = len(self._running), len(self._waiting)
        batch = self._batch
        return BackendStats(
            running=running,
            waiting=waiting,
            slots=self._slots,
            queue_limit=self.queue_limit,
            prompt_tokens=batch.prompt_tokens,
            cached_tokens=batch.cached_tokens,
            generated_tokens=batch.generated_tokens,
            kv_cache_bytes=self._rows.nbytes,
        )

    def close(self, *, drain_seconds: float = 0.0) -> None:
        """Stop taking requests and end (see `backend.Backend.close`)."""
        with self._changed:
            deadline = time.monotonic() + drain_seconds
            self._deadline = min(deadline, self._deadline or deadline)
            self._changed.notify()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _cancel(self, ticket: _Ticket) -> None:
        with self._changed:
            if ticket.cancelled:
                return
            ticket.cancelled = True
            if ticket in self._waiting:
                self._waiting.remove(ticket)  # room in the queue, at once
                self._cancelled.append(ticket)
            elif ticket.request in self._running:
                self._cancelled.append(ticket)
            self._changed.notify()

    def _run(self) -> None:
        while self._await_work():
            try:
                self._leave_and_join()
                events = self._batch.step()
            # Whatever the failure, those who wait must hear of it and the next must be served.
            except Exception as error:
                log.exception("a step of the batch failed; its requests end with an error")
                self._fail(f"{type(error).__name__}: {error}")
                continue
            for request, event in events:
                self._tell(self._running[request], event)
        self._rows.close()

    def _await_work(self) -> bool:
        """Sleep until there is something to do; False when the backend is closed and done."""
        with self._changed:
            while not (self._waiting or self._cancelled or self._running):
                if self._deadline is not None:
                    return False
                self._changed.wait()
            if self._deadline is not None and time.monotonic() >= self._deadline:
                late = [t for t in (*self._running.values(), *self._waiting) if not t.cancelled]
                for ticket in late:
                    ticket.cancelled = True
                self._cancelled += late
                self._waiting.clear()
        return True

    def _leave_and_join(self) -> None:
        """Free the slots of cancelled requests, and give free slots to those that wait."""
        with self._changed:
            cancelled, self._cancelled = self._cancelled, []
        for ticket in cancelled:
            self._batch.remove(ticket.request)
            cached = ticket.request.cached
            self._tell(ticket, TokenEvent(end="cancelled", cached_tokens=cached))
        with self._changed:
            joining = []
            while self._waiting and len(self._running) < self._slots:
                ticket = self._waiting.popleft()
                self._running[ticket.request] = ticket
                joining.append(ticket)
        for ticket in joining:
            self._batch.add(ticket.request)

    def _fail(self, error: str) -> None:
        """End every running request with an error and begin with empty slots."""
        self._batch.clear()
        with self._changed:
            failed = list(self._running.values())
        for ticket in failed:
            self._tell(ticket, TokenEvent(end="error", error=error))

    def _tell(self, ticket: _Ticket, event: TokenEvent) -> None:
        """Hand an event over; a listener that raises loses its request, nobody else does."""
        if event.end is not None:
            with self._changed:
                self._running.pop(ticket.request, None)
                if ticket in self._cancelled:  # cancelled in the very step that ended it
                    self._cancelled.remove(ticket)
        try:
            ticket.on_event(event)
        except Exception:
            log.exception("a listener raised; its request is cancelled")
            if event.end is None:
                ticket.on_event = _ignore
                self._cancel(ticket)


def _ignore(event: TokenEvent) -> None:
    """Listen for a listener that broke."""


class TorchBackend(BatchBackend):
    """Generates with a `CausalLM` for many requests at once (see `BatchBackend`).

    Args:
        model: what generates; it is put into eval mode and belongs to this backend from now on.
        slots: how many requests run side by side; each has a row of the KV cache.
        queue_limit: how many more may wait.
        prefill_tokens: prompt tokens read in a step while others decode.

    Raises:
        ConfigError: a number is out of range.
    """

    def __init__(
        self,
        model: CausalLM,
        *,
        slots: int = 8,
        queue_limit: int = 64,
        prefill_tokens: int = 128,
    ) -> None:
        if slots < 1:
            raise ConfigError(f"--slots {slots}: must be at least 1")
        rows = TorchRows(model.eval(), count=slots)
        super().__init__(rows, kind="torch", queue_limit=queue_limit, prefill_tokens=prefill_tokens)
