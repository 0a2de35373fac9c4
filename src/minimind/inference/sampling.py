"""How the next token is chosen: the parameters, and each filter as one pure function.

A filter works on many rows at once; what it takes as a parameter is one number, or a (B, 1) tensor
with one for each row. It sets what it forbids to minus infinity. The order is vLLM's for what
changes scores (logit bias, then repetition, frequency and presence penalty) and transformers' for
what follows (temperature, top-k, top-p, min-p). `sampler.Sampler` applies them to a batch.

Axes: B rows, V vocabulary, W the likeliest tokens.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from minimind.errors import ConfigError

NEVER = float("-inf")
_LIKELY = (64, 512)
"""top-p first looks at this many tokens; a full sort of 12,000 is needed only for flat rows."""
_TRIES = 4
"""Draws before a row is filtered: with top-p 0.9 that happens once in 10,000 tokens."""
_TOLD = 20
"""The most alternatives per token that OpenAI's API gives (`top_logprobs`)."""


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
            (Keskar et al. 2019); 1 switches it off. Stop tokens are spared.
        presence_penalty: taken off the logits of tokens that are in the answer, -2 to 2 (OpenAI).
        frequency_penalty: the same for each time that a token is in the answer, -2 to 2 (OpenAI).
        logit_bias: (id, number) pairs; the number, -100 to 100, is added to the token's logit.
        alternatives: how many of the likeliest tokens to report with each token, 0 to 20; 0 reports
            the token's own log-probability, None not even that, which saves a pass over the logits.
        seed: makes the draws repeatable, whatever other rows of a batch do. None: random.
        max_new_tokens: at most so many tokens in an answer.
        stop_ids: any of these tokens ends an answer; they aren't part of it.
    """

    temperature: float = 0.7
    top_k: int = 0
    top_p: float = 0.9
    min_p: float = 0.0
    repetition_penalty: float = 1.1
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    alternatives: int | None = None
    seed: int | None = None
    max_new_tokens: int = 256
    stop_ids: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        finite = 0 <= self.temperature < math.inf
        rules = (
            ("temperature", finite, "0 (always the most likely token) or more"),
            ("top_k", self.top_k >= 0, "0 (off) or more"),
            ("top_p", 0 < self.top_p <= 1, "above 0 and at most 1 (off)"),
            ("min_p", 0 <= self.min_p < 1, "at least 0 (off) and below 1"),
            ("repetition_penalty", 0 < self.repetition_penalty < math.inf, "above 0; 1 is off"),
            ("presence_penalty", -2 <= self.presence_penalty <= 2, "from -2 to 2; 0 is off"),
            ("frequency_penalty", -2 <= self.frequency_penalty <= 2, "from -2 to 2; 0 is off"),
            ("alternatives", 0 <= (self.alternatives or 0) <= _TOLD, f"from 0 to {_TOLD}"),
            ("max_new_tokens", self.max_new_tokens >= 1, "at least 1"),
            ("seed", self.seed is None or 0 <= self.seed < 2**63, "at least 0 and below 2**63"),
        )
        for name, holds, wanted in rules:
            if not holds:
                flag = name.replace("_", "-")
                raise ConfigError(f"--{flag} {getattr(self, name)}: must be {wanted}")
        for token, bias in self.logit_bias:
            if not -100 <= bias <= 100:
                raise ConfigError(f"--logit-bias {token} {bias}: must be from -100 to 100")

    @property
    def greedy(self) -> bool:
        """Tell whether the most likely token is always taken."""
        return self.temperature == 0 or self.top_k == 1

    def check_vocabulary(self, vocab_size: int) -> None:
        """Refuse token ids that the model doesn't have.

        Raises:
            ConfigError: with the flag and the id.
        """
        ids = [("--logit-bias", token) for token, _ in self.logit_bias]
        for flag, token in (*ids, *(("--stop-ids", token) for token in self.stop_ids)):
            if not 0 <= token < vocab_size:
                raise ConfigError(
                    f"{flag} {token}: the model's vocabulary is 0 to {vocab_size - 1}"
                )


class RowParams(NamedTuple):
    """The parameters of many rows, (B, 1) each: what one pass over all of them needs."""

    temperature: Tensor
    top_k: Tensor
    top_p: Tensor
    min_p: Tensor
    repetition_penalty: Tensor
    presence_penalty: Tensor
    frequency_penalty: Tensor

    @classmethod
    def of(cls, rows: Sequence[SamplingParams]) -> RowParams:
        """Collect them, on the CPU; floats are fp64, so that no threshold moves."""
        columns = ([getattr(params, name) for params in rows] for name in cls._fields)
        tensors = (torch.tensor(column)[:, None] for column in columns)
        return cls(*(t.double() if t.is_floating_point() else t for t in tensors))

    def pick(self, rows: Tensor) -> RowParams:
        """Return the parameters of these rows."""
        return RowParams(*(column[rows] for column in self))


def apply_repetition_penalty(
    logits_BV: Tensor, seen_BV: Tensor, *, penalty: float | Tensor
) -> Tensor:
    """Divide positive logits of tokens that occurred by `penalty`, multiply negative ones.

    Keskar et al. 2019 (CTRL), section 4.1, with transformers' rule for negative logits.
    """
    penalised_BV = torch.where(logits_BV < 0, logits_BV * penalty, logits_BV / penalty)
    return torch.where(seen_BV, penalised_BV, logits_BV)


def apply_count_penalties(
    logits_BV: Tensor, counts_BV: Tensor, *, presence: float | Tensor, frequency: float | Tensor
) -> Tensor:
    """Subtract `frequency` times a token's count in the answer, and `presence` if it is above 0.

    The formula of OpenAI's API reference ("Frequency and presence penalties"):
    mu[j] - c[j] * alpha_frequency - float(c[j] > 0) * alpha_presence.
    """
    return logits_BV - counts_BV * frequency - (counts_BV > 0) * presence


def apply_temperature(logits_BV: Tensor, temperature: float | Tensor) -> Tensor:
    """Divide by the temperature: below 1 sharpens, above 1 flattens."""
    return logits_BV / temperature


def keep_top_k(logits_BV: Tensor, k: int | Tensor) -> Tensor:
    """Keep the k most likely tokens of each row (more if the k-th is tied); k as in the module."""
    k_B1 = torch.as_tensor(k, device=logits_BV.device).clamp(max=logits_BV.shape[-1])
    top_BW = logits_BV.topk(int(k_B1.max())).values
    kth_B1 = top_BW.gather(-1, k_B1.expand(logits_BV.shape[0], 1) - 1)
    return logits_BV.masked_fill(logits_BV < kth_B1, NEVER)


def keep_top_p(logits_BV: Tensor, p: float | Tensor) -> Tensor:
    """Keep the smallest set of tokens whose probability reaches p (never less than one)."""
    rows, vocabulary = logits_BV.shape
    p_B1 = torch.as_tensor(p, device=logits_BV.device).expand(rows, 1)
    widths = [width for width in _LIKELY if width < vocabulary]
    if not widths:
        return _nucleus(logits_BV, p_B1, vocabulary)[0]
    kept_BV, whole_B = _nucleus(logits_BV, p_B1, widths[0])
    for width in (*widths[1:], vocabulary):
        if bool(whole_B.all()):
            break
        wider = (~whole_B).nonzero()[:, 0]
        kept_BV[wider], whole_B[wider] = _nucleus(logits_BV[wider], p_B1[wider], width)
    return kept_BV


def _nucleus(logits_BV: Tensor, p_B1: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Keep the nucleus among the `width` likeliest tokens; say which rows have it whole, (B,)."""
    top = logits_BV.topk(width)
    probs_BW = (top.values - logits_BV.logsumexp(-1, keepdim=True)).exp()
    before_BW = probs_BW.cumsum(-1) - probs_BW
    forbidden_BW = before_BW >= p_B1
    forbidden_BW[:, 0] = False
    whole_B = forbidden_BW[:, -1] | (width == logits_BV.shape[-1])
    values_BW = top.values.masked_fill(forbidden_BW, NEVER)
    return torch.full_like(logits_BV, NEVER).scatter_(-1, top.indices, values_BW), whole_B


def keep_min_p(logits_BV: Tensor, min_p: float | Tensor) -> Tensor:
    """Keep tokens that are at least `min_p` times as likely as the most likely one."""
    log_min_p = torch.as_tensor(min_p, device=logits_BV.device).log()
    floor_B1 = logits_BV.amax(-1, keepdim=True) + log_min_p
    return logits_BV.masked_fill(logits_BV < floor_B1, NEVER)


def filter_logits(logits_BV: Tensor, rows: RowParams) -> Tensor:
    """Apply temperature and every filter that is on, in order, to rows that aren't greedy.

    The softmax of the result is what is drawn from. A filter costs only the rows that have it on.
    """
    logits_BV = apply_temperature(logits_BV, _like(rows.temperature, logits_BV))
    for keep, values_B1, on_B1 in (
        (keep_top_k, rows.top_k, rows.top_k > 0),
        (keep_top_p, rows.top_p, rows.top_p < 1),
        (keep_min_p, rows.min_p, rows.min_p > 0),
    ):
        on = on_B1[:, 0].nonzero()[:, 0]
        if len(on) == len(on_B1):
            logits_BV = keep(logits_BV, _like(values_B1, logits_BV))
        elif len(on):
            at = on.to(logits_BV.device)
            logits_BV[at] = keep(logits_BV[at], _like(values_B1[on], logits_BV))
    return logits_BV


def _like(values_B1: Tensor, logits_BV: Tensor) -> Tensor:
    """Move parameters to where the logits are; integers stay integers."""
    dtype = logits_BV.dtype if values_B1.is_floating_point() else None
    return values_B1.to(logits_BV.device, dtype)


def new_generator(seed: int | None) -> torch.Generator:
    """Return a source of random numbers of its own (on the CPU); None: seeded by the system."""
    generator = torch.Generator()
    if seed is None:
        generator.seed()
    else:
        generator.manual_seed(seed)
    return generator


def draw(logits_BV: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
    """Draw one id a row from softmax(logits): (B,) int64."""
    return _invert(logits_BV.softmax(-1).cumsum(-1), generators)


def draw_filtered(
    logits_BV: Tensor, rows: RowParams, generators: Sequence[torch.Generator]
) -> Tensor:
    """Draw one id a row from what `filter_logits` leaves: (B,) int64.

    Sorting 12,000 logits costs more than the model's step of a row. So without top-k a token is
    drawn as if nothing were filtered, and drawn again if top-p or min-p would have removed it: that
    gives the same distribution (rejection sampling), and most draws are kept. Rows without luck in
    `_TRIES` draws are filtered after all. Tokens as likely as the last one of top-p stay as well.
    """
    ids_B = torch.zeros(len(logits_BV), dtype=torch.int64, device=logits_BV.device)
    no_top_k_B = rows.top_k[:, 0] == 0
    rest = no_top_k_B.nonzero()[:, 0]
    if len(rest):
        rest = _draw_and_look(logits_BV, rows, generators, pending=rest, ids_B=ids_B)
    rest = torch.cat((rest, (~no_top_k_B).nonzero()[:, 0]))
    if len(rest):
        at = rest.to(logits_BV.device)
        left_nV = filter_logits(logits_BV[at], rows.pick(rest))
        ids_B[at] = draw(left_nV, [generators[row] for row in rest.tolist()])
    return ids_B


def _draw_and_look(
    logits_BV: Tensor, rows: RowParams, generators: Sequence[torch.Generator], *,
    pending: Tensor, ids_B: Tensor,
) -> Tensor:  # fmt: skip
    """Draw unfiltered ids for the `pending` rows into `ids_B`; return the rows without luck."""
    probs_BV = apply_temperature(logits_BV, _like(rows.temperature, logits_BV)).softmax(-1)
    cumulative_BV = probs_BV.cumsum(-1)
    for _ in range(_TRIES):
        at = pending.to(logits_BV.device) if len(pending) < len(logits_BV) else slice(None)
        drawn_n = _invert(cumulative_BV[at], [generators[row] for row in pending.tolist()])
        ids_B[at] = drawn_n
        kept_n = _is_kept(probs_BV[at], drawn_n, rows.pick(pending))
        pending = pending[~kept_n.cpu()]
        if len(pending) == 0:
            break
    return pending


def _is_kept(probs_BV: Tensor, ids_B: Tensor, rows: RowParams) -> Tensor:
    """Tell whether top-p and min-p keep these tokens, (B,) bool."""
    prob_B1 = probs_BV.gather(1, ids_B[:, None])
    top_p_B1, min_p_B1 = _like(rows.top_p, probs_BV), _like(rows.min_p, probs_BV)
    before_B1 = probs_BV.masked_fill(probs_BV <= prob_B1, 0).sum(-1, keepdim=True)
    likely_B1 = (before_B1 < top_p_B1) | (top_p_B1 == 1)
    return (likely_B1 & (prob_B1 >= min_p_B1 * probs_BV.amax(-1, keepdim=True)))[:, 0]


def _invert(cumulative_BV: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
    """Draw one id a row by inverting the cumulative sum of its probabilities."""
    uniform_B = torch.cat([torch.rand(1, generator=g) for g in generators])
    # The sum is 1 only up to rounding: scaling by it keeps the draw inside the row. A row of NaN
    # would still draw beyond it.
    target_B1 = uniform_B.to(cumulative_BV.device)[:, None] * cumulative_BV[:, -1:]
    ids_B1 = torch.searchsorted(cumulative_BV, target_B1, right=True)
    return ids_B1[:, 0].clamp(max=cumulative_BV.shape[1] - 1)
