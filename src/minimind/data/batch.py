"""What the model is given: rows of token ids with their targets."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from minimind.data.items import IGNORE

__all__ = ["IGNORE", "Batch"]


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Rows of one micro-batch.

    Attributes:
        input_ids: (B, T) int64.
        labels: (B, T) int64, **already shifted**: `labels[b, t]` is the token that should follow
            `input_ids[b, t]`; `IGNORE` where nothing is learnt.
        position_ids: (B, T) int64, counted from 0 within each document.
        document_ids: (B, T) int64, the number of the document within its row, never decreasing;
            padding is -1. Attention never crosses from one document to another.
            None: each row is one document (padding, if any, is at the end and has no labels).
        image_features: (B, I, P, E) of the images that each row's `<|image_pad|>` stand for, in
            order. The encoder is frozen, so features are data, computed once an image.
        document_starts: (documents + 1,) int32, where each document starts in the flat B*T, and
            the end, from `minimind.model.varlen`; for flash attention, which reads it from
            `document_ids` where it is missing.

    Preference pairs are rows 2i (chosen) and 2i + 1 (rejected).
    """

    input_ids: Tensor
    labels: Tensor
    position_ids: Tensor | None = None
    document_ids: Tensor | None = None
    image_features: Tensor | None = None
    document_starts: Tensor | None = None

    @property
    def rows(self) -> int:
        """Return B."""
        return self.input_ids.shape[0]

    @property
    def learnt_tokens(self) -> int:
        """Return how many positions carry a label."""
        return int((self.labels != IGNORE).sum())

    def to(self, device: torch.device | str) -> Batch:
        """Return the batch on `device` (asynchronously where the memory is pinned)."""
        moved = {
            f.name: value.to(device, non_blocking=True)
            for f in fields(self)
            if (value := getattr(self, f.name)) is not None
        }
        return replace(self, **moved)

    def split(self, rows: int) -> list[Batch]:
        """Split into micro-batches of at most `rows` rows, in order."""
        parts = []
        for start in range(0, self.rows, rows):
            cut = {
                f.name: value[start : start + rows]
                for f in fields(self)
                if (value := getattr(self, f.name)) is not None and f.name != "document_starts"
            }
            parts.append(replace(self, **cut, document_starts=None))
        return parts
