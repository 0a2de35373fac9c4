"""From logits to the next token: each filter is one pure function over a batch of rows.

Axes: B rows, V vocabulary. A filter sets what it forbids to minus infinity. The order is that of
transformers: repetition penalty, temperature, top-k, top-p, min-p.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from minimind.errors import ConfigError

NEVER = float("-inf")
_LIKELY = 256
"""top-p first looks at this many tokens; a full sort of 12,000 is needed only for flat rows."""


@dataclass(frozen=True, kw_only=True)
class SamplingParams:
    """How the next token is chosen.

    Attributes:
        temperature: logits are divided by it; 0 takes the most likely token.
        top_k: only the k most likely tokens; 0 switches it off.
        top_p: only the smallest set of tokens that holds this probability
            (nucleus sampling, Holtzman et al. 2019); 1 switches it off.
        min_p: only tokens at least this fraction as likely as the most likely one
            (Nguyen et al. 2024); 0 switches it off.
        repetition_penalty: tokens that occurred, in the prompt or the answer, become less likely
            (Keskar et al. 2019); 1 switches it off. Stop tokens are spared by the engine.
        seed: row i of a batch draws from `seed + i`, whatever the other rows do. None: random.
        max_new_tokens: at most so many tokens in an answer.
        stop_ids: any of these tokens ends an answer; they aren't part of it.
    """

    temperature: float = 0.7
    top_k: int = 0
    top_p: float = 0.9
    min_p: float = 0.0
    repetition_penalty: float = 1.1
    seed: int | None = None
    max_new_tokens: int = 256
    stop_ids: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        rules = (
            ("temperature", self.temperature >= 0, "0 (always the most likely token) or more"),
            ("top_k", self.top_k >= 0, "0 (off) or more"),
            ("top_p", 0 < self.top_p <= 1, "above 0 and at most 1 (off)"),
            ("min_p", 0 <= self.min_p < 1, "at least 0 (off) and below 1"),
            ("repetition_penalty", self.repetition_penalty > 0, "above 0; 1 is off"),
            ("max_new_tokens", self.max_new_tokens >= 1, "at least 1"),
            ("seed", self.seed is None or 0 <= self.seed < 2**63, "at least 0 and below 2**63"),
        )
        for name, holds, wanted in rules:
            if not holds:
                flag = name.replace("_", "-")
                raise ConfigError(f"--{flag} {getattr(self, name)}: must be {wanted}")

    @property
    def greedy(self) -> bool:
        """Tell whether the most likely token is always taken."""
        return self.temperature == 0 or self.top_k == 1


def apply_repetition_penalty(logits_BV: Tensor, seen_BV: Tensor, *, penalty: float) -> Tensor:
    """Divide positive logits of tokens that occurred by `penalty`, multiply negative ones.

    Keskar et al. 2019 (CTRL), section 4.1, with transformers' rule for negative logits.
    """
    penalised_BV = torch.where(logits_BV < 0, logits_BV * penalty, logits_BV / penalty)
    return torch.where(seen_BV, penalised_BV, logits_BV)


def apply_temperature(logits_BV: Tensor, temperature: float) -> Tensor:
    """Divide by the temperature: below 1 sharpens, above 1 flattens."""
    return logits_BV / temperature


def keep_top_k(logits_BV: Tensor, k: int) -> Tensor:
    """Keep the k most likely tokens of each row (more if the k-th is tied)."""
    kth_B1 = logits_BV.topk(min(k, logits_BV.shape[-1])).values[:, -1:]
    return logits_BV.masked_fill(logits_BV < kth_B1, NEVER)


def keep_top_p(logits_BV: Tensor, p: float) -> Tensor:
    """Keep the smallest set of tokens whose probability reaches p (never less than one)."""
    vocabulary = logits_BV.shape[-1]
    log_total_B1 = logits_BV.logsumexp(-1, keepdim=True)
    for width in (min(_LIKELY, vocabulary), vocabulary):
        top = logits_BV.topk(width)
        probs_BW = (top.values - log_total_B1).exp()
        before_BW = probs_BW.cumsum(-1) - probs_BW
        if width == vocabulary or bool((before_BW[:, -1] >= p).all()):
            break
    kept_BW = before_BW < p
    kept_BW[:, 0] = True
    kept_values_BW = top.values.masked_fill(~kept_BW, NEVER)
    return torch.full_like(logits_BV, NEVER).scatter(-1, top.indices, kept_values_BW)


def keep_min_p(logits_BV: Tensor, min_p: float) -> Tensor:
    """Keep tokens that are at least `min_p` times as likely as the most likely one."""
    floor_B1 = logits_BV.amax(-1, keepdim=True) + torch.log(torch.tensor(min_p)).item()
    return logits_BV.masked_fill(logits_BV < floor_B1, NEVER)


def filter_logits(
    logits_BV: Tensor, params: SamplingParams, *, seen_BV: Tensor | None = None
) -> Tensor:
    """Apply every filter that is on, in order; the softmax of the result is what is drawn from."""
    logits_BV = logits_BV.float()
    if params.repetition_penalty != 1 and seen_BV is not None:
        logits_BV = apply_repetition_penalty(logits_BV, seen_BV, penalty=params.repetition_penalty)
    if params.greedy:
        return logits_BV
    logits_BV = apply_temperature(logits_BV, params.temperature)
    if params.top_k:
        logits_BV = keep_top_k(logits_BV, params.top_k)
    if params.top_p < 1:
        logits_BV = keep_top_p(logits_BV, params.top_p)
    if params.min_p:
        logits_BV = keep_min_p(logits_BV, params.min_p)
    return logits_BV


def row_generators(seed: int | None, rows: int) -> list[torch.Generator]:
    """Return one random source a row, so that a row's draws don't depend on its neighbours."""
    generators = [torch.Generator() for _ in range(rows)]
    for row, generator in enumerate(generators):
        if seed is None:
            generator.seed()
        else:
            generator.manual_seed((seed + row) % 2**63)
    return generators


def draw(logits_BV: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
    """Draw one id a row from softmax(logits): (B,) int64, by inverting the cumulative sum."""
    uniform_B = torch.cat([torch.rand(1, generator=g) for g in generators]).to(logits_BV.device)
    cumulative_BV = logits_BV.softmax(-1).cumsum(-1)
    # The sum is 1 only up to rounding: scaling by it keeps the draw inside the row.
    target_B1 = uniform_B[:, None] * cumulative_BV[:, -1:]
    return torch.searchsorted(cumulative_BV, target_B1, right=True)[:, 0]


def sample(
    logits_BV: Tensor,
    params: SamplingParams,
    *,
    generators: Sequence[torch.Generator],
    seen_BV: Tensor | None = None,
) -> Tensor:
    """Choose the next token of every row.

    Args:
        logits_BV: (B, V) scores of the model.
        params: the filters.
        generators: one random source a row (`row_generators`); not used when greedy.
        seen_BV: (B, V) bool, tokens that occurred; needed for the repetition penalty.

    Returns:
        (B,) int64 token ids.
    """
    filtered_BV = filter_logits(logits_BV, params, seen_BV=seen_BV)
    return filtered_BV.argmax(-1) if params.greedy else draw(filtered_BV, generators)
