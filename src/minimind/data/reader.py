"""Stream rows of files (JSONL, text, Parquet, WARC) and hub data sets; a bad one never ends a run.

What can't be used is counted by reason and kept in a rejects file with its place, so that nothing
is lost silently.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from glob import glob
from pathlib import Path
from typing import Any

from minimind.data.formats import Kind, Row, RowError, parse_row
from minimind.data.hub import HubData
from minimind.data.lines import Cursor, open_stream, read_lines
from minimind.data.rejects import Rejects, nothing_usable
from minimind.data.tables import as_json, read_table, table_bytes
from minimind.data.web import read_pages
from minimind.errors import DataError

__all__ = [
    "COMPRESSION",
    "SUFFIXES",
    "Cursor",
    "Origin",
    "Rejects",
    "expand_paths",
    "nothing_usable",
    "open_stream",
    "read_lines",
    "read_records",
    "read_rows",
    "text_bytes",
]

TABLES, PAGES = (".parquet",), (".warc", ".warc.gz", ".wet", ".wet.gz")
SUFFIXES = (
    ".jsonl", ".jsonl.zst", ".jsonl.gz", ".json.zst", ".txt", ".txt.zst", ".txt.gz",
    *TABLES, *PAGES,
)  # fmt: skip
COMPRESSION = 3.5
"""Bytes of Chinese JSONL for one of zstd or gzip: 2.7 to 4.2 on the built corpus; for estimates."""

Origin = Path | HubData
"""What rows are read from."""


def expand_paths(patterns: Iterable[str]) -> list[Path]:
    """Return the files that paths, globs and directories stand for: sorted within each pattern.

    Raises:
        DataError: a path doesn't exist, a glob matches nothing, or a directory has no data file.
    """
    files: list[Path] = []
    for pattern in patterns:
        path = Path(pattern).expanduser()
        if path.is_dir():
            found = sorted(p for p in path.rglob("*") if p.name.endswith(SUFFIXES) and p.is_file())
            if not found:
                raise DataError(f"{path} has no data file in it ({', '.join(SUFFIXES)})")
        elif path.is_file():
            found = [path]
        else:
            found = [p for p in map(Path, _globbed(path)) if p.is_file()]
            if not found:
                raise DataError(_missing(path))
        files += [p for p in found if p not in files]
    if not files:
        raise DataError("no data file was named: set data.train, for example "
                        "--data.train corpus/pretrain")  # fmt: skip
    return files


def _globbed(pattern: Path) -> list[str]:
    # Path.glob refuses absolute patterns.
    return sorted(glob(str(pattern), recursive=True))  # noqa: PTH207


def _missing(path: Path) -> str:
    if any(sign in path.name for sign in "*?["):
        return f"the pattern {path} matches no file. It is relative to {Path.cwd()}"
    near = [p.name for p in path.parent.glob("*") if p.is_file()] if path.parent.is_dir() else []
    there = f" In {path.parent}: {', '.join(sorted(near)[:8])}." if near else ""
    return (
        f"data file {path} is not there.{there} `minimind data build --out DIR` makes data "
        "from the catalogue"
    )


def text_bytes(origin: Origin) -> int:
    """Return the bytes of an origin's rows, estimated where they are packed; 0 if unknown."""
    if isinstance(origin, HubData):
        return origin.bytes
    if origin.name.endswith(TABLES):
        return table_bytes(origin)
    size = origin.stat().st_size
    return int(size * COMPRESSION) if origin.suffix in {".zst", ".gz"} else size


def read_records(
    origin: Origin, start: Cursor, rejects: Rejects
) -> Iterator[tuple[Cursor, int, Any]]:
    """Yield (where the record begins, its bytes, the parsed record) from `start` on.

    A line of a .txt file is a record {"text"}; a page of a WARC file is one with "text", "url",
    "date" and "licence".
    """
    if isinstance(origin, HubData):
        yield from origin.read(start, rejects)
    elif origin.name.endswith(TABLES):
        yield from read_table(origin, start, rejects)
    elif origin.name.endswith(PAGES):
        yield from read_pages(origin, start, rejects)
    else:
        yield from _line_records(origin, start, rejects)


def _line_records(path: Path, start: Cursor, rejects: Rejects) -> Iterator[tuple[Cursor, int, Any]]:
    plain = ".txt" in path.suffixes
    for at, line in read_lines(path, start, rejects):
        try:
            text = line.decode("utf-8-sig" if at.offset == 0 else "utf-8")
            record = {"text": text.strip()} if plain else json.loads(text)
        except UnicodeDecodeError as error:
            rejects.add(path, at.line, f"not UTF-8: byte {error.start} of the line", line)
        except RecursionError:
            rejects.add(path, at.line, "not JSON: nested too deep", line)
        except json.JSONDecodeError as error:
            rejects.add(path, at.line, f"not JSON: {error.msg} at column {error.colno}", line)
        except ValueError as error:  # json: an integer of thousands of digits
            rejects.add(path, at.line, f"not JSON: {error}", line)
        else:
            yield at, len(line), record


def read_rows(
    path: Origin, kind: Kind, *, rejects: Rejects, start: Cursor | None = None
) -> Iterator[tuple[Cursor, int, Row]]:
    """Yield (where it begins, its bytes, the row) of one origin; what is no row is rejected."""
    for at, size, record in read_records(path, start or Cursor(), rejects):
        try:
            row = parse_row(record, kind)
        except RowError as error:
            rejects.add(path, at.line, str(error), as_json(record))
        else:
            yield at, size, row
