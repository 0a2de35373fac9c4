"""Rows of Parquet files, a batch at a time; a damaged row group costs that group, not the run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from minimind.data.lines import Cursor
from minimind.data.rejects import Rejects
from minimind.errors import require

BATCH_ROWS = 1_024


def read_table(path: Path, start: Cursor, rejects: Rejects) -> Iterator[tuple[Cursor, int, Any]]:
    """Yield (place, bytes of the row as JSON, the row) from row `start.offset` on.

    Raises:
        MissingExtraError: pyarrow is not installed.
    """
    pyarrow = require("pyarrow", extra="stream")
    parquet = require("pyarrow.parquet", extra="stream")
    damage = (pyarrow.ArrowException, OSError)
    try:
        file = parquet.ParquetFile(path)
    except damage as error:
        rejects.add(path, 1, f"Parquet file is damaged or cut off: {_line(error)}", b"")
        return
    with file:
        row = 0
        for group in range(file.num_row_groups):
            end = row + file.metadata.row_group(group).num_rows
            try:
                for batch in file.iter_batches(BATCH_ROWS, row_groups=[group]):
                    if row + batch.num_rows <= start.offset:
                        row += batch.num_rows
                        continue
                    for value in batch.to_pylist():
                        if row >= start.offset:
                            yield Cursor(row, row + 1), row_bytes(value), value
                        row += 1
            except damage as error:
                rejects.add(path, row + 1, f"Parquet row group is damaged: {_line(error)}", b"")
            row = end


def table_bytes(path: Path) -> int:
    """Return about how many bytes of text a Parquet file holds: its columns, decompressed."""
    pyarrow = require("pyarrow", extra="stream")
    parquet = require("pyarrow.parquet", extra="stream")
    try:
        metadata = parquet.read_metadata(path)
    except (pyarrow.ArrowException, OSError):
        return path.stat().st_size
    return sum(metadata.row_group(i).total_byte_size for i in range(metadata.num_row_groups))


def row_bytes(value: Any) -> int:
    """Return the bytes of a row written as JSON: what it counts for in mixtures and windows."""
    return len(as_json(value)) + 1


def as_json(value: Any) -> bytes:
    """Return a row as JSON; what JSON has no type for (dates, bytes) as its text."""
    return json.dumps(value, ensure_ascii=False, default=str).encode(errors="replace")


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
