"""Settings back to TOML, which reads back to equal ones."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from typing import Any


def dump_run_config(config: Any) -> str:
    """Return TOML that `load_run_config` (or `read_config`) reads back to an equal configuration.

    A field that is None is left out: None is the default of every field that allows it.
    """
    return "\n".join(_dump_table(config, "")).strip() + "\n"


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
