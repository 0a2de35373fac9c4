"""Log-probabilities of a prompt's own tokens, for `echo` with `logprobs`.

Backends generate and don't score, so this reads the prompt in one forward pass on a thread of its
own, one prompt at a time. Axes: T positions, V vocabulary, K alternatives.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import torch

from minimind.inference.decode import check_prompt
from minimind.model import CausalLM

_CHUNK = 256
"""Positions projected onto the vocabulary at once: bounds the memory for logits."""


@dataclass(frozen=True, slots=True)
class PromptToken:
    """A token of a prompt; the first has neither log-probability nor alternatives."""

    id: int
    logprob: float | None
    alternatives: tuple[tuple[int, float], ...]


class Scorer(Protocol):
    """What can score prompts."""

    def score(self, ids: Sequence[int], alternatives: int) -> list[PromptToken]:
        """Return every token of `ids` with its log-probability in nats.

        Raises:
            DataError: empty, too long, or ids beyond the vocabulary.
        """
        ...


class TorchScorer:
    """Scores with a model in eval mode."""

    def __init__(self, model: CausalLM) -> None:
        self._model = model

    @torch.no_grad()
    def score(self, ids: Sequence[int], alternatives: int) -> list[PromptToken]:
        """See `Scorer`."""
        check_prompt(self._model, ids)
        first = PromptToken(ids[0], None, ())
        if len(ids) == 1:
            return [first]
        device = self._model.model.norm.weight.device
        ids_1T = torch.tensor([list(ids)], device=device)
        hidden_1TD = self._model(ids_1T[:, :-1], logits="none").hidden_BTD
        tokens = [first]
        for start in range(0, len(ids) - 1, _CHUNK):
            logits_1TV = self._model.head(hidden_1TD[:, start : start + _CHUNK])
            log_probs_TV = logits_1TV[0].float().log_softmax(-1)
            chunk = ids[start + 1 : start + 1 + _CHUNK]
            own_T = log_probs_TV.gather(1, torch.tensor(chunk, device=device)[:, None])[:, 0]
            top = log_probs_TV.topk(min(alternatives, log_probs_TV.shape[-1]))
            tokens += [
                PromptToken(token, own, tuple(zip(likely, values, strict=True)))
                for token, own, likely, values in zip(
                    chunk, own_T.tolist(), top.indices.tolist(), top.values.tolist(), strict=True
                )
            ]
        return tokens


def scoring_thread() -> ThreadPoolExecutor:
    """Return the thread on which prompts are scored, apart from decoding."""
    return ThreadPoolExecutor(max_workers=1, thread_name_prefix="minimind-score")
