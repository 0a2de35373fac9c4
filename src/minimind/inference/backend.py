"""What a server needs from whatever generates: submit token ids, get token events back.

Two things implement it: `inference.batching.TorchBackend` (ours: continuous batching over a KV
cache, the one to read) and `serve.llamacpp.LlamaCppBackend` (a GGUF file in llama.cpp). The server
and the chat page know only this module. Ids go in and come out; text, stop strings and chat
templates are the caller's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

from minimind.errors import RunError
from minimind.inference.sampling import SamplingParams

EndReason = Literal["stop", "length", "context", "cancelled", "error"]
"""`stop` a stop token; `length` max_new_tokens; `context` the context is full; `cancelled` the
caller or a shutdown ended it; `error` the backend failed (`TokenEvent.error` says how)."""


class QueueFullError(RunError):
    """The waiting line is full; the caller should try again later."""


class BackendClosedError(RunError):
    """The backend is shutting down and takes no new requests."""


class TokenEvent(NamedTuple):
    """One step of one answer; a tuple, since one is made a token and a dataclass takes longer.

    The last event of an answer has `end` set; its `token` is None unless the answer ended with a
    token that belongs to it (`length`, `context`). A stop token is never part of the answer.

    Attributes:
        token: the new id.
        logprob: its log-probability in nats under the model, before penalties, temperature and
            filters (as OpenAI's and vLLM's raw log-probabilities); None unless the request asked
            (`SamplingParams.alternatives`).
        alternatives: the most likely (id, log-probability) pairs, best first, as many as
            `SamplingParams.alternatives` asked for.
        end: why the answer is over; None while it goes on.
        cached_tokens: how many prompt tokens came from the prefix cache (set on every event).
        error: what failed, with `end == "error"`.
    """

    token: int | None = None
    logprob: float | None = None
    alternatives: tuple[tuple[int, float], ...] = ()
    end: EndReason | None = None
    cached_tokens: int = 0
    error: str | None = None


OnEvent = Callable[[TokenEvent], None]
"""Called from the backend's own thread, in order; must return quickly and never raise."""


class Generation(Protocol):
    """One submitted request."""

    def cancel(self) -> None:
        """End it; its slot is free by the next step. Idempotent; from any thread."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendStats:
    """A backend's state at one moment.

    Attributes:
        running: requests that hold a slot (prefilling or decoding).
        waiting: requests in the queue.
        slots: how many can run at once.
        queue_limit: how many can wait.
        prompt_tokens: read since the start, without those taken from the prefix cache.
        cached_tokens: prompt tokens taken from the prefix cache since the start.
        generated_tokens: made since the start.
        kv_cache_bytes: size of the preallocated cache.
    """

    running: int
    waiting: int
    slots: int
    queue_limit: int
    prompt_tokens: int
    cached_tokens: int
    generated_tokens: int
    kv_cache_bytes: int


class Backend(Protocol):
    """Generates for many requests at once, on a thread of its own."""

    @property
    def kind(self) -> str:
        """Name of the implementation: `torch`, `llama.cpp`."""
        ...

    @property
    def context_length(self) -> int:
        """Prompt and answer together can have so many tokens."""
        ...

    def submit(
        self, prompt: Sequence[int], params: SamplingParams, on_event: OnEvent
    ) -> Generation:
        """Queue a prompt; events arrive on `on_event` until one has `end` set.

        Args:
            prompt: token ids, at least one.
            params: how tokens are chosen and when to stop.
            on_event: see `OnEvent`.

        Raises:
            QueueFullError: too many are waiting.
            BackendClosedError: `close` was called.
            DataError: the prompt is empty, has unknown ids, or leaves no room in the context.
            ConfigError: the parameters ask for what this backend can't do.
        """
        ...

    def stats(self) -> BackendStats:
        """Return counts for `/metrics`."""
        ...

    def close(self, *, drain_seconds: float = 0.0) -> None:
        """Refuse new requests, finish the accepted ones for up to `drain_seconds`, cancel the rest.

        Returns when every request has had its last event. Idempotent.
        """
        ...
