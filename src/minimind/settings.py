"""The strict reader: TOML presets laid over each other, flags on top, out comes a `RunConfig`.

Nothing is coerced and nothing is ignored: a key that `minimind.config` doesn't know, or a value of
another type than its field's, is a `ConfigError` that names the file, the line, the key, the value
and the nearest right name.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import re
import tomllib
import types
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from minimind.config import ModelConfig, RunConfig
from minimind.errors import ConfigError, did_you_mean

PRESETS = Path(__file__).parent / "presets"

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
        config = _build(RunConfig, merged, "")
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error
    return _apply_flags(config, list(flags)) if flags else config


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
        return _build(cls, layer.table, "")
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def dump_run_config(config: Any) -> str:
    """Return TOML that `load_run_config` (or `read_config`) reads back to an equal configuration.

    A field that is None is left out: None is the default of every field that allows it.
    """
    return "\n".join(_dump_table(config, "")).strip() + "\n"


# ---------------------------------------------------------------- reading


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
        nested = _dataclass_of(hints[key])
        if nested is not None and isinstance(value, dict):
            _check_table(nested, value, layer, f"{dotted}.")
        elif not _fits(value, hints[key]):
            raise layer.error(
                dotted, f"{dotted} = {_show(value)}: expected {_describe(hints[key])}"
            )


def _suggest(key: str, prefix: str, hints: Mapping[str, Any], root: type) -> str:
    """Offer the same word in another table, else the nearest one in this table or anywhere."""
    everywhere = list(_dotted_names(root))
    if same := [name for name in everywhere if name.rpartition(".")[2] == key]:
        return f" Did you mean {same[0]!r}?"
    near = did_you_mean(f"{prefix}{key}", [f"{prefix}{name}" for name in hints])
    if near := near or did_you_mean(f"{prefix}{key}", everywhere):
        return near
    table = f"[{prefix.rstrip('.')}]" if prefix else "the top level"
    return f" Keys of {table}: {', '.join(hints)}"


def _fits(value: object, hint: Any) -> bool:
    origin, args = get_origin(hint), get_args(hint)
    if origin in (types.UnionType, Union):
        return any(_fits(value, arg) for arg in args if arg is not types.NoneType)
    if origin is Literal:
        return value in args and type(value) in {type(arg) for arg in args}
    if origin is tuple:
        if not isinstance(value, list):
            return False
        if len(args) == 2 and args[1] is Ellipsis:
            return all(_fits(item, args[0]) for item in value)
        return len(value) == len(args) and all(map(_fits, value, args))
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(hint, type) and isinstance(value, hint)


def _build(cls: type[T], table: Mapping[str, Any], prefix: str) -> T:
    """Make the dataclass of a checked table."""
    hints = get_type_hints(cls)
    values = {key: _convert(value, hints[key], f"{prefix}{key}") for key, value in table.items()}
    _require_keys(cls, values, prefix)
    return cls(**values)


def _require_keys(cls: Any, given: Mapping[str, Any], prefix: str) -> None:
    missing = [name for name in _required(cls) if name not in given]
    if missing:
        names = ", ".join(f"{prefix}{name}" for name in missing)
        raise ConfigError(f"[{prefix.rstrip('.')}] also needs {names}")


def _required(cls: Any) -> list[str]:
    return [
        field.name
        for field in dataclasses.fields(cls)
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    ]


def _convert(value: Any, hint: Any, dotted: str) -> Any:
    nested = _dataclass_of(hint)
    if nested is not None:
        return _build(nested, value, f"{dotted}.")
    if isinstance(value, list):
        args = get_args(next(h for h in _members(hint) if get_origin(h) is tuple))
        each = [args[0]] * len(value) if args[-1] is Ellipsis else args
        return tuple(_convert(item, kind, dotted) for item, kind in zip(value, each, strict=True))
    is_float = float in _members(hint) and int not in _members(hint)
    return float(value) if is_float else value


def _members(hint: Any) -> tuple[Any, ...]:
    """Return the alternatives of `X | None`, or the hint alone."""
    return get_args(hint) if get_origin(hint) in (types.UnionType, Union) else (hint,)


def _dataclass_of(hint: Any) -> type | None:
    return next((h for h in _members(hint) if dataclasses.is_dataclass(h)), None)  # type: ignore[return-value]


def _describe(hint: Any) -> str:
    """Say in words what a field takes."""
    if nested := _dataclass_of(hint):
        return f"a table with {', '.join(field.name for field in dataclasses.fields(nested))}"
    hint = next(h for h in _members(hint) if h is not types.NoneType)
    origin, args = get_origin(hint), get_args(hint)
    if origin is Literal:
        return "one of " + ", ".join(f'"{arg}"' for arg in args)
    if origin is tuple:
        if args[-1] is Ellipsis:
            return f"a list, each {_describe(args[0])}"
        return f"a list of {len(args)}, each {_describe(args[0])}"
    words = {int: "a whole number", float: "a number (no quotes)", str: "a string in quotes"}
    return words.get(hint, "true or false")


def _show(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)


def _dotted_names(cls: type, prefix: str = "") -> Iterator[str]:
    """Yield every leaf setting, `optim.lr` for example."""
    for name, hint in get_type_hints(cls).items():
        nested = _dataclass_of(hint)
        if nested is None:
            yield f"{prefix}{name}"
        else:
            yield from _dotted_names(nested, f"{prefix}{name}.")


# ---------------------------------------------------------------- flags


def _apply_flags(config: RunConfig, flags: list[str]) -> RunConfig:
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
    known = set(_dotted_names(RunConfig))
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
        nested = _dataclass_of(get_type_hints(type(config))[field.name])
        dotted = f"{prefix}{field.name}."
        given = {name.removeprefix(dotted) for name in named if name.startswith(dotted)}
        if nested is None or not given:
            continue
        value = getattr(config, field.name)
        if value is None:
            _require_keys(nested, dict.fromkeys(given), dotted)
            value = nested(**{name: _placeholder(nested, name) for name in _required(nested)})
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


# ---------------------------------------------------------------- writing


def _dump_table(value: Any, path: str) -> Iterator[str]:
    """Yield the lines of one table: its own keys first, then the tables in it, as TOML wants."""
    if path:
        yield from ("", f"[{path}]")
    tables = []
    for field in dataclasses.fields(value):
        item = getattr(value, field.name)
        if dataclasses.is_dataclass(item):
            tables.append((field.name, item))
        elif item is not None:
            yield f"{field.name} = {_dump_value(item)}"
    for name, item in tables:
        yield from _dump_table(item, f"{path}.{name}" if path else name)


def _dump_value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        # A JSON string is a TOML basic string, but for DEL, which TOML wants escaped.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007F")
    if isinstance(value, tuple):
        return f"[{', '.join(map(_dump_value, value))}]"
    return repr(value)
