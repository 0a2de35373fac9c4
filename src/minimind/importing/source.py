"""What every kind of foreign file is turned into before it becomes a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from minimind.config import ModelConfig
from minimind.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A foreign model in our terms.

    Attributes:
        path: where it came from; errors name it.
        config: its shape.
        tensors: by the names of our state dict (which are Hugging Face's).
        tokenizer: its tokenizer.
        notes: what the user should know.
    """

    path: Path
    config: ModelConfig
    tensors: Mapping[str, Tensor]
    tokenizer: Tokenizer
    notes: tuple[str, ...] = ()
