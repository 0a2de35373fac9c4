"""Rows lent to requests: who sits where, and what a new prompt needn't read again.

They are kept in three neighbouring regions, so that a forward pass over one of them is a view of
the KV cache and idle rows cost nothing:

    [ decoding ... | reading their prompt ... | idle ... ]

A row changes region by being swapped with the row at the border. An idle row keeps the tokens of
its last request: the next turn of that conversation continues it.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

from minimind.inference.rows import Rows
from minimind.inference.sampler import Sampler
from minimind.inference.sampling import SamplingParams

WORTH_COPYING = 8
"""A shorter prefix is read again: that costs less than copying it in every layer."""


@dataclass(slots=True, eq=False)
class Request:
    """One prompt that is answered.

    Attributes:
        prompt: its token ids.
        params: how tokens are chosen and when to stop.
        answer: the tokens so far, without a stop token.
        cached: how many prompt tokens were taken from the cache.
    """

    prompt: list[int]
    params: SamplingParams
    answer: list[int] = field(default_factory=list)
    cached: int = 0


@dataclass(slots=True)
class Place:
    """One row: the tokens that were read, whom it is lent to, when it last changed hands."""

    tokens: list[int] = field(default_factory=list)
    request: Request | None = None
    changed: int = 0

    @property
    def unread(self) -> int:
        """Return how many prompt tokens its request still has to read."""
        return len(self.request.prompt) - len(self.tokens) if self.request else 0


class Slots:
    """Rows, and their sampler, that are lent to requests.

    Attributes:
        places: of the rows in order. The first `decoding` decode, the next `reading` read their
            prompt, the rest is idle.
        rows: what the model has read.
        sampler: parameters and penalties of the rows.
    """

    def __init__(self, rows: Rows) -> None:
        self.rows = rows
        self.sampler = Sampler(rows=rows.count, vocab_size=rows.vocab_size, device=rows.device)
        self.places = [Place() for _ in range(rows.count)]
        self.decoding = 0
        self.reading = 0
        self._clock = 0

    @property
    def lent(self) -> int:
        """Return how many rows are lent."""
        return self.decoding + self.reading

    @property
    def idle(self) -> int:
        """Return how many rows are free."""
        return len(self.places) - self.lent

    def lend(self, request: Request) -> None:
        """Give an idle row to a request; what it shares with tokens in the cache is kept."""
        row, kept = self._choose(request.prompt)
        border = self.lent
        self._swap(row, border)
        place = self.places[border]
        place.tokens = request.prompt[:kept]
        place.request, place.changed = request, self._tick()
        request.cached = kept
        self.rows.cut(border, kept)
        self.sampler.begin(border, request.params, request.prompt)
        self.reading += 1

    def promote(self, row: int) -> None:
        """Move a row that has read its prompt to the end of those that decode."""
        self._swap(row, self.decoding)
        self.decoding += 1
        self.reading -= 1

    def release(self, row: int) -> None:
        """Take a lent row back; it keeps its tokens."""
        self.places[row].request = None
        self.places[row].changed = self._tick()
        if row < self.decoding:
            self.decoding -= 1
            self._swap(row, self.decoding)
            row = self.decoding
        else:
            self.reading -= 1
        self._swap(row, self.lent)

    def find(self, request: Request) -> int | None:
        """Return the row that a request has."""
        return next((row for row, p in enumerate(self.places) if p.request is request), None)

    def clear(self) -> None:
        """Take every row back and forget every token."""
        self.places = [Place() for _ in self.places]
        self.decoding = self.reading = 0
        for row in range(self.rows.count):
            self.rows.cut(row, 0)

    def _choose(self, prompt: Sequence[int]) -> tuple[int, int]:
        """Return an idle row for `prompt`, and how many tokens of it that row holds then.

        The row with the longest common prefix is taken over if it is idle and mostly that prefix.
        Otherwise the prefix is copied into the row that was idle for longest (an empty one first),
        so that neither a running request nor another conversation loses its tokens.
        """
        shared = [self._shared(row, prompt) for row in range(len(self.places))]
        best = max(range(len(shared)), key=shared.__getitem__)
        idle, places = range(self.lent, len(self.places)), self.places
        if best in idle and 2 * shared[best] >= len(places[best].tokens) > 0:
            return best, shared[best]
        oldest = min(idle, key=lambda row: (bool(places[row].tokens), places[row].changed))
        if shared[best] - shared[oldest] >= WORTH_COPYING:
            self.rows.copy_prefix(best, oldest, shared[best])
            return oldest, shared[best]
        return oldest, shared[oldest]

    def _shared(self, row: int, prompt: Sequence[int]) -> int:
        tokens = self.places[row].tokens
        if not tokens or tokens[0] != prompt[0]:  # most rows: each request asks all of them
            return 0
        # The last token is always read: its logits choose the first token of the answer.
        shared = common_prefix(tokens, prompt[:-1])
        return self.rows.keepable(row, shared)

    def _swap(self, a: int, b: int) -> None:
        if a != b:
            self.places[a], self.places[b] = self.places[b], self.places[a]
            self.rows.swap(a, b)
            self.sampler.swap(a, b)

    def _tick(self) -> int:
        self._clock += 1
        return self._clock


def common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    """Return how many tokens `a` and `b` share from the start."""
    pairs = zip(a, b, strict=False)
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))
