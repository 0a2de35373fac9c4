"""One growing row: what the cache has read is not read again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from minimind.inference.batch import Batch
from minimind.inference.decode import FinishReason, check_prompt, evaluating, reason_of
from minimind.inference.rows import TorchRows
from minimind.inference.sampling import SamplingParams
from minimind.inference.slots import Request
from minimind.model import CausalLM


class Session:
    """A batch of one row whose keys and values are kept from one prompt to the next.

    A prompt that begins as the last one did, as each turn of a conversation does, costs only its
    new tokens.

    Attributes:
        reused: how many tokens of the last prompt were taken from the cache.
        finish_reason: why the last stream ended; None while it runs or when it was broken off.
    """

    def __init__(self, model: CausalLM, *, max_length: int | None = None) -> None:
        context = model.config.max_position_embeddings
        self.model = model
        rows = TorchRows(model, count=1, max_length=min(max_length or context, context))
        self.batch = Batch(rows)
        self.reused = 0
        self.finish_reason: FinishReason | None = None

    def stream(self, prompt: Sequence[int], params: SamplingParams) -> Iterator[int]:
        """Yield the tokens of one answer as they are made, without the stop token.

        Raises:
            DataError: the prompt is empty, longer than the context, or has unknown ids.
            RunError: the model's logits are not finite.
        """
        check_prompt(self.model, prompt)
        full = len(prompt) >= self.batch.rows.context
        self.finish_reason = "context" if full else None
        if full:
            return
        request = Request(list(prompt), params)
        with evaluating(self.model):
            self.batch.add(request)
            self.reused = request.cached
            try:
                while self.finish_reason is None:
                    for _, event in self.batch.step():
                        self.finish_reason = reason_of(event)
                        if event.token is not None:
                            yield event.token
            finally:
                self.batch.remove(request)
