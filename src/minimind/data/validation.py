"""Held-out data, always the same rows: for the loss while training, and for bits per byte."""

from __future__ import annotations

from dataclasses import replace

from minimind.config import DataConfig
from minimind.data.batch import Batch
from minimind.data.files import data_files
from minimind.data.formats import TextRow
from minimind.data.loader import Loader
from minimind.data.reader import Origin
from minimind.data.rejects import Rejects
from minimind.data.stream import EmptySideError
from minimind.data.windows import Selection, WindowedFile
from minimind.errors import ConfigError, DataError
from minimind.tokenizer import Tokenizer

VALIDATION_SEED = 0
"""One for all runs, so that losses of runs with different seeds are over the same rows."""


def validation_batches(
    config: DataConfig, tokenizer: Tokenizer, *, rows: int, micro_batch_rows: int
) -> list[Batch]:
    """Return up to `rows` held-out rows as micro-batches, the same on every call and rank.

    Held out are the rows of `data.validation`, or without it the share of the training files that
    the hash decides.

    Returns:
        An empty list if no row of the training files falls into the held-out share.

    Raises:
        DataError: a file is missing, or no row of `data.validation` can be used.
    """
    if rows < 1:
        raise ConfigError(f"log.validate_rows = {rows}: must be at least 1")
    loader = Loader(
        _one_pass(config), tokenizer, batch_rows=rows, micro_batch_rows=micro_batch_rows,
        seed=VALIDATION_SEED, split="validation",
    )  # fmt: skip
    steps = iter(loader)
    try:
        return next(steps)
    except EmptySideError:
        return []
    except DataError:
        if config.validation is not None:
            raise
        return []  # held-out rows that can't be used; the training side speaks for the data


def held_out_texts(config: DataConfig, *, max_bytes: int = 1 << 20) -> dict[str, list[str]]:
    """Return the held-out texts of each file, by its name without suffix: for bits per byte.

    Args:
        config: `kind` must be `text`.
        max_bytes: at most about so much UTF-8 text a file, in a fixed shuffled order.
    """
    explicit = config.validation is not None
    selection = Selection("text", "all" if explicit else "validation", config.validation_share)
    texts: dict[str, list[str]] = {}
    for path, _ in data_files(config, "validation"):
        file = WindowedFile(path, selection, seed=VALIDATION_SEED, epochs=1,
                            window_bytes=1 << 40, rejects=Rejects())  # fmt: skip
        kept, size = [], 0
        while size < max_bytes and (drawn := file.next()) is not None:
            if isinstance(drawn.row, TextRow):
                kept.append(drawn.row.text)
                size += len(drawn.row.text.encode(errors="replace"))
        if kept:
            texts[_stem(path)] = kept
    return texts


def _stem(path: Origin) -> str:
    return path.name.split(".")[0]


def _one_pass(config: DataConfig) -> DataConfig:
    return replace(config, epochs_limit=1, num_workers=0, cache="off")
