"""Continuous batching: requests join and leave between steps. No threads here, see `batching`.

A step reads at most `prefill_tokens` of new prompts, so that a long one doesn't stall the others,
and makes one token for every request that has read its prompt:

    batch = Batch(model, slots=8)
    batch.add(Request(prompt, params))
    while batch.busy:
        for request, event in batch.step(): ...

Axes: B rows, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from minimind.errors import ConfigError
from minimind.inference.backend import TokenEvent
from minimind.inference.decode import decode_one, finish_reason, prefill
from minimind.inference.sampler import Chosen
from minimind.inference.slots import Request, Slots
from minimind.model import CausalLM

ALONE_TOKENS = 512
"""Prompt tokens read in a step in which nobody waits for a token; more saves nothing on a CPU,
where a matrix product of 64 rows already runs at full speed."""


class Batch:
    """Answers many requests at once, a step at a time; the model must be in eval mode.

    Args:
        model: what generates.
        slots: how many requests run side by side.
        max_length: tokens of prompt and answer together that a slot holds; None: the context.
        prefill_tokens: prompt tokens read in a step while others decode.

    Attributes:
        slots: the rows of the cache and who has them.
        prompt_tokens: read so far, without those taken from the cache.
        cached_tokens: prompt tokens taken from the cache so far.
        generated_tokens: made so far.

    Raises:
        ConfigError: a number is below 1.
    """

    def __init__(
        self,
        model: CausalLM,
        *,
        slots: int,
        max_length: int | None = None,
        prefill_tokens: int = 128,
    ) -> None:
        for name, value in (("slots", slots), ("prefill-tokens", prefill_tokens)):
            if value < 1:
                raise ConfigError(f"--{name} {value}: must be at least 1")
        self.model = model
        self.context = model.config.max_position_embeddings
        self.prefill_tokens = prefill_tokens
        self.slots = Slots(model, count=slots, max_length=max_length or self.context)
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
        return [row.request for row in self.slots.rows if row.request is not None]

    def add(self, request: Request) -> None:
        """Give a request a slot; there must be an idle one, and room for an answer."""
        self.slots.lend(request)
        self.cached_tokens += request.cached

    def remove(self, request: Request) -> None:
        """End a request now, if it runs; its slot is free."""
        place = self.slots.find(request)
        if place is not None:
            self.slots.release(place)

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
        events = [self._event(place, chosen) for place in range(len(chosen.ids))]
        for place in reversed(range(len(events))):  # releasing swaps with later rows only
            if events[place][1].end is not None:
                self.slots.release(place)
        return events

    def _event(self, place: int, chosen: Chosen) -> tuple[Request, TokenEvent]:
        request = self._request(place)
        token, logprob = chosen.ids[place], chosen.logprobs[place]
        if not math.isfinite(logprob):
            self.slots.rows[place].tokens.clear()  # nobody should continue from these
            error = "the model's logits are not finite: its weights are damaged or overflow"
            return request, TokenEvent(end="error", cached_tokens=request.cached, error=error)
        stopped = token in request.params.stop_ids
        if not stopped:
            request.answer.append(token)
            self.generated_tokens += 1
        end = finish_reason(
            token, len(request.answer), len(request.prompt), request.params, self.context
        )
        if stopped:
            return request, TokenEvent(end=end, cached_tokens=request.cached)
        return request, TokenEvent(
            token=token,
            logprob=logprob,
            alternatives=chosen.alternatives[place],
            end=end,
            cached_tokens=request.cached,
        )

    def _decode(self, count: int) -> Tensor:
        """Read the last token of the first `count` rows; return (count, V) logits."""
        tokens = [self._request(place).answer[-1] for place in range(count)]
        cache = self.slots.cache
        logits_BV = decode_one(
            self.model, cache.view(0, count), torch.tensor(tokens, device=cache.device)
        )
        for row, token in zip(self.slots.rows, tokens, strict=False):
            row.tokens.append(token)
        return logits_BV

    def _read(self) -> Tensor | None:
        """Read on in some prompts; return (B, V) logits of the rows that are ready to decode now.

        Those are the last rows of the decoding region, in the order of the logits.
        """
        if not self.slots.reading:
            return None
        places, width = self._next_readers()
        rows = [self.slots.rows[place] for place in places]
        pieces = [
            self._request(place).prompt[len(row.tokens) :][:width]
            for place, row in zip(places, rows, strict=True)
        ]
        logits_BV = prefill(self.model, self.slots.cache.view(places[0], len(places)), pieces)
        ready = []
        for number, (place, row, piece) in enumerate(zip(places, rows, pieces, strict=True)):
            row.tokens += piece
            self.prompt_tokens += len(piece)
            if row.unread == 0:
                # In ascending order, so that a row still to come is never the one swapped away:
                # the border is at or before `place`.
                self.slots.promote(place)
                ready.append(number)
        return logits_BV[ready] if ready else None

    def _next_readers(self) -> tuple[Sequence[int], int]:
        """Choose neighbouring rows around the one that waits for longest, and how much of each.

        Padding counts: as many rows as fit in the step's budget when all are as wide as the widest.
        """
        slots = self.slots
        budget = self.prefill_tokens if slots.decoding else max(self.prefill_tokens, ALONE_TOKENS)
        reading = range(slots.decoding, slots.lent)
        oldest = min(reading, key=lambda place: slots.rows[place].changed)
        low = high = oldest
        width = min(slots.rows[oldest].unread, budget)
        start = len(slots.rows[oldest].tokens)
        for place in (*range(oldest + 1, slots.lent), *range(oldest - 1, slots.decoding - 1, -1)):
            row = slots.rows[place]
            wider, later = max(width, min(row.unread, budget)), max(start, len(row.tokens))
            neighbour = place in (low - 1, high + 1)
            fits = later + wider <= slots.cache.max_length
            if neighbour and fits and (high - low + 2) * wider <= budget:
                low, high, width, start = min(low, place), max(high, place), wider, later
        return range(low, high + 1), width

    def _request(self, place: int) -> Request:
        request = self.slots.rows[place].request
        assert request is not None, "only lent rows are in the regions that compute"
        return request
