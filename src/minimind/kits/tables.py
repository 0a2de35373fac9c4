"""Read a TOML file that is one list of tables (`[[rows]]`, `[[probes]]`); strict as presets."""

from __future__ import annotations

import dataclasses
import tomllib
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

from minimind.errors import ConfigError, did_you_mean

T = TypeVar("T")


def kit_file(name: str) -> Path:
    """Return the file that a kit names: one of the package (`medical/safety.toml`), else a path."""
    packaged = Path(__file__).parent / name
    return packaged if packaged.is_file() else Path(name)


def read_tables(path: Path, name: str, cls: type[T]) -> list[T]:
    """Return one `cls` a `[[name]]` table.

    Args:
        path: the file.
        name: of the list of tables; nothing else may stand in the file.
        cls: a frozen dataclass whose fields are strings, numbers, or tuples of strings.

    Raises:
        ConfigError: no such file, not TOML, an unknown or missing key, a value of another type.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path} can't be read: {error.strerror}") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from error
    tables = content.get(name)
    if set(content) != {name} or not isinstance(tables, list):
        raise ConfigError(f"{path}: only [[{name}]] tables belong here, found {sorted(content)}")
    return [_make(table, cls, f"{path}: [[{name}]] {at}") for at, table in enumerate(tables, 1)]


def _make(table: Any, cls: type[T], place: str) -> T:
    hints = get_type_hints(cls)
    if not isinstance(table, dict):
        raise ConfigError(f"{place} is no table")
    for key, value in table.items():
        if key not in hints:
            raise ConfigError(f"{place}: unknown key {key!r}.{did_you_mean(key, hints)}")
        texts = get_args(hints[key])[:1] == (str,)
        fits = _all_texts(value) if texts else type(value) is hints[key]
        if not fits:
            wanted = "a list of strings" if texts else f"a {hints[key].__name__}"
            raise ConfigError(f"{place}: {key} = {value!r}: expected {wanted}")
    fields = dataclasses.fields(cls)  # type: ignore[arg-type]
    missing = [f.name for f in fields if f.default is dataclasses.MISSING and f.name not in table]
    if missing:
        raise ConfigError(f"{place} also needs {', '.join(missing)}")
    return cls(**{key: tuple(v) if isinstance(v, list) else v for key, v in table.items()})


def _all_texts(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(v, str) for v in value)
