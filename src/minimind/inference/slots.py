"""Rows of a KV cache lent to requests: who sits where, and what a new prompt needn't read again.

The rows are kept in three neighbouring regions, so that a forward pass over one of them is a view
of the cache and idle rows cost nothing:

    [ decoding ... | reading their prompt ... | idle ... ]

A row changes region by being swapped with the row at the border. An idle row keeps the tokens of
its last request: the next turn of that conversation continues it.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

from minimind.inference.decode import new_cache
from minimind.inference.sampler import Sampler
from minimind.inference.sampling import SamplingParams
from minimind.model import CausalLM

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
class Row:
    """One row of the cache: the tokens it holds, whom it is lent to, when it last changed hands."""

    tokens: list[int] = field(default_factory=list)
    request: Request | None = None
    changed: int = 0

    @property
    def unread(self) -> int:
        """Return how many prompt tokens its request still has to read."""
        return len(self.request.prompt) - len(self.tokens) if self.request else 0


class Slots:
    """A KV cache and a sampler whose rows are lent to requests.

    Attributes:
        rows: the first `decoding` decode, the next `reading` read their prompt, the rest is idle.
        cache: keys and values of the rows.
        sampler: parameters and penalties of the rows.
    """

    def __init__(self, model: CausalLM, *, count: int, max_length: int) -> None:
        self.cache = new_cache(model, batch_size=count, max_length=max_length)
        self.sampler = Sampler(
            rows=count, vocab_size=model.config.vocab_size, device=self.cache.device
        )
        self.rows = [Row() for _ in range(count)]
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
        return len(self.rows) - self.lent

    def lend(self, request: Request) -> None:
        """Give an idle row to a request; what it shares with tokens in the cache is kept."""
        place, kept = self._choose(request.prompt)
        border = self.lent
        self._swap(place, border)
        row = self.rows[border]
        row.tokens = request.prompt[:kept]
        row.request, row.changed = request, self._tick()
        request.cached = kept
        self.cache.lengths[border] = kept
        self.sampler.begin(border, request.params, request.prompt)
        self.reading += 1

    def promote(self, place: int) -> None:
        """Move a row that has read its prompt to the end of those that decode."""
        self._swap(place, self.decoding)
        self.decoding += 1
        self.reading -= 1

    def release(self, place: int) -> None:
        """Take a lent row back; it keeps its tokens."""
        self.rows[place].request = None
        self.rows[place].changed = self._tick()
        if place < self.decoding:
            self.decoding -= 1
            self._swap(place, self.decoding)
            place = self.decoding
        else:
            self.reading -= 1
        self._swap(place, self.lent)

    def find(self, request: Request) -> int | None:
        """Return the place of a request's row."""
        return next((i for i, row in enumerate(self.rows) if row.request is request), None)

    def clear(self) -> None:
        """Take every row back and forget every token."""
        self.rows = [Row() for _ in self.rows]
        self.decoding = self.reading = 0
        self.cache.reset()

    def _choose(self, prompt: Sequence[int]) -> tuple[int, int]:
        """Return an idle row for `prompt`, and how many tokens of it that row holds then.

        The row with the longest common prefix is taken over if it is idle and mostly that prefix.
        Otherwise the prefix is copied into the row that was idle for longest (an empty one first),
        so that neither a running request nor another conversation loses its tokens.
        """
        shared = [self._shared(place, prompt) for place in range(len(self.rows))]
        best = max(range(len(shared)), key=shared.__getitem__)
        idle = range(self.lent, len(self.rows))
        if best in idle and 2 * shared[best] >= len(self.rows[best].tokens) > 0:
            return best, shared[best]
        oldest = min(idle, key=lambda i: (bool(self.rows[i].tokens), self.rows[i].changed))
        if shared[best] - shared[oldest] >= WORTH_COPYING:
            self.cache.copy_prefix(best, oldest, shared[best])
            return oldest, shared[best]
        return oldest, shared[oldest]

    def _shared(self, place: int, prompt: Sequence[int]) -> int:
        # The last token is always read: its logits choose the first token of the answer.
        shared = common_prefix(self.rows[place].tokens, prompt[:-1])
        return self.cache.keepable(place, shared)

    def _swap(self, a: int, b: int) -> None:
        if a != b:
            self.rows[a], self.rows[b] = self.rows[b], self.rows[a]
            self.cache.swap(a, b)
            self.sampler.swap(a, b)

    def _tick(self) -> int:
        self._clock += 1
        return self._clock


def common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    """Return how many tokens `a` and `b` share from the start."""
    pairs = zip(a, b, strict=False)
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))
