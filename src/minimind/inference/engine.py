"""The engine: many prompts at once, one as a stream, or the likelihood of given tokens.

It knows token ids, not text, and works on the caller's thread; `batching.TorchBackend` does the
same for requests that come at any time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from minimind.data.batch import IGNORE
from minimind.inference.batch import GPU_TOKENS, Batch
from minimind.inference.decode import Completion, check_prompt, evaluating, reason_of
from minimind.inference.rows import TorchRows
from minimind.inference.sampling import SamplingParams
from minimind.inference.scoring import score_rows
from minimind.inference.session import Session
from minimind.inference.slots import Request
from minimind.model import CausalLM
from minimind.model.graphs import GraphStep


class Engine:
    """Generates from, and scores with, one model."""

    def __init__(self, model: CausalLM) -> None:
        self.model = model
        self._rows: TorchRows | None = None

    def generate(self, prompts: Sequence[Sequence[int]], params: SamplingParams) -> list[list[int]]:
        """Return the new tokens for every prompt (see `complete`)."""
        return [completion.ids for completion in self.complete(prompts, params)]

    def complete(
        self,
        prompts: Sequence[Sequence[int]],
        params: SamplingParams,
        *,
        batch_rows: int = 64,
        on_finished: Callable[[int], None] | None = None,
    ) -> list[Completion]:
        """Generate for every prompt; as one is done, the next takes its row.

        Args:
            prompts: token ids; row i draws from `params.seed + i`.
            params: how tokens are chosen and when to stop.
            batch_rows: prompts decoded side by side.
            on_finished: called with the number of each row that finishes (for a progress bar).

        Returns:
            One completion a prompt, in the order of the prompts.

        Raises:
            DataError: a prompt is empty or longer than the context.
            RunError: the model's logits are not finite.
        """
        for prompt in prompts:
            check_prompt(self.model, prompt)
        params.check_vocabulary(self.model.config.vocab_size)
        context = self.model.config.max_position_embeddings
        results: dict[int, Completion] = {}

        def finish(number: int, completion: Completion) -> None:
            results[number] = completion
            if on_finished:
                on_finished(number)

        # Neighbours of similar length waste little on padding.
        waiting = deque(sorted(range(len(prompts)), key=lambda row: len(prompts[row])))
        while waiting and len(prompts[waiting[-1]]) >= context:
            finish(waiting.pop(), Completion([], "context"))
        if not waiting:
            return [results[row] for row in range(len(prompts))]
        longest = min(len(prompts[waiting[-1]]) + params.max_new_tokens, context)
        with evaluating(self.model):
            count = min(batch_rows, len(waiting))
            rows = self._rows_of(count, longest)
            # On a GPU all prompts first, as nobody waits for single tokens here: a pass over one
            # prompt takes as long as one over a hundred.
            on_gpu = rows.device.type == "cuda"
            batch = Batch(rows, prefill_tokens=GPU_TOKENS) if on_gpu else Batch(rows)
            numbers: dict[Request, int] = {}
            while waiting or batch.busy:
                while waiting and batch.slots.idle:
                    number = waiting.popleft()
                    request = Request(list(prompts[number]), _row_params(params, number))
                    numbers[request] = number
                    batch.add(request)
                for request, event in batch.step():
                    if reason := reason_of(event):
                        finish(numbers.pop(request), Completion(request.answer, reason))
        return [results[row] for row in range(len(prompts))]

    def _rows_of(self, count: int, max_length: int) -> TorchRows:
        """Return empty rows; the last ones again if they fit and graphs were recorded of them."""
        rows = self._rows
        if rows is not None and (rows.count, rows.max_length) == (count, max_length):
            rows.cache.reset()
            return rows
        rows = TorchRows(self.model, count=count, max_length=max_length)
        self._rows = rows if isinstance(self.model.compiled_step, GraphStep) else None
        return rows

    def stream(self, prompt: Sequence[int], params: SamplingParams) -> Iterator[int]:
        """Yield the tokens of one answer as they are made, without the stop token.

        Raises:
            DataError: the prompt is empty or longer than the context.
        """
        session = Session(self.model, max_length=len(prompt) + params.max_new_tokens)
        return session.stream(prompt, params)

    def loglikelihood(
        self, context: Sequence[int], continuation: Sequence[int]
    ) -> tuple[float, bool]:
        """Return log p(continuation | context) in nats, and whether greedy decoding gives it."""
        return self.loglikelihoods([(context, continuation)])[0]

    def loglikelihoods(
        self, pairs: Sequence[tuple[Sequence[int], Sequence[int]]]
    ) -> list[tuple[float, bool]]:
        """Score (context, continuation) pairs: (sum of log-probabilities in nats, greedy?).

        Raises:
            DataError: a context is empty, or both together are longer than the model's context.
        """
        rows = []
        for context, continuation in pairs:
            check_prompt(self.model, context)
            ids = [*context, *continuation]
            check_prompt(self.model, ids)
            unscored = [IGNORE] * (len(context) - 1)
            rows.append((ids[:-1], [*unscored, *continuation]))
        scores = score_rows(self.model, rows)
        return [(float(row.log_probs.sum()), bool(row.likeliest.all())) for row in scores]


def _row_params(params: SamplingParams, row: int) -> SamplingParams:
    if params.seed is None:
        return params
    return replace(params, seed=(params.seed + row) % 2**63)
