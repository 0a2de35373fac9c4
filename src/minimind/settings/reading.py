"""TOML presets laid over each other, flags on top: out comes a `RunConfig`."""

from __future__ import annotations

import dataclasses
import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from minimind.config import ModelConfig, RunConfig
from minimind.errors import ConfigError, did_you_mean
from minimind.settings.fields import build, dataclass_of, describe, dotted_names, fits
from minimind.settings.flags import apply_flags

PRESETS = Path(__file__).parents[1] / "presets"

Table = dict[str, Any]
T = TypeVar("T")


def preset_names() -> dict[str, str]:
    """Return each packaged preset with the first line of its first comment: what it is for."""
    return {
        path.stem: path.read_text(encoding="utf-8").partition("\n")[0].removeprefix("#").strip()
        for path in sorted(PRESETS.glob("*.toml"))
    }


def load_run_config(layers: Sequence[str], flags: Sequence[str] | None = None) -> RunConfig:
    """Read a run's settings.

    Model shapes of the package (`nano`, `64m` ...) are laid first and stages over them, whatever
    the order they are named in: a stage's learning rate must win over that of its shape. Files come
    next in the order given, and flags win over everything.

    Args:
        layers: preset names, or paths of TOML files.
        flags: command-line flags such as `["--optim.lr", "1e-3", "--data.train", "a.jsonl"]`.

    Raises:
        ConfigError: unknown preset or key, wrong type, settings that contradict each other.
        SystemExit: the flags ask for `--help` (code 0).
    """
    tables = [_read_layer(layer) for layer in layers]
    tables.sort(key=lambda layer: layer.rank)
    merged: Table = {}
    for layer in tables:
        _check_table(RunConfig, layer.table, layer)
        merged = _merge(merged, layer.table)
    where = ", ".join(str(layer.path) for layer in tables) or "the defaults"
    try:
        config = build(RunConfig, merged, "")
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error
    return apply_flags(config, list(flags)) if flags else config


def load_model_config(preset: str) -> ModelConfig:
    """Return the model shape of a preset name or TOML file."""
    return load_run_config([preset]).model


def read_config(cls: type[T], path: Path) -> T:
    """Read a TOML file of another kind of settings with the same strictness.

    Args:
        cls: a frozen dataclass; nested tables are dataclasses too.
        path: the file; what it leaves out keeps the dataclass's default.

    Raises:
        ConfigError: no such file, not TOML, unknown key, wrong type, a value that can't be.
    """
    layer = dataclasses.replace(_read_file(path), root=cls)
    _check_table(cls, layer.table, layer)
    try:
        return build(cls, layer.table, "")
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


@dataclasses.dataclass(frozen=True)
class _Layer:
    """One parsed TOML file and its text, which finds the line of a wrong key."""

    path: Path
    text: str
    table: Table
    rank: int
    """0 a packaged model shape, 1 a packaged stage, 2 a user's file."""
    root: type = RunConfig

    def error(self, key: str, message: str) -> ConfigError:
        line = _line_of(self.text, key)
        place = f"{self.path}:{line}" if line else str(self.path)
        return ConfigError(f"{place}: {message}")


def _read_layer(name: str) -> _Layer:
    packaged = PRESETS / f"{name}.toml"
    is_preset = re.fullmatch(r"[\w-]+", name) is not None and packaged.is_file()
    path = packaged if is_preset else Path(name)
    if not is_preset and not path.exists():
        known = preset_names()
        raise ConfigError(
            f"there is no preset and no file {name!r}.{did_you_mean(name, known)} "
            f"Presets: {', '.join(known)}"
        )
    layer = _read_file(path)
    rank = 2 if not is_preset else 0 if "model" in layer.table else 1
    return dataclasses.replace(layer, rank=rank)


def _read_file(path: Path) -> _Layer:
    try:
        text = path.read_text(encoding="utf-8")
        table = tomllib.loads(text)
    except OSError as error:
        raise ConfigError(f"{path} can't be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text: {error}. Save it as UTF-8.") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from error
    return _Layer(path=path, text=text, table=table, rank=2)


def _line_of(text: str, key: str) -> int | None:
    """Return the line of dotted `key` in TOML text: its own line, or its table's header."""
    current = ""
    for number, line in enumerate(text.splitlines(), start=1):
        if header := re.match(r"\s*\[([^\[\]]+)\]\s*(#.*)?$", line):
            current = header[1].replace(" ", "")
            found = current
        else:
            written = line.partition("=")[0].strip().replace('"', "")
            found = f"{current}.{written}" if current else written
        if found == key:
            return number
    return None


def _merge(under: Table, over: Table) -> Table:
    """Lay `over` on `under`, key by key; tables are merged, everything else is replaced."""
    merged = dict(under)
    for key, value in over.items():
        old = merged.get(key)
        if isinstance(old, dict) and isinstance(value, dict):
            value = _merge(old, value)
        merged[key] = value
    return merged


def _check_table(cls: type, table: Mapping[str, Any], layer: _Layer, prefix: str = "") -> None:
    hints = get_type_hints(cls)
    for key, value in table.items():
        dotted = f"{prefix}{key}"
        if key not in hints:
            raise layer.error(
                dotted,
                f"unknown key {dotted!r} = {value!r}.{_suggest(key, prefix, hints, layer.root)}",
            )
        nested = dataclass_of(hints[key])
        if nested is not None and isinstance(value, dict):
            _check_table(nested, value, layer, f"{dotted}.")
        elif not fits(value, hints[key]):
            raise layer.error(dotted, f"{dotted} = {_show(value)}: expected {describe(hints[key])}")


def _suggest(key: str, prefix: str, hints: Mapping[str, Any], root: type) -> str:
    """Offer the same word in another table, else the nearest one in this table or anywhere."""
    everywhere = list(dotted_names(root))
    if same := [name for name in everywhere if name.rpartition(".")[2] == key]:
        return f" Did you mean {same[0]!r}?"
    near = did_you_mean(f"{prefix}{key}", [f"{prefix}{name}" for name in hints])
    if near := near or did_you_mean(f"{prefix}{key}", everywhere):
        return near
    table = f"[{prefix.rstrip('.')}]" if prefix else "the top level"
    return f" Keys of {table}: {', '.join(hints)}"


def _show(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)
