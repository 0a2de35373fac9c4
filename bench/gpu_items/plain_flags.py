"""Flags without tyro, for a machine that lacks it: only what `minimind.quickstart` gives."""

from __future__ import annotations

import dataclasses
import json
import types
from typing import Any, Union, get_args, get_origin, get_type_hints

from minimind.config import RunConfig
from minimind.errors import ConfigError


def apply_flags(config: RunConfig, flags: list[str]) -> RunConfig:
    """Return `config` with `--table.name VALUE ...` and `--table.no-name` set.

    Raises:
        ConfigError: there is no such setting.
    """
    words = list(flags)
    while words:
        flag = words.pop(0)
        values: list[str] = []
        while words and not words[0].startswith("--"):
            values.append(words.pop(0))
        path = flag.removeprefix("--").replace("-", "_").split(".")
        config = _set(config, path, values, flag)
    return config


def _set(settings: Any, path: list[str], values: list[str], flag: str) -> Any:
    name, *rest = path
    hints = get_type_hints(type(settings))
    if not values and name.startswith("no_"):
        name, values = name.removeprefix("no_"), ["false"]
    if name not in hints:
        raise ConfigError(f"unknown flag {flag!r}")
    if rest:
        value = _set(getattr(settings, name), rest, values, flag)
    else:
        value = _parse(hints[name], values or ["true"])
    return dataclasses.replace(settings, **{name: value})


def _parse(hint: Any, values: list[str]) -> Any:
    if get_origin(hint) in (types.UnionType, Union):
        hint = next(one for one in get_args(hint) if one is not types.NoneType)
    if get_origin(hint) is tuple:
        return tuple(_parse(get_args(hint)[0], [value]) for value in values)
    (value,) = values
    if hint in (int, float, bool):
        return hint(json.loads(value.replace("_", "")))
    return value  # a string, or one of some
