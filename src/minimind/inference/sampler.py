"""Sampling for the rows of a batch: each with its own parameters, all in one pass.

Axes: R rows of the table, B rows in use (the first B of R), n some of these, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from minimind.inference.sampling import (
    RowParams,
    SamplingParams,
    apply_count_penalties,
    apply_repetition_penalty,
    draw_filtered,
    new_generator,
)


@dataclass(frozen=True, slots=True)
class Chosen:
    """One token a row.

    Attributes:
        ids: the tokens.
        logprobs: their log-probabilities in nats under the model, before anything else is applied;
            not a finite number where the model's logits aren't.
        alternatives: for each row the likeliest (id, log-probability) pairs that were asked for.
    """

    ids: list[int]
    logprobs: list[float]
    alternatives: list[tuple[tuple[int, float], ...]]


class Sampler:
    """What sampling must know of each row: parameters, random source, the tokens that occurred.

    Args:
        rows: R.
        vocab_size: V.
        device: where the logits will be.
    """

    def __init__(self, *, rows: int, vocab_size: int, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        self._params = [SamplingParams()] * rows
        self._generators = [new_generator(0)] * rows
        self._seen_RV = torch.zeros(rows, vocab_size, dtype=torch.bool, device=device)
        self._counts_RV = torch.zeros(rows, vocab_size, dtype=torch.int16, device=device)
        self._plan: _Plan | None = None

    def begin(self, row: int, params: SamplingParams, prompt: Sequence[int]) -> None:
        """Start an answer to `prompt` in this row.

        Stop tokens are spared by the repetition penalty: the end of every earlier turn would make
        the end of this one less likely.
        """
        self._params[row] = params
        self._generators[row] = new_generator(params.seed)
        self._counts_RV[row] = 0
        self._seen_RV[row] = False
        self._seen_RV[row, list(prompt)] = True
        self._seen_RV[row, list(params.stop_ids)] = False
        self._plan = None

    def swap(self, a: int, b: int) -> None:
        """Exchange two rows."""
        params, generators = self._params, self._generators
        params[a], params[b] = params[b], params[a]
        generators[a], generators[b] = generators[b], generators[a]
        for table in (self._seen_RV, self._counts_RV):
            table[[a, b]] = table[[b, a]]
        self._plan = None

    @torch.no_grad()
    def choose(self, logits_BV: Tensor) -> Chosen:
        """Choose the next token of the first B rows, and remember it for the penalties."""
        B = len(logits_BV)
        if self._plan is None or self._plan.rows != B:
            self._plan = _Plan(self._params[:B], self.device)
        plan, raw_BV = self._plan, logits_BV.float()
        scores_BV = self._penalise(raw_BV, plan)
        if plan.drawn is None:
            ids_B = scores_BV.argmax(-1)
        else:
            generators = [self._generators[row] for row in plan.drawn.tolist()]
            params = plan.params.pick(plan.drawn)
            drawn_n = draw_filtered(scores_BV[plan.drawn_at], params, generators)
            all_drawn = len(drawn_n) == B
            ids_B = drawn_n if all_drawn else scores_BV.argmax(-1)
            if not all_drawn:
                ids_B[plan.drawn_at] = drawn_n
        if plan.penalties:
            self._seen_RV[:B].scatter_(1, ids_B[:, None], value=True)
            self._counts_RV[plan.rows_B, ids_B] += 1
        # One fused kernel: two to four times as fast as a logsumexp at 12,000 tokens.
        log_probs_BV = raw_BV.log_softmax(-1)
        logprobs_B = log_probs_BV.gather(1, ids_B[:, None])[:, 0]
        return Chosen(ids_B.tolist(), logprobs_B.tolist(), _likeliest(log_probs_BV, plan))

    def _penalise(self, logits_BV: Tensor, plan: _Plan) -> Tensor:
        """Return new logits with bias and penalties; the same tensor when all are off."""
        B = plan.rows
        if plan.bias is not None:
            rows_n, ids_n, values_n = plan.bias
            logits_BV = logits_BV.index_put((rows_n, ids_n), values_n, accumulate=True)
        if plan.repetition_B1 is not None:
            seen_BV = self._seen_RV[:B]
            logits_BV = apply_repetition_penalty(logits_BV, seen_BV, penalty=plan.repetition_B1)
        if plan.counted_B1 is not None:
            presence_B1, frequency_B1 = plan.counted_B1
            logits_BV = apply_count_penalties(
                logits_BV, self._counts_RV[:B], presence=presence_B1, frequency=frequency_B1
            )
        return logits_BV


class _Plan:
    """What doesn't change from step to step while the same rows are in use."""

    def __init__(self, rows: Sequence[SamplingParams], device: torch.device) -> None:
        self.rows = len(rows)
        self.params = RowParams.of(rows)
        self.rows_B = torch.arange(self.rows, device=device)
        drawn = [row for row, params in enumerate(rows) if not params.greedy]
        self.drawn = torch.tensor(drawn) if drawn else None
        whole = slice(None) if len(drawn) == self.rows else None
        self.drawn_at = whole or torch.tensor(drawn, dtype=torch.int64, device=device)
        biases = [(row, *pair) for row, params in enumerate(rows) for pair in params.logit_bias]
        self.bias: tuple[Tensor, Tensor, Tensor] | None = None
        if biases:
            at, ids, values = zip(*biases, strict=True)
            self.bias = (
                torch.tensor(at, device=device),
                torch.tensor(ids, device=device),
                torch.tensor(values, dtype=torch.float32, device=device),
            )
        repetition, presence, frequency = (column.float().to(device) for column in self.params[4:])
        self.repetition_B1 = repetition if bool((repetition != 1).any()) else None
        counted = bool(((presence != 0) | (frequency != 0)).any())
        self.counted_B1 = (presence, frequency) if counted else None
        self.penalties = self.repetition_B1 is not None or counted
        self.alternatives = [params.alternatives for params in rows]


def _likeliest(log_probs_BV: Tensor, plan: _Plan) -> list[tuple[tuple[int, float], ...]]:
    """Return each row's likeliest tokens, best first, as many as it asked for."""
    widest = max(plan.alternatives)
    if widest == 0:
        return [()] * plan.rows
    top = log_probs_BV.topk(min(widest, log_probs_BV.shape[1]))
    pairs = zip(top.indices.tolist(), top.values.tolist(), plan.alternatives, strict=True)
    return [tuple(zip(ids[:n], values[:n], strict=True)) for ids, values, n in pairs]
