"""Continuous batching: requests join and leave between steps. No threads here, see `batching`.

A step reads at most `prefill_tokens` of new prompts, so that a long one doesn't stall the others,
and makes one token for every request that has read its prompt:

    batch = Batch(TorchRows(model, count=8))
    batch.add(Request(prompt, params))
    while batch.busy:
        for request, event in batch.step(): ...

Axes: B rows, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from minimind.errors import ConfigError
from minimind.inference.backend import TokenEvent
from minimind.inference.decode import finish_reason
from minimind.inference.rows import Rows
from minimind.inference.sampler import Chosen
from minimind.inference.slots import Request, Slots

ALONE_TOKENS = 512
"""Prompt tokens read in a step in which nobody waits for a token; more saves nothing on a CPU,
where a matrix product of 64 rows already runs at full speed."""

GPU_TOKENS = 16_384
"""The same on a GPU, which reads thousands of tokens in the time that it takes to launch a pass."""


def alone_tokens(device: torch.device) -> int:
    """Return how many prompt tokens are read at once where nobody waits for a token."""
    return GPU_TOKENS if device.type == "cuda" else ALONE_TOKENS


class Batch:
    """Answers many requests at once, a step at a time.

    Args:
        rows: of the model that generates; as many requests run side by side.
        prefill_tokens: prompt tokens read in a step while others decode.

    Attributes:
        slots: the rows and who has them.
        prompt_tokens: read so far, without those taken from the cache.
        cached_tokens: prompt tokens taken from the cache so far.
        generated_tokens: made so far.

    Raises:
        ConfigError: `prefill_tokens` is below 1.
    """

    def __init__(self, rows: Rows, *, prefill_tokens: int = 128) -> None:
        if prefill_tokens < 1:
            raise ConfigError(f"--prefill-tokens {prefill_tokens}: must be at least 1")
        self.rows = rows
        self.prefill_tokens = prefill_tokens
        self.slots = Slots(rows)
        self.prompt_tokens = 0
        self.cached_tokens = 0
        self.generated_tokens = 0

    @property
    def busy(self) -> bool:
        """Tell whether any request runs."""
        return self.slots.lent > 0

    @property
    def requests(self) -> list[Request]:
        """Return those that run."""
        return [place.request for place in self.slots.places if place.request is not None]

    def add(self, request: Request) -> None:
        """Give a request a slot; there must be an idle one, and room for an answer."""
        self.slots.lend(request)
        self.cached_tokens += request.cached

    def remove(self, request: Request) -> None:
        """End a request now, if it runs; its slot is free."""
        row = self.slots.find(request)
        if row is not None:
            self.slots.release(row)

    def clear(self) -> None:
        """End every request and forget every token, after a step has failed."""
        self.slots.clear()

    def step(self) -> list[tuple[Request, TokenEvent]]:
        """Read on in prompts, make a token for each request that is ready; return what came."""
        decoding = self.slots.decoding
        logits = [self._decode(decoding)] if decoding else []
        ready = self._read()
        logits += [ready] if ready is not None else []
        if not logits:
            return []
        chosen = self.slots.sampler.choose(logits[0] if len(logits) == 1 else torch.cat(logits))
        events = [self._event(row, chosen) for row in range(len(chosen.ids))]
        for row in reversed(range(len(events))):  # releasing swaps with later rows only
            if events[row][1].end is not None:
                self.slots.release(row)
        return events

    def _event(self, row: int, chosen: Chosen) -> tuple[Request, TokenEvent]:
        request = self._request(row)
        token = chosen.ids[row]
        if not chosen.finite[row]:
            self.slots.places[row].tokens.clear()  # nobody should continue from these
            error = "the model's logits are not finite: its weights are damaged or overflow"
            return request, TokenEvent(end="error", cached_tokens=request.cached, error=error)
        stopped = token in request.params.stop_ids
        if not stopped:
            request.answer.append(token)
            self.generated_tokens += 1
        end = finish_reason(
            token, len(request.answer), len(request.prompt), request.params, self.rows.context
        )
        if stopped:
            return request, TokenEvent(end=end, cached_tokens=request.cached)
        return request, TokenEvent(
            token=token,
            logprob=chosen.logprobs[row],
            alternatives=chosen.alternatives[row],
            end=end,
            cached_tokens=request.cached,
        )

    def _decode(self, count: int) -> Tensor:
        """Read the last token of the first `count` rows; return (count, V) logits."""
        pieces = [self._request(row).answer[-1:] for row in range(count)]
        logits_BV = self.rows.read(0, pieces)
        for place, piece in zip(self.slots.places, pieces, strict=False):
            place.tokens += piece
        return logits_BV

    def _read(self) -> Tensor | None:
        """Read on in some prompts; return (B, V) logits of the rows that are ready to decode now.

        Those are the last rows of the decoding region, in the order of the logits.
        """
        if not self.slots.reading:
            return None
        rows, width = self._next_readers()
        places = [self.slots.places[row] for row in rows]
        pieces = [
            self._request(row).prompt[len(place.tokens) :][:width]
            for row, place in zip(rows, places, strict=True)
        ]
        logits_BV = self.rows.read(rows[0], pieces)
        ready = []
        for number, (row, place, piece) in enumerate(zip(rows, places, pieces, strict=True)):
            place.tokens += piece
            self.prompt_tokens += len(piece)
            if place.unread == 0:
                # In ascending order, so that a row still to come is never the one swapped away:
                # the border is at or before `row`.
                self.slots.promote(row)
                ready.append(number)
        return logits_BV[ready] if ready else None

    def _next_readers(self) -> tuple[Sequence[int], int]:
        """Choose neighbouring rows around the one that waits for longest, and how much of each.

        Padding counts: as many rows as fit in the step's budget when all are as wide as the widest.
        """
        slots, places = self.slots, self.slots.places
        alone = max(self.prefill_tokens, alone_tokens(self.rows.device))
        budget = self.prefill_tokens if slots.decoding else alone
        reading = range(slots.decoding, slots.lent)
        oldest = min(reading, key=lambda row: places[row].changed)
        low = high = oldest
        width, start = min(places[oldest].unread, budget), len(places[oldest].tokens)
        for row in (*range(oldest + 1, slots.lent), *range(oldest - 1, slots.decoding - 1, -1)):
            wider = max(width, min(places[row].unread, budget))
            later = max(start, len(places[row].tokens))
            neighbour, fits = row in (low - 1, high + 1), later + wider <= self.rows.max_length
            if neighbour and fits and (high - low + 2) * wider <= budget:
                low, high, width, start = min(low, row), max(high, row), wider, later
        return range(low, high + 1), width

    def _request(self, row: int) -> Request:
        request = self.slots.places[row].request
        assert request is not None, "only lent rows are in the regions that compute"
        return request
