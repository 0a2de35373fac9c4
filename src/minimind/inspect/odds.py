"""What the model expected at each position: odds of the token that came, and of the others.

Axes: T positions, V vocabulary, D hidden.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from minimind.inspect.reading import Reading
from minimind.tokenizer.shown import visible

_CHUNK = 128
"""Positions whose logits are held at once: 128 x 152,000 x 4 bytes = 78 MB."""


@dataclass(frozen=True, slots=True)
class Alternative:
    """A token that could have come."""

    id: int
    text: str
    probability: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenOdds:
    """What the model thought of one token before it saw it.

    Attributes:
        id: the token.
        text: as people can read it.
        probability: of the token, 0 to 1. None for the first one, which nothing precedes; so are
            the following.
        bits: its surprise, -log2 of the probability.
        entropy: of the whole distribution, bits: how undecided the model was.
        rank: 1 for the likeliest token.
        alternatives: the likeliest tokens, best first.
    """

    id: int
    text: str
    probability: float | None = None
    bits: float | None = None
    entropy: float | None = None
    rank: int | None = None
    alternatives: tuple[Alternative, ...] = ()


def token_odds(reading: Reading, *, top: int = 5) -> tuple[TokenOdds, ...]:
    """Return the odds of each of the T tokens.

    Args:
        reading: from `read`.
        top: how many alternatives; at most the vocabulary.
    """
    top = min(top, reading.model.config.vocab_size)
    shown = reading.shown
    odds = [TokenOdds(id=reading.ids[0], text=shown[0])]
    targets_T = torch.tensor(reading.ids[1:], dtype=torch.int64)
    for begin, log_probs_nV in _chunks(reading, layer=-1):
        targets_n = targets_T[begin : begin + len(log_probs_nV)]
        own_n = own_log_probs(log_probs_nV, targets_n)
        entropy_n = -(log_probs_nV.exp() * log_probs_nV.clamp(min=-1e4)).sum(-1) / math.log(2)
        rank_n = ranks(log_probs_nV, own_n)
        best = log_probs_nV.topk(top, dim=-1)
        for row, own in enumerate(own_n.tolist()):
            at = begin + row + 1
            odds.append(
                TokenOdds(
                    id=reading.ids[at],
                    text=shown[at],
                    probability=math.exp(own),
                    bits=-own / math.log(2),
                    entropy=float(entropy_n[row]),
                    rank=int(rank_n[row]),
                    alternatives=_alternatives(reading, best.indices[row], best.values[row]),
                )
            )
    return tuple(odds)


@dataclass(frozen=True, kw_only=True, eq=False)
class LogitLens:
    """What the model would have said had it stopped after each layer.

    The hidden state after a layer goes through the final norm and the head, as if no layer
    followed (nostalgebraist 2020). Index 0 is the embedding, L the output itself. Position t
    predicts token t + 1.

    Attributes:
        top_LT: (L + 1, T) the likeliest token ids.
        top_probability_LT: (L + 1, T) their probability.
        next_probability_LT: (L + 1, T - 1) probability of the token that came next.
        next_rank_LT: (L + 1, T - 1) its rank, 1 for the likeliest.
    """

    top_LT: Tensor  # noqa: N815  (shapes in names)
    top_probability_LT: Tensor  # noqa: N815
    next_probability_LT: Tensor  # noqa: N815
    next_rank_LT: Tensor  # noqa: N815

    def bits(self) -> list[float]:
        """Return the mean surprise (bits a token) after each of the L + 1 stages."""
        if self.next_probability_LT.shape[1] == 0:
            return []
        return (-self.next_probability_LT.clamp(min=1e-30).log2()).mean(1).tolist()


def logit_lens(reading: Reading) -> LogitLens:
    """Read every layer's hidden states through the final norm and the head."""
    found = [_lens_of(reading, layer) for layer in range(reading.hidden_LTD.shape[0])]
    top, top_probability, own, rank = (torch.stack(parts) for parts in zip(*found, strict=True))
    return LogitLens(
        top_LT=top, top_probability_LT=top_probability, next_probability_LT=own, next_rank_LT=rank
    )


def own_log_probs(log_probs_nV: Tensor, targets_n: Tensor) -> Tensor:
    """Return the log-probability of each row's target, for as many rows as there are targets."""
    return log_probs_nV[: len(targets_n)].gather(1, targets_n[:, None])[:, 0]


def ranks(log_probs_nV: Tensor, own_n: Tensor) -> Tensor:
    """Return 1 + how many tokens are likelier than each row's own."""
    return 1 + (log_probs_nV[: len(own_n)] > own_n[:, None]).sum(-1)


def _lens_of(reading: Reading, layer: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    targets_T = torch.tensor(reading.ids[1:], dtype=torch.int64)
    parts: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
    for begin, log_probs_nV in _chunks(reading, layer=layer):
        best = log_probs_nV.max(-1)
        own_n = own_log_probs(log_probs_nV, targets_T[begin : begin + _CHUNK])
        rank_n = ranks(log_probs_nV, own_n)
        parts.append((best.indices, best.values.exp(), own_n.exp(), rank_n))
    top, probability, own, rank = (torch.cat(part) for part in zip(*parts, strict=True))
    return top, probability, own, rank


@torch.no_grad()
def _chunks(reading: Reading, *, layer: int) -> Iterator[tuple[int, Tensor]]:
    """Yield (first position, (n, V) fp32 log-probabilities) after a layer."""
    model = reading.model
    weight = model.model.norm.weight
    hidden_TD = reading.hidden_LTD[layer].to(weight.device, weight.dtype)
    for begin in range(0, len(hidden_TD), _CHUNK):
        normed_1nD = model.model.norm(hidden_TD[None, begin : begin + _CHUNK])
        yield begin, model.head(normed_1nD)[0].float().log_softmax(-1).cpu()


def _alternatives(reading: Reading, ids: Tensor, log_probs: Tensor) -> tuple[Alternative, ...]:
    pairs = zip(ids.tolist(), log_probs.tolist(), strict=True)
    return tuple(Alternative(i, token_text(reading, i), math.exp(value)) for i, value in pairs)


def token_text(reading: Reading, token: int) -> str:
    """Return a token of the vocabulary as people can read it; spare ids have no text."""
    if token >= reading.tokenizer.vocab_size:
        return f"#{token}"
    return visible(reading.tokenizer.token_bytes(token))
