"""The engine: many prompts at once, one as a stream, or the likelihood of given tokens.

It knows token ids, not text. Axes: B rows, T positions, D hidden, V vocabulary, N picked positions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch

from minimind.inference.decode import (
    Completion,
    check_prompt,
    decode_batch,
    evaluating,
    pad_right,
)
from minimind.inference.sampling import SamplingParams, row_generators
from minimind.inference.session import Session
from minimind.model import CausalLM


class Engine:
    """Generates from, and scores with, one model."""

    def __init__(self, model: CausalLM) -> None:
        self.model = model

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
        """Generate for every prompt, in batches of similar length.

        Args:
            prompts: token ids; row i draws from `params.seed + i`.
            params: how tokens are chosen and when to stop.
            batch_rows: prompts decoded side by side.
            on_finished: called with the number of each row that finishes (for a progress bar).

        Returns:
            One completion a prompt, in the order of the prompts.

        Raises:
            DataError: a prompt is empty or longer than the context.
        """
        for prompt in prompts:
            check_prompt(self.model, prompt)
        generators = row_generators(params.seed, len(prompts))
        by_length = sorted(range(len(prompts)), key=lambda row: len(prompts[row]))
        results: dict[int, Completion] = {}
        with evaluating(self.model):
            for start in range(0, len(by_length), batch_rows):
                rows = by_length[start : start + batch_rows]
                for index, completion in decode_batch(
                    self.model,
                    [prompts[row] for row in rows],
                    params,
                    generators=[generators[row] for row in rows],
                ):
                    results[rows[index]] = completion
                    if on_finished:
                        on_finished(rows[index])
        return [results[row] for row in range(len(prompts))]

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
        self, pairs: Sequence[tuple[Sequence[int], Sequence[int]]], *, batch_rows: int = 16
    ) -> list[tuple[float, bool]]:
        """Score (context, continuation) pairs: (sum of log-probabilities in nats, greedy?).

        Raises:
            DataError: a context is empty, or both together are longer than the model's context.
        """
        for context, continuation in pairs:
            check_prompt(self.model, context)
            check_prompt(self.model, [*context, *continuation])
        by_length = sorted(range(len(pairs)), key=lambda i: sum(map(len, pairs[i])))
        results: dict[int, tuple[float, bool]] = {}
        with evaluating(self.model):
            for start in range(0, len(by_length), batch_rows):
                part = by_length[start : start + batch_rows]
                scores = score(self.model, [pairs[i] for i in part])
                results.update(zip(part, scores, strict=True))
        return [results[i] for i in range(len(pairs))]


@torch.no_grad()
def score(
    model: CausalLM, pairs: Sequence[tuple[Sequence[int], Sequence[int]]]
) -> list[tuple[float, bool]]:
    """Score (context, continuation) pairs in one forward pass (see `Engine.loglikelihoods`).

    Only the hidden states that predict a continuation are projected onto the vocabulary.
    """
    device = model.output_weight.device
    ids_BT = pad_right([[*context, *continuation] for context, continuation in pairs], device)
    hidden_BTD = model(ids_BT, logits="none").hidden_BTD
    results = []
    for row, (context, continuation) in enumerate(pairs):
        picked_ND = hidden_BTD[row, len(context) - 1 :][: len(continuation)]
        log_probs_NV = (picked_ND @ model.output_weight.T).float().log_softmax(-1)
        target_N = torch.tensor(list(continuation), dtype=torch.long, device=device)
        total = log_probs_NV.gather(1, target_N[:, None]).sum().item()
        results.append((total, bool((log_probs_NV.argmax(-1) == target_N).all())))
    return results
