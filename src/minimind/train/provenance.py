"""RUN/ledger.json: the data files of a run, their checksums and licences, what it began from."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from minimind.checkpoint.files import sha256_of, write_atomically
from minimind.data.hub import HubData
from minimind.data.ledger import FILE_NAME
from minimind.data.reader import Origin
from minimind.errors import DataError


class RunLedger:
    """The ledger of one run; `record` writes it anew with what was used so far.

    Args:
        path: RUN/ledger.json.
        files: the data files and hub data sets that are read.
        origin: the checkpoint, teacher and tokenizer that the run started from.
    """

    def __init__(self, path: Path, *, files: Sequence[Origin], origin: Mapping[str, Any]) -> None:
        self.path = path
        self._files = [_describe(file) for file in files]
        self._origin = dict(origin)

    def check_unchanged(self) -> None:
        """Refuse to resume on other data than the run began with.

        Raises:
            DataError: names the first file that changed.
        """
        if not self.path.exists():
            return
        before = {
            entry["path"]: entry["sha256"]
            for entry in json.loads(self.path.read_text(encoding="utf-8"))["data"]
        }
        for entry in self._files:
            if before.get(entry["path"], entry["sha256"]) != entry["sha256"]:
                raise DataError(
                    f"{entry['path']} changed since the run began (its sha256 is another): the run "
                    "can't be continued exactly. Put the file back, or start another with --name"
                )

    def record(self, *, used: Mapping[str, int]) -> None:
        """Write the ledger.

        Args:
            used: documents and tokens read so far.
        """
        content = {"data": self._files, "from": self._origin, "used": dict(used)}
        write_atomically(self.path, json.dumps(content, ensure_ascii=False, indent=2) + "\n")


def _describe(file: Origin) -> dict[str, Any]:
    if isinstance(file, HubData):  # its commit stands for its content
        return {"path": str(file), "bytes": file.bytes, "sha256": file.identity,
                "licences": [file.licence()], "sources": []}  # fmt: skip
    sources = _ledger_entries(file)
    return {
        "path": str(file),
        "bytes": file.stat().st_size,
        "sha256": sha256_of(file),
        "licences": sorted({entry["licence"] for entry in sources}) or ["unknown"],
        "sources": sources,
    }


def _ledger_entries(file: Path) -> list[dict[str, str]]:
    """Return what the ledger beside a data file, or one folder up, says of it."""
    for folder in (file.parent, file.parent.parent):
        path = folder / FILE_NAME
        if not path.exists():
            continue
        try:
            rows = json.loads(path.read_text(encoding="utf-8"))
            wanted = file.relative_to(folder).as_posix()
            return [
                {name: row[name] for name in ("source", "licence", "upstream")}
                for row in rows
                if row["file"] == wanted
            ]
        except (ValueError, TypeError, KeyError) as error:
            raise DataError(f"{path} is not a ledger: {error!r}. Build the data again.") from error
    return []
