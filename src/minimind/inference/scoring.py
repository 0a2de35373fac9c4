"""The one forward pass that every measure shares: log-probabilities of given tokens.

Rows are ragged. They are sorted by length, padded at the end and run in batches of about
`batch_tokens` slots; causal attention never looks at what follows, so the padding changes nothing.

Axes: B rows, T positions, N scored positions, n of a chunk, D hidden, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from minimind.data.batch import IGNORE
from minimind.inference.decode import evaluating, pad_right
from minimind.inference.scored import ScoredModel

Precision = Literal["fp32", "bf16"]
Row = tuple[Sequence[int], Sequence[int]]
"""(input ids, labels): `labels[t]` is the token that should follow `ids[t]`; IGNORE: not scored."""

VOCABULARY_CHUNK = 2048
"""Positions whose logits are held at once: 2,048 x 12,000 x 4 bytes = 98 MB."""


@dataclass(frozen=True, slots=True)
class Scores:
    """What the model thinks of one row's labels; nothing (0 and True) where they are ignored.

    Attributes:
        log_probs: (T,) float32, natural logarithms.
        likeliest: (T,) bool, whether greedy decoding gives the label.
    """

    log_probs: np.ndarray
    likeliest: np.ndarray


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[object]:
    """Return bf16 autocast, or nothing for fp32; log-probabilities are fp32 either way."""
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, torch.bfloat16)


@torch.no_grad()
def score_rows(
    model: ScoredModel,
    rows: Sequence[Row],
    *,
    precision: Precision = "fp32",
    batch_tokens: int = 8192,
) -> list[Scores]:
    """Score the labels of each row; the model runs in eval mode and is left as it was.

    Args:
        model: a `CausalLM` or what stands for one, on any device.
        rows: (input ids, labels) of equal length each.
        precision: `bf16` runs the forward pass under autocast.
        batch_tokens: slots in one forward pass, padding included.
    """
    device = model.output_weight.device
    scores = [Scores(np.zeros(0, np.float32), np.zeros(0, np.bool_))] * len(rows)
    with evaluating(model), autocast(device, precision):
        for members in _batches([len(ids) for ids, _ in rows], batch_tokens):
            ids_BT = pad_right([rows[i][0] for i in members], device)
            labels_BT = pad_right([rows[i][1] for i in members], device, padding=IGNORE)
            hidden_BTD = model(ids_BT, logits="none").hidden_BTD
            log_probs_BT, likeliest_BT = _score(hidden_BTD, model.output_weight, labels_BT)
            for row, i in enumerate(members):
                T = len(rows[i][0])
                scores[i] = Scores(log_probs_BT[row, :T].copy(), likeliest_BT[row, :T].copy())
    return scores


def _score(
    hidden_BTD: Tensor, weight_VD: Tensor, labels_BT: Tensor
) -> tuple[np.ndarray, np.ndarray]:
    """Return (B, T) log-probabilities and whether each label is the likeliest token.

    Only the hidden states that predict a scored token are projected onto the vocabulary.
    """
    log_probs_BT = torch.zeros(labels_BT.shape)
    likeliest_BT = torch.ones(labels_BT.shape, dtype=torch.bool)
    scored_BT = labels_BT != IGNORE
    hidden_ND, labels_N = hidden_BTD[scored_BT], labels_BT[scored_BT]
    log_probs_N, likeliest_N = [], []
    for hidden_nD, labels_n in zip(
        hidden_ND.split(VOCABULARY_CHUNK), labels_N.split(VOCABULARY_CHUNK), strict=True
    ):
        logits_nV = F.linear(hidden_nD, weight_VD).float()
        picked_n = logits_nV.gather(1, labels_n[:, None])[:, 0]
        log_probs_N.append(picked_n - logits_nV.logsumexp(-1))
        likeliest_N.append(logits_nV.argmax(-1) == labels_n)
    at = scored_BT.cpu()
    log_probs_BT[at] = torch.cat(log_probs_N).cpu()
    likeliest_BT[at] = torch.cat(likeliest_N).cpu()
    return log_probs_BT.numpy(), likeliest_BT.numpy()


def _batches(lengths: Sequence[int], batch_tokens: int) -> Iterator[list[int]]:
    """Yield row numbers, longest first, so that rows of one batch are of similar length."""
    members: list[int] = []
    width = 0
    for i in sorted((i for i, n in enumerate(lengths) if n), key=lambda i: -lengths[i]):
        width = width or lengths[i]
        if members and (len(members) + 1) * width > batch_tokens:
            yield members
            members, width = [], lengths[i]
        members.append(i)
    if members:
        yield members
