"""One answer of a request: events in, deltas out, until it is over."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from minimind.errors import RunError
from minimind.inference.backend import EndReason, TokenEvent
from minimind.serve.responses import FinishReason
from minimind.serve.running import AbortedError
from minimind.serve.text import TextStream, TokenAt
from minimind.serve.tools import ToolCall, ToolParser
from minimind.tokenizer import Tokenizer


@dataclass(slots=True)
class Delta:
    """What an event added to an answer.

    Attributes:
        text: new text.
        tokens: tokens that begin in it.
        calls: tool calls that became whole.
        finish: set once, on the last delta.
    """

    text: str = ""
    tokens: list[TokenAt] = field(default_factory=list)
    calls: list[ToolCall] = field(default_factory=list)
    finish: FinishReason | None = None

    @property
    def is_news(self) -> bool:
        """Whether there is anything to send."""
        return bool(self.text or self.calls or self.finish)

    def add(self, other: Delta) -> None:
        """Join the delta that follows."""
        self.text += other.text
        self.tokens += other.tokens
        self.calls += other.calls
        self.finish = other.finish or self.finish


class Choice:
    """The state of one answer.

    Attributes:
        tokens: made so far, those of a stop string included.
        cached_tokens: of its prompt, taken from the prefix cache.
        finish: why it is over; None while it goes on.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        *,
        stops: Sequence[str] = (),
        tools: bool = False,
        one_call: bool = False,
        stop_ids: Sequence[int] = (),
    ) -> None:
        """Begin an answer.

        Args:
            tokenizer: of the model.
            stops: stop strings.
            tools: read tool calls out of the text.
            one_call: end after the first call (`parallel_tool_calls: false`).
            stop_ids: tokens that end it and that the backend was not told of: they get a place
                among the tokens, though none in the text.
        """
        self.tokens = self.cached_tokens = 0
        self.finish: FinishReason | None = None
        self._text = TextStream(tokenizer, stops)
        self._tools = ToolParser() if tools else None
        self._one_call = one_call
        self._stop_ids = frozenset(stop_ids)

    def take(self, event: TokenEvent) -> Delta:
        """Take an event. When `finish` is set by an event without `end`, the caller cancels.

        Raises:
            RunError: the backend failed.
            AbortedError: the backend is shutting down.
        """
        if self.finish:  # what the backend made before it heard of the stop string
            return Delta()
        if event.end == "error":
            raise RunError(event.error or "the backend failed")
        if event.end == "cancelled":
            raise AbortedError("shutdown")
        self.cached_tokens = event.cached_tokens
        is_stop = event.token in self._stop_ids
        self.tokens += event.token is not None and not is_stop
        piece = self._text.push(event)
        delta = Delta(piece.text, piece.tokens)
        if self._text.stopped:
            delta.finish = "stop"
        elif is_stop or event.end is not None:
            rest = self._text.finish()
            reason = "stop" if is_stop else _REASONS[event.end or "stop"]
            delta.add(Delta(rest.text, rest.tokens, finish=reason))
        if self._tools:
            self._read_calls(delta, self._tools)
        self.finish = delta.finish
        return delta

    def _read_calls(self, delta: Delta, parser: ToolParser) -> None:
        delta.text, delta.calls = parser.feed(delta.text)
        if self._one_call and delta.calls:
            delta.calls, delta.finish = delta.calls[:1], "tool_calls"
        elif delta.finish:
            delta.text += parser.finish()
            if parser.calls and delta.finish == "stop":
                delta.finish = "tool_calls"


_REASONS: dict[EndReason, FinishReason] = {"stop": "stop", "length": "length", "context": "length"}
