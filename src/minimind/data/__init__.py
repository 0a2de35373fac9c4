"""Rows for the model: documents, batches, packing and streaming; and where text comes from.

Names are imported when they are used: the catalogue and the downloader don't need torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from minimind.data.batch import IGNORE, Batch
    from minimind.data.document import Document, is_held_out
    from minimind.data.loader import Loader, make_loader
    from minimind.data.rejects import Rejects
    from minimind.data.validation import held_out_texts, validation_batches

__all__ = [
    "IGNORE",
    "Batch",
    "Document",
    "Loader",
    "Rejects",
    "held_out_texts",
    "is_held_out",
    "make_loader",
    "validation_batches",
]

_HOMES = {
    "IGNORE": "batch", "Batch": "batch", "Document": "document", "is_held_out": "document",
    "Loader": "loader", "make_loader": "loader", "Rejects": "rejects",
    "held_out_texts": "validation", "validation_batches": "validation",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"minimind.data.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
