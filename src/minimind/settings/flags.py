"""Flags over settings, `--optim.lr 1e-3`: their names are checked here, tyro does the rest."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import re
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from minimind.config import RunConfig
from minimind.errors import ConfigError, did_you_mean
from minimind.settings.fields import dataclass_of, dotted_names, require_keys, required

T = TypeVar("T")


def apply_flags(config: RunConfig, flags: list[str]) -> RunConfig:
    """Return the settings with the flags on top.

    Raises:
        ConfigError: no such flag, a value of another type, settings that contradict each other.
        SystemExit: the flags ask for `--help` (code 0).
    """
    import tyro

    config = _switch_on_tables(config, _check_flags(flags))
    shown = io.StringIO()
    try:
        with contextlib.redirect_stderr(shown):
            return tyro.cli(
                RunConfig,
                prog="minimind train PRESET",
                args=flags,
                default=config,
                config=(tyro.conf.AvoidSubcommands,),
            )
    except SystemExit as stop:
        if not stop.code:
            raise
        raise ConfigError(_without_box(shown.getvalue())) from stop


def _check_flags(flags: list[str]) -> set[str]:
    """Return the settings that the flags name, or raise for one that doesn't exist."""
    known = set(dotted_names(RunConfig))
    named = set()
    for flag in flags:
        if not flag.startswith("--") or flag == "--help":
            continue
        name = flag[2:].partition("=")[0].replace("-", "_")
        table, _, leaf = name.rpartition(".")
        setting = next(
            (s for s in (name, f"{table}.{leaf.removeprefix('no_')}".lstrip(".")) if s in known),
            None,
        )
        if setting is None:
            same_word = [k for k in sorted(known) if k.rpartition(".")[2] == leaf]
            near = f" Did you mean '--{same_word[0]}'?" if same_word else ""
            near = near or did_you_mean(flag.partition("=")[0], [f"--{k}" for k in sorted(known)])
            raise ConfigError(f"unknown flag {flag!r}.{near}")
        named.add(setting)
    return named


def _switch_on_tables(config: T, named: set[str], prefix: str = "") -> T:
    """Fill optional tables (`lora`, `model.rope_scaling`) that are off but that a flag sets.

    A flag of such a table switches it on with its defaults, which the flags then change.
    """
    changes = {}
    for field in dataclasses.fields(config):  # type: ignore[arg-type]
        nested = dataclass_of(get_type_hints(type(config))[field.name])
        dotted = f"{prefix}{field.name}."
        given = {name.removeprefix(dotted) for name in named if name.startswith(dotted)}
        if nested is None or not given:
            continue
        value = getattr(config, field.name)
        if value is None:
            require_keys(nested, dict.fromkeys(given), dotted)
            value = nested(**{name: _placeholder(nested, name) for name in required(nested)})
        changes[field.name] = _switch_on_tables(value, named, dotted)
    return dataclasses.replace(config, **changes) if changes else config  # type: ignore[type-var]


def _placeholder(cls: type, name: str) -> Any:
    """Return any valid value: the flag that names the field replaces it."""
    hint = get_type_hints(cls)[name]
    return get_args(hint)[0] if get_origin(hint) is Literal else hint(1)


def _without_box(text: str) -> str:
    """Take the frame and the help pages off tyro's message, which is then one line."""
    lines = [re.sub(r"[─│╭╮╰╯]", "", line).strip() for line in text.splitlines()]
    message = " ".join(line for line in lines[1:] if line)
    return re.split(r" Argument helptext| For full helptext", message)[0]
