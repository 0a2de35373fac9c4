"""What the fields of a settings dataclass are called, take, and are made of."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Iterator, Mapping
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from minimind.errors import ConfigError

T = TypeVar("T")


def fits(value: object, hint: Any) -> bool:
    """Tell whether a value of a TOML file is of a field's type; nothing is coerced."""
    origin, args = get_origin(hint), get_args(hint)
    if origin in (types.UnionType, Union):
        return any(fits(value, arg) for arg in args if arg is not types.NoneType)
    if origin is Literal:
        return value in args and type(value) in {type(arg) for arg in args}
    if origin is tuple:
        if not isinstance(value, list):
            return False
        if len(args) == 2 and args[1] is Ellipsis:
            return all(fits(item, args[0]) for item in value)
        return len(value) == len(args) and all(map(fits, value, args))
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(hint, type) and isinstance(value, hint)


def describe(hint: Any) -> str:
    """Say in words what a field takes."""
    if nested := dataclass_of(hint):
        return f"a table with {', '.join(field.name for field in dataclasses.fields(nested))}"
    hint = next(h for h in _members(hint) if h is not types.NoneType)
    origin, args = get_origin(hint), get_args(hint)
    if origin is Literal:
        return "one of " + ", ".join(f'"{arg}"' for arg in args)
    if origin is tuple:
        if args[-1] is Ellipsis:
            return f"a list, each {describe(args[0])}"
        return f"a list of {len(args)}, each {describe(args[0])}"
    words = {int: "a whole number", float: "a number (no quotes)", str: "a string in quotes"}
    return words.get(hint, "true or false")


def build(cls: type[T], table: Mapping[str, Any], prefix: str) -> T:
    """Make the dataclass of a checked table."""
    hints = get_type_hints(cls)
    values = {key: _convert(value, hints[key], f"{prefix}{key}") for key, value in table.items()}
    require_keys(cls, values, prefix)
    return cls(**values)


def _convert(value: Any, hint: Any, dotted: str) -> Any:
    nested = dataclass_of(hint)
    if nested is not None:
        return build(nested, value, f"{dotted}.")
    if isinstance(value, list):
        args = get_args(next(h for h in _members(hint) if get_origin(h) is tuple))
        each = [args[0]] * len(value) if args[-1] is Ellipsis else args
        return tuple(_convert(item, kind, dotted) for item, kind in zip(value, each, strict=True))
    is_float = float in _members(hint) and int not in _members(hint)
    return float(value) if is_float else value


def require_keys(cls: Any, given: Mapping[str, Any], prefix: str) -> None:
    """Raise a ConfigError that names the keys without a default that are not given."""
    missing = [name for name in required(cls) if name not in given]
    if missing:
        names = ", ".join(f"{prefix}{name}" for name in missing)
        raise ConfigError(f"[{prefix.rstrip('.')}] also needs {names}")


def required(cls: Any) -> list[str]:
    """Return the fields without a default."""
    return [
        field.name
        for field in dataclasses.fields(cls)
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    ]


def dotted_names(cls: type, prefix: str = "") -> Iterator[str]:
    """Yield every leaf setting, `optim.lr` for example."""
    for name, hint in get_type_hints(cls).items():
        nested = dataclass_of(hint)
        if nested is None:
            yield f"{prefix}{name}"
        else:
            yield from dotted_names(nested, f"{prefix}{name}.")


def dataclass_of(hint: Any) -> type | None:
    """Return the dataclass of a nested table's hint; None for a plain value."""
    return next((h for h in _members(hint) if dataclasses.is_dataclass(h)), None)  # type: ignore[return-value]


def _members(hint: Any) -> tuple[Any, ...]:
    """Return the alternatives of `X | None`, or the hint alone."""
    return get_args(hint) if get_origin(hint) in (types.UnionType, Union) else (hint,)
