"""Log-probabilities of labels: `inference.scoring` as the measures use it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from minimind.data.batch import IGNORE
from minimind.inference.scored import ScoredModel
from minimind.inference.scoring import Precision, Row, score_rows

__all__ = ["Precision", "Row", "label_log_probs", "next_token_row"]


def label_log_probs(
    model: ScoredModel,
    rows: Sequence[Row],
    *,
    precision: Precision = "fp32",
    batch_tokens: int = 8192,
) -> list[np.ndarray]:
    """Return for each row the natural-log probabilities of its labels, (T,) float32.

    Ignored labels give 0. See `inference.scoring.score_rows`.
    """
    scores = score_rows(model, rows, precision=precision, batch_tokens=batch_tokens)
    return [row.log_probs for row in scores]


def next_token_row(ids: Sequence[int], mask: Sequence[bool] | None = None) -> Row:
    """Turn ids into (inputs, labels); `mask` says which of `ids` are to be scored."""
    labels = [
        token if mask is None or scored else IGNORE
        for token, scored in zip(ids[1:], mask[1:] if mask is not None else ids[1:], strict=True)
    ]
    return list(ids[:-1]), labels
