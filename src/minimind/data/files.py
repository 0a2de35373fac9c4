"""What a run reads, and how much of each: paths, the catalogue's builds, hub data sets."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from minimind.config import DataConfig
from minimind.data.build import build
from minimind.data.fetch import cache_dir
from minimind.data.hub import PREFIX, HubData
from minimind.data.hub_catalogue import is_open
from minimind.data.ledger import FILE_NAME
from minimind.data.reader import Origin, expand_paths, text_bytes
from minimind.data.stream import Mixture
from minimind.errors import ConfigError

CATALOGUE = "catalogue:"
_BUILT_FILES = {"text": "pretrain", "chat": "sft.jsonl", "image": "sft.jsonl"}
"""What of a build each kind reads; among rows with images its conversations are the text."""


def data_files(
    config: DataConfig, split: Literal["train", "validation"]
) -> list[tuple[Origin, float]]:
    """Return (origin, weight) of what a run reads; a pattern's weight is split by bytes.

    Raises:
        ConfigError: see `mixture`.
        DataError: a path or pattern has no file.
    """
    mixed = mixture(config, split)
    return list(zip(mixed.origins, mixed.weights, strict=True))


def mixture(config: DataConfig, split: Literal["train", "validation"]) -> Mixture:
    """Return the origins of a run with their weights, caps and stages.

    Raises:
        ConfigError: the number of weights, caps or a stage's weights isn't that of the paths; one
            is out of range; a licence was not accepted.
        DataError: a path or pattern has no file.
    """
    if split == "validation" and config.validation is not None:
        held = _origins(config, config.validation)
        sizes = [float(text_bytes(origin) or 1) for origins in held for origin in origins]
        origins = tuple(origin for group in held for origin in group)
        return Mixture(origins=origins, weights=tuple(sizes),
                       epochs=(config.epochs_limit,) * len(origins))  # fmt: skip
    groups = _origins(config, config.train)
    if not groups:
        expand_paths([])  # complains that nothing was named
    weights = _numbers("data.weights", config.weights, config)
    caps = _numbers("data.epochs_caps", config.epochs_caps, config)
    stages = sorted(_stage(text, config) for text in config.curriculum)
    owner: dict[Origin, int] = {}
    for number, group in enumerate(groups):
        for origin in group:
            owner.setdefault(origin, number)
    shares = {origin: _within(origin, groups[number]) for origin, number in owner.items()}

    def spread(of_paths: Sequence[float]) -> tuple[float, ...]:
        return tuple(of_paths[number] * shares[origin] for origin, number in owner.items())

    limit = config.epochs_limit
    epochs = [limit for _ in owner]
    if caps is not None:
        for at, number in enumerate(owner.values()):
            own = round(caps[number]) or None  # 0: no cap of its own
            epochs[at] = own if limit is None else limit if own is None else min(own, limit)
    return Mixture(
        origins=tuple(owner), epochs=tuple(epochs),
        weights=spread(weights) if weights is not None else _by_size(owner, config),
        stages=tuple((after * 1e6, spread(of_paths)) for after, of_paths in stages),
    )  # fmt: skip


def _within(origin: Origin, group: Sequence[Origin]) -> float:
    """Return an origin's share of its pattern, by bytes."""
    total = sum(map(text_bytes, group))
    return max(text_bytes(origin), 1e-9) / total if total else 1 / len(group)


def _by_size(origins: dict[Origin, int], config: DataConfig) -> tuple[float, ...]:
    """Return weights by size, flattened by the temperature: p = n ** (1 / temperature)."""
    if not config.temperature > 0:
        raise ConfigError(f"data.temperature = {config.temperature}: must be above 0")
    sizes = [text_bytes(origin) for origin in origins]
    unknown = [
        str(o) for o, n in zip(origins, sizes, strict=True) if not n and isinstance(o, HubData)
    ]
    if unknown and len(sizes) > 1:
        raise ConfigError(
            f"nobody says how large {unknown[0]} is: give one share a path with --data.weights"
        )
    if math.isclose(config.temperature, 1.0):
        return tuple(float(max(size, 1e-12)) for size in sizes)
    return tuple(max(size, 1) ** (1 / config.temperature) for size in sizes)


def _numbers(
    name: str, values: Sequence[float] | None, config: DataConfig
) -> Sequence[float] | None:
    if values is None:
        return None
    if len(values) != len(config.train):
        raise ConfigError(
            f"{name} has {len(values)} numbers, data.train has {len(config.train)} paths: "
            "give one number a path"
        )
    if name == "data.weights" and min(values) <= 0:
        raise ConfigError(f"data.weights = {values}: every weight must be above 0")
    if min(values) < 0:
        raise ConfigError(f"{name} = {values}: none may be below 0")
    return values


def _stage(text: str, config: DataConfig) -> tuple[float, tuple[float, ...]]:
    """Read one stage of a curriculum: `MB:WEIGHT,WEIGHT,...`."""
    after, colon, listed = text.partition(":")
    try:
        weights = tuple(float(weight) for weight in listed.split(","))
        start = float(after)
    except ValueError:
        colon = ""
        weights, start = (), 0.0
    if not colon or start < 0 or min(weights) < 0 or not sum(weights):
        raise ConfigError(
            f"data.curriculum has {text!r}: a stage is AFTER_MB:WEIGHT,WEIGHT,... with one weight "
            "a path of data.train, for example 500:0.9,0.1"
        )
    if len(weights) != len(config.train):
        raise ConfigError(
            f"data.curriculum has {text!r} with {len(weights)} weights, data.train has "
            f"{len(config.train)} paths: give one weight a path"
        )
    return start, weights


def _origins(config: DataConfig, patterns: Sequence[str]) -> list[list[Origin]]:
    """Return what each pattern stands for."""
    return [
        [_hub(pattern, config)]
        if pattern.startswith(PREFIX)
        else list(expand_paths([resolved(pattern, config.kind)]))
        for pattern in patterns
    ]


@functools.cache
def _pinned(data: HubData) -> HubData:
    """Ask once a process: training and validation read the same commit."""
    return data.pinned()


def _hub(name: str, config: DataConfig) -> HubData:
    """Return a hub data set at a fixed commit, if its licence is open or was accepted."""
    data = HubData.parse(name, retry_seconds=config.retry_seconds)
    licence = data.licence()
    entry = data.entry
    if entry.is_open if entry else is_open(licence):
        return _pinned(data)
    if licence.lower() not in {accepted.lower() for accepted in config.accept_licences}:
        about = " (its card was not read for this catalogue)" if entry and not entry.checked else ""
        raise ConfigError(
            f"{data}: its licence is {licence!r}{about}, which is off unless you ask for it. Read "
            f"its card, then add --data.accept-licences {licence!r}"
        )
    return _pinned(data)


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


def identity_of(origin: Origin) -> list[str | int]:
    """Return what must be the same for a position to mean the same rows: name and bytes."""
    if isinstance(origin, Path):
        return [origin.name, origin.stat().st_size]
    return [origin.identity, 0]
