"""Where rows go that can't be used: counted by reason, kept with their place, never lost silently.

And what a stream has to say about a source that stalls.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from minimind.data.formats import Kind
from minimind.errors import DataError

RAW_BYTES = 1 << 16
"""So much of a rejected line is kept beside its reason; its place tells where the rest is."""


@dataclass(slots=True)
class Rejects:
    """Where unusable lines go: counted by reason, written to a file if one is named.

    Attributes:
        path: JSONL of {"file", "line", "reason", "raw"}; None only counts.
        counts: rejected lines by the reason's first words.
        first: the first rejection in full, for messages.
        seen: places already reported; a second pass over the data reports nothing again.
    """

    path: Path | None = None
    counts: Counter[str] = field(default_factory=Counter)
    first: str = ""
    seen: set[tuple[str, int]] = field(default_factory=set)

    def __post_init__(self) -> None:
        """Take over what an interrupted run has already written down."""
        if self.path is not None and self.path.is_file():
            whole = []
            for line in self.path.read_bytes().split(b"\n"):
                try:
                    row = json.loads(line)
                    self._count(row["file"], row["line"], row["reason"])
                except (ValueError, KeyError, TypeError):
                    continue  # empty, or cut in half by a kill
                whole.append(line + b"\n")
            self.path.write_bytes(b"".join(whole))

    @property
    def total(self) -> int:
        """Return the number of rejected lines."""
        return self.counts.total()

    def add(self, file: object, line: int, reason: str, raw: bytes) -> None:
        """Count one rejection and write it down, once a place.

        Args:
            file: the path or hub data set; its text is its name.
            line: number of the line, row or record, from 1.
            reason: in words for the data's author.
            raw: the line; kept up to `RAW_BYTES`.
        """
        if (str(file), line) in self.seen:
            return
        self._count(str(file), line, reason)
        if self.path is not None:
            row = {"file": str(file), "line": line, "reason": reason,
                   "raw": raw[:RAW_BYTES].decode(errors="replace").rstrip("\n")}  # fmt: skip
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as sink:
                sink.write(json.dumps(row, ensure_ascii=False) + "\n")

    def _count(self, file: str, line: int, reason: str) -> None:
        self.seen.add((file, line))
        kind = re.sub(r"\[\d+\]", "[..]", reason)
        self.counts[re.split(r"[:(.] |[:(]", kind)[0].strip()] += 1
        self.first = self.first or f"{file}:{line}: {reason}"

    def summary(self) -> str:
        """Return one line for people: how many, why, and where they are kept."""
        if not self.total:
            return "every row could be used"
        reasons = "; ".join(f"{count} x {reason}" for reason, count in self.counts.most_common(3))
        kept = f"; all are in {self.path}" if self.path else ""
        return f"{self.total} rows could not be used ({reasons}). First: {self.first}{kept}"


def nothing_usable(files: Iterable[object], kind: Kind, rejects: Rejects) -> DataError:
    """Return the error for a data set without a usable row, with the reason of the first."""
    names = ", ".join(map(str, files))
    if not rejects.total:
        return DataError(f"{names}: no row in it; the data set is empty")
    return DataError(
        f"{names}: no row of kind {kind!r} could be used. {rejects.summary()}. "
        "Check data.kind (text, chat, preference or image) and the rows' fields"
    )
