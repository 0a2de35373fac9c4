"""Which files a run reads, and how much of each."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from minimind.config import DataConfig
from minimind.data.build import build
from minimind.data.fetch import cache_dir
from minimind.data.ledger import FILE_NAME
from minimind.data.reader import expand_paths, text_bytes
from minimind.errors import ConfigError

CATALOGUE = "catalogue:"
_BUILT_FILES = {"text": "pretrain", "chat": "sft.jsonl"}


def data_files(
    config: DataConfig, split: Literal["train", "validation"]
) -> list[tuple[Path, float]]:
    """Return (file, weight) of a run's files; a pattern's weight is split by its files' bytes.

    Raises:
        ConfigError: the number of weights isn't that of the paths, or one isn't positive.
        DataError: a path or pattern has no file.
    """
    if split == "validation" and config.validation is not None:
        return [(path, text_bytes(path) or 1.0) for path in expand_paths(config.validation)]
    expand_paths(resolved(pattern, config.kind) for pattern in config.train)  # complains if empty
    weights = config.weights
    if weights is not None and len(weights) != len(config.train):
        raise ConfigError(
            f"data.weights has {len(weights)} numbers, data.train has {len(config.train)} paths: "
            "give one number a path"
        )
    if weights is not None and min(weights) <= 0:
        raise ConfigError(f"data.weights = {weights}: every weight must be above 0")
    files: dict[Path, float] = {}
    for number, pattern in enumerate(config.train):
        paths = expand_paths([resolved(pattern, config.kind)])
        total = sum(map(text_bytes, paths)) or 1
        for path in paths:
            share = (
                text_bytes(path) if weights is None else weights[number] * text_bytes(path) / total
            )
            files.setdefault(path, share)
    return list(files.items())


def resolved(pattern: str, kind: str) -> str:
    """Return the pattern, or for `catalogue:NAME` the built data, built if it isn't there."""
    if not pattern.startswith(CATALOGUE):
        return pattern
    if kind == "preference":
        raise ConfigError(
            f"{pattern} has no preference pairs: they are made from a model's own answers by "
            "`minimind data preferences`"
        )
    name = pattern.removeprefix(CATALOGUE)
    directory = cache_dir() / "built" / name
    if not (directory / FILE_NAME).is_file():  # the ledger is written last
        build([name], directory)
    return str(directory / _BUILT_FILES[kind])
