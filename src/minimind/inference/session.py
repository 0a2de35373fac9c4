"""One growing row: what the cache has read is not read again."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

from torch import Tensor

from minimind.inference.decode import (
    FinishReason,
    check_prompt,
    decode_one,
    evaluating,
    finish_reason,
    new_cache,
    prefill,
    seen_tokens,
)
from minimind.inference.sampling import SamplingParams, row_generators, sample
from minimind.model import CausalLM


class Session:
    """One growing row whose keys and values are kept from one prompt to the next.

    A prompt that begins as the last one did, as each turn of a conversation does, costs only its
    new tokens.

    Attributes:
        ids: the tokens in the cache.
        reused: how many tokens of the last prompt were taken from the cache.
        finish_reason: why the last stream ended; None while it runs or when it was broken off.
    """

    def __init__(self, model: CausalLM, *, max_length: int | None = None) -> None:
        context = model.config.max_position_embeddings
        self.model = model
        self.cache = new_cache(model, batch_size=1, max_length=min(max_length or context, context))
        self.ids: list[int] = []
        self.reused = 0
        self.finish_reason: FinishReason | None = None

    def stream(self, prompt: Sequence[int], params: SamplingParams) -> Iterator[int]:
        """Yield the tokens of one answer as they are made, without the stop token."""
        check_prompt(self.model, prompt)
        context = self.model.config.max_position_embeddings
        self.finish_reason = "context" if len(prompt) >= context else None
        if self.finish_reason:
            return
        generators = row_generators(params.seed, 1)
        with evaluating(self.model):
            logits_BV = self._read(prompt)
            seen_BV = seen_tokens([prompt], params, like=logits_BV)
            made = 0
            while self.finish_reason is None:
                ids_B = sample(logits_BV, params, generators=generators, seen_BV=seen_BV)
                token = int(ids_B)
                made += token not in params.stop_ids
                reason = finish_reason(token, made, len(prompt), params, context)
                if token not in params.stop_ids:
                    yield token
                self.finish_reason = reason
                if reason is None:
                    if seen_BV is not None:
                        seen_BV[0, token] = True
                    logits_BV = decode_one(self.model, self.cache, ids_B)
                    self.ids.append(token)

    def _read(self, prompt: Sequence[int]) -> Tensor:
        """Bring the cache from what it holds to `prompt`; return (1, V) logits after it."""
        pairs = zip(self.ids, prompt[:-1], strict=False)  # the last token is read for its logits
        self.reused = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))
        if len(self.ids) - self.reused > self.cache.chunk // 2:
            self.reused = 0  # sliding layers can't take back more than a chunk: begin anew
        self.cache.truncate(self.reused)
        self.ids = list(prompt[: self.reused])
        logits_BV = prefill(self.model, self.cache, [prompt[self.reused :]])
        self.ids = list(prompt)
        return logits_BV
