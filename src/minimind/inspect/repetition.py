"""Where a text begins to go round in circles, and which heads look back at what came before.

Axes: L layers, H heads, T queries, S keys.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from minimind.inspect.reading import Reading
from minimind.tokenizer.loops import Loop, find_loop


@dataclass(frozen=True, kw_only=True, slots=True)
class HeadScores:
    """Where a head looks, each the mean share of its attention, 0 to 1.

    Attributes:
        layer: from 0.
        head: from 0.
        copying: on the tokens that followed the current token when it came up before: the mark of
            an induction head (Olsson et al. 2022). None where no token comes up twice.
        chance: what `copying` would be if attention were spread evenly over what may be seen.
        copying_in_loop: `copying` over the positions inside the loop. None without one.
        previous: on the token before the current one.
        first: on the first token, where a head rests that finds nothing to do.
    """

    layer: int
    head: int
    copying: float | None
    chance: float | None
    copying_in_loop: float | None
    previous: float
    first: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Repetition:
    """A loop, if there is one, and every head's scores.

    Attributes:
        loop: token positions, see `tokenizer.loops.find_loop`; None: there is none.
        positions: how many positions hold a token that came up before.
        heads: layer by layer.
    """

    loop: Loop | None
    positions: int
    heads: tuple[HeadScores, ...]

    def copiers(self, count: int = 3) -> list[HeadScores]:
        """Return the heads that copy most, best first; none below twice the chance."""
        able = [h for h in self.heads if h.copying and h.chance and h.copying > 2 * h.chance]
        return sorted(able, key=lambda head: -(head.copying or 0.0))[:count]


def repetition(reading: Reading) -> Repetition:
    """Find a loop in the tokens, and score the heads that the reading kept."""
    follows_TS = followers(reading.ids)
    loop = find_loop(reading.raw)
    config = reading.model.config
    scores = []
    for place, layer in enumerate(reading.layers):
        weights_HTS = reading.attention_LHTS[place]
        seen_TS = _seen(len(reading.ids), config.window_of(layer))
        copying_H = _mass(weights_HTS, follows_TS & seen_TS)
        chance = _chance(follows_TS & seen_TS, seen_TS)
        inside_H = [None] * len(reading.heads)
        if loop:
            inside_TS = torch.zeros_like(follows_TS)
            inside_TS[loop.start : loop.end] = True
            inside_H = _mass(weights_HTS, follows_TS & seen_TS & inside_TS)
        previous_H = weights_HTS.diagonal(-1, 1, 2).mean(-1).nan_to_num().tolist()
        first_H = weights_HTS[:, 1:, 0].mean(-1).nan_to_num().tolist()
        scores += [
            HeadScores(
                layer=layer, head=head, copying=copying_H[h], chance=chance,
                copying_in_loop=inside_H[h], previous=previous_H[h], first=first_H[h],
            )
            for h, head in enumerate(reading.heads)
        ]  # fmt: skip
    positions = int(follows_TS.any(1).sum())
    return Repetition(loop=loop, positions=positions, heads=tuple(scores))


def followers(ids: Sequence[int]) -> Tensor:
    """Return (T, S) bool: key s stands right behind an earlier occurrence of query t's token."""
    ids_T = torch.tensor(list(ids))
    same_TS = ids_T[:, None] == ids_T[None, :]
    behind_TS = torch.zeros_like(same_TS)
    behind_TS[:, 1:] = same_TS[:, :-1]
    return behind_TS.tril(-1)  # a key before the query: looking at itself copies nothing


def _seen(T: int, window: int | None) -> Tensor:
    seen_TS = torch.ones(T, T, dtype=torch.bool).tril()
    return seen_TS if window is None else seen_TS.triu(1 - window)


def _mass(weights_HTS: Tensor, wanted_TS: Tensor) -> list[float | None]:
    """Return each head's mean attention on the wanted keys, over the queries that have any."""
    rows_T = wanted_TS.any(1)
    if not rows_T.any():
        return [None] * len(weights_HTS)
    return (weights_HTS * wanted_TS).sum(-1)[:, rows_T].mean(-1).tolist()


def _chance(wanted_TS: Tensor, seen_TS: Tensor) -> float | None:
    rows_T = wanted_TS.any(1)
    if not rows_T.any():
        return None
    return float((wanted_TS.sum(1) / seen_TS.sum(1))[rows_T].mean())
