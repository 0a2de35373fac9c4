"""From token events to text that may be shown: whole characters, and nothing of a stop string.

A stop string may span tokens, so text that could be its beginning is held back until the next token
decides. Tokens are released together with the text that they begin, which keeps log-probabilities
beside what they belong to.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from minimind.inference.backend import TokenEvent
from minimind.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class TokenAt:
    """One token of an answer.

    Attributes:
        id: its id.
        logprob: log-probability in nats; None for the first token of a text, and where the request
            did not ask for it.
        alternatives: the most likely (id, log-probability) pairs.
        start: how many characters of the answer come before it.
    """

    id: int
    logprob: float | None
    alternatives: tuple[tuple[int, float], ...]
    start: int


@dataclass(slots=True)
class Piece:
    """Text that became certain, and the tokens that begin in it."""

    text: str = ""
    tokens: list[TokenAt] = field(default_factory=list)


class TextStream:
    """Turns the tokens of one answer into pieces.

    Attributes:
        stopped: a stop string came; everything after it is of no interest.
    """

    def __init__(self, tokenizer: Tokenizer, stops: Sequence[str] = ()) -> None:
        self.stopped = False
        self._decode = tokenizer.stream()
        self._hidden = tokenizer.control_ids
        self._stops = tuple(stops)
        self._held = ""
        self._shown = 0
        self._waiting: list[TokenAt] = []

    def push(self, event: TokenEvent) -> Piece:
        """Take a token; return what became certain."""
        if event.token is None or self.stopped:
            return Piece()
        start = self._shown + len(self._held)
        token = TokenAt(event.token, event.logprob, event.alternatives, start)
        self._waiting.append(token)
        if event.token not in self._hidden:
            self._held += self._decode(event.token)
        found = [at for at in map(self._held.find, self._stops) if at >= 0]
        if found:
            self.stopped = True
            return self._release(min(found))
        return self._release(len(self._held) - self._could_begin_a_stop())

    def finish(self) -> Piece:
        """End the answer: what was held back is text after all. Half a character is dropped."""
        if self.stopped:
            return Piece()
        piece = self._release(len(self._held))
        piece.tokens += self._waiting
        self._waiting = []
        return piece

    def _release(self, characters: int) -> Piece:
        text, self._held = self._held[:characters], self._held[characters:]
        self._shown += len(text)
        if not text:
            return Piece()
        begun = [token for token in self._waiting if token.start < self._shown]
        self._waiting = self._waiting[len(begun) :]
        return Piece(text, begun)

    def _could_begin_a_stop(self) -> int:
        """Return how many of the last characters may turn out to be the head of a stop string."""
        longest = max(map(len, self._stops), default=1) - 1
        for length in range(min(longest, len(self._held)), 0, -1):
            tail = self._held[-length:]
            if any(stop.startswith(tail) for stop in self._stops):
                return length
        return 0
