"""Pretraining text of the user's own (`--text`), beside the built folder or in its place."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from minimind.config import DataConfig
from minimind.data.files import data_files
from minimind.data.reader import text_bytes
from minimind.errors import ConfigError
from minimind.quickstart.config import QuickstartConfig

SHARE_OF_UNKNOWN = 0.9
"""Share of --text where nobody says its size: a tenth stays what SFT and evaluation are about."""


def check_text(config: QuickstartConfig) -> None:
    """Refuse text that can't be read before anything is built.

    Raises:
        UserError: a file is missing, the hub has no such data set, or its licence was not accepted.
    """
    for name in config.text:
        text_size(name, config)


def text_size(name: str, config: QuickstartConfig) -> int:
    """Return the bytes of one `--text`; 0 where nobody says them (a data set of the hub)."""
    data = DataConfig(train=(name,), accept_licences=config.accept_licences)
    try:
        return sum(text_bytes(origin) for origin, _ in data_files(data, "train"))
    except ConfigError as error:  # it names the flags of `minimind train`
        raise ConfigError(str(error).replace("--data.", "--")) from error


def data_flags(config: QuickstartConfig, built: Path) -> list[object]:
    """Return what pretraining reads as flags of `minimind train`.

    Without --text the built folder. With it both by their sizes, or by `text_share`; where a size
    is unknown, `SHARE_OF_UNKNOWN`, and several --text alike.

    Args:
        config: with `text`, `text_share` and `accept_licences`.
        built: the folder of pretraining text that `minimind data build` wrote.
    """
    if not config.text:
        return ["--data.train", built]
    sizes = [text_size(name, config) for name in config.text]
    paths, weights = [built, *config.text], _weights(config.text_share, sizes)
    if config.text_share == 1:
        paths, weights = paths[1:], weights[1:]
    flags: list[object] = ["--data.train", *paths]
    if weights:
        flags += ["--data.weights", *weights]
    if config.accept_licences:
        flags += ["--data.accept-licences", *config.accept_licences]
    return flags


def _weights(share: float | None, sizes: Sequence[int]) -> list[float]:
    """Return the weights of the built folder and of each text; none: by their sizes."""
    if all(sizes) and share is None:
        return []
    share = SHARE_OF_UNKNOWN if share is None else share
    parts = sizes if all(sizes) else [1] * len(sizes)
    return [round(1 - share, 6), *(share * part / sum(parts) for part in parts)]
