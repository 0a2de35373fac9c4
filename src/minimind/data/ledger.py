"""The licence ledger: what text a data set was made of, under which licence."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from minimind.errors import DataError

FILE_NAME = "ledger.json"


@dataclass(frozen=True, kw_only=True)
class LedgerEntry:
    """What one source gave to one file.

    Attributes:
        file: relative to the ledger's folder.
        kind: `pretrain`, `sft`, `preference`, `problems` or `images`.
        documents: rows in the file from this source.
        bytes: UTF-8 bytes of their text.
        templated: sentences around the facts are ours, not the source's.
    """

    source: str
    package: str
    version: str
    sha256: str
    licence: str
    upstream: str
    file: str
    kind: Literal["pretrain", "sft", "preference", "problems", "images"]
    documents: int
    bytes: int
    hanzi: int
    templated: bool


def write_ledger(directory: Path, entries: Iterable[LedgerEntry]) -> Path:
    """Write `ledger.json` into `directory` and return its path."""
    path = directory / FILE_NAME
    rows = [asdict(entry) for entry in entries]
    path.write_text(json.dumps(rows, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    return path


def read_ledger(directory: Path) -> list[LedgerEntry]:
    """Read the ledger of a built data set.

    Raises:
        DataError: there is none, or it is not a ledger.
    """
    path = directory / FILE_NAME
    try:
        return [LedgerEntry(**row) for row in json.loads(path.read_text(encoding="utf-8"))]
    except FileNotFoundError:
        raise DataError(
            f"{path} is not there. `minimind data build --out {directory}` makes it"
        ) from None
    except (ValueError, TypeError) as error:
        raise DataError(f"{path} is not a ledger: {error}") from error
