"""The one forward pass that every measure shares: log-probabilities of given tokens.

Rows are ragged. They are sorted by length, padded at the end and run in batches of about
`batch_tokens` slots; causal attention never looks at what follows, so the padding changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from minimind.data.batch import IGNORE
from minimind.model import CausalLM, token_log_probs

Precision = Literal["fp32", "bf16"]
Row = tuple[Sequence[int], Sequence[int]]
"""(input ids, labels): `labels[t]` is the token that should follow `ids[t]`; IGNORE: not scored."""

VOCABULARY_CHUNK = 2048
"""Positions whose logits are held at once: 2,048 x 12,000 x 4 bytes = 98 MB."""


def device_of(model: CausalLM) -> torch.device:
    """Return where the model's weights are."""
    return next(model.parameters()).device


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[object]:
    """Return bf16 autocast, or nothing for fp32; log-probabilities are fp32 either way."""
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, torch.bfloat16)


@torch.no_grad()
def label_log_probs(
    model: CausalLM,
    rows: Sequence[Row],
    *,
    precision: Precision = "fp32",
    batch_tokens: int = 8192,
) -> list[np.ndarray]:
    """Return for each row the natural-log probabilities of its labels, (T,) float32.

    Ignored labels give 0. The model is put into eval mode while it runs and left as it was.

    Args:
        model: any `CausalLM`, on any device.
        rows: (input ids, labels) of equal length each.
        precision: `bf16` runs the forward pass under autocast.
        batch_tokens: slots in one forward pass, padding included.
    """
    device, was_training = device_of(model), model.training
    scores: list[np.ndarray] = [np.zeros(0, np.float32)] * len(rows)
    model.eval()
    try:
        for members in _batches([len(ids) for ids, _ in rows], batch_tokens):
            ids_BT, labels_BT = _pad([rows[i] for i in members])
            labels_BT = labels_BT.to(device)
            with autocast(device, precision):
                output = model(ids_BT.to(device), logits="none")
                scores_N = token_log_probs(
                    output.hidden_BTD.flatten(0, 1),
                    model.output_weight,
                    labels_BT.flatten(),
                    chunk=VOCABULARY_CHUNK,
                )
            scores_BT = scores_N.float().view(labels_BT.shape).cpu().numpy()
            for row, i in enumerate(members):
                scores[i] = scores_BT[row, : len(rows[i][0])].copy()
    finally:
        model.train(was_training)
    return scores


def next_token_row(ids: Sequence[int], mask: Sequence[bool] | None = None) -> Row:
    """Turn ids into (inputs, labels); `mask` says which of `ids` are to be scored."""
    labels = [
        token if mask is None or scored else IGNORE
        for token, scored in zip(ids[1:], mask[1:] if mask is not None else ids[1:], strict=True)
    ]
    return list(ids[:-1]), labels


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


def _pad(rows: Sequence[Row]) -> tuple[Tensor, Tensor]:
    width = max(len(ids) for ids, _ in rows)
    ids_BT = torch.zeros(len(rows), width, dtype=torch.int64)
    labels_BT = torch.full((len(rows), width), IGNORE, dtype=torch.int64)
    for row, (ids, labels) in enumerate(rows):
        ids_BT[row, : len(ids)] = torch.as_tensor(ids, dtype=torch.int64)
        labels_BT[row, : len(labels)] = torch.as_tensor(labels, dtype=torch.int64)
    return ids_BT, labels_BT
