"""Stream rows from .jsonl, .jsonl.zst, .jsonl.gz and .txt files; a broken line never ends a run.

What can't be used is counted by reason and kept in a rejects file with its place, so that nothing
is lost silently.
"""

from __future__ import annotations

import gzip
import io
import json
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from glob import glob
from pathlib import Path
from typing import IO, Any

import zstandard

from minimind.data.formats import Kind, Row, RowError, parse_row
from minimind.errors import DataError

SUFFIXES = (".jsonl", ".jsonl.zst", ".jsonl.gz", ".json.zst", ".txt", ".txt.zst", ".txt.gz")
COMPRESSION = 3.5
"""Bytes of Chinese JSONL for one of zstd or gzip: 2.7 to 4.2 on the built corpus; for estimates."""

_CHUNK = 1 << 17
_TRUNCATED = (zstandard.ZstdError, EOFError, gzip.BadGzipFile, zlib.error)


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

    def add(self, file: Path, line: int, reason: str, raw: bytes) -> None:
        """Count one rejection and write it down, once a place."""
        if (str(file), line) in self.seen:
            return
        self._count(str(file), line, reason)
        if self.path is not None:
            row = {"file": str(file), "line": line, "reason": reason,
                   "raw": raw.decode(errors="replace").rstrip("\n")}  # fmt: skip
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


class _ZstdBytes(io.RawIOBase):
    """A zstd file's content as raw bytes; unlike zstandard's reader it notices a missing end."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        self._frame = zstandard.ZstdDecompressor().decompressobj()
        self._ready = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        view = memoryview(buffer).cast("B")
        while not self._ready:
            packed = self._frame.unused_data if self._frame.eof else b""
            if self._frame.eof and (packed := packed or self._file.read(_CHUNK)):
                self._frame = zstandard.ZstdDecompressor().decompressobj()
            elif not self._frame.eof and not (packed := self._file.read(_CHUNK)):
                raise zstandard.ZstdError("the file ends inside a zstd frame")
            if not packed:
                return 0
            self._ready = self._frame.decompress(packed)
        size = min(len(view), len(self._ready))
        view[:size], self._ready = self._ready[:size], self._ready[size:]
        return size

    def close(self) -> None:
        self._file.close()
        super().close()


def open_stream(path: Path) -> IO[bytes]:
    """Open a data file for reading bytes, decompressed by its suffix."""
    if path.suffix == ".zst":
        return io.BufferedReader(_ZstdBytes(path), _CHUNK)
    if path.suffix == ".gz":
        # Not wrapped in a larger buffer: that would lose what precedes a cut.
        return gzip.open(path, "rb")  # pyright: ignore[reportReturnType]
    return path.open("rb")


def text_bytes(path: Path) -> int:
    """Return the file's size in bytes, estimated where it is compressed."""
    size = path.stat().st_size
    return int(size * COMPRESSION) if path.suffix in {".zst", ".gz"} else size


@dataclass(slots=True)
class Cursor:
    """Where a line begins: byte offset in the (decompressed) file, and its number from 1."""

    offset: int = 0
    line: int = 1


def read_lines(path: Path, start: Cursor, rejects: Rejects) -> Iterator[tuple[Cursor, bytes]]:
    """Yield (where the line begins, the line) from `start` on; empty lines are passed over.

    A compressed file that ends too early gives what could be read, and one rejection.
    """
    at = Cursor(start.offset, start.line)
    try:
        with open_stream(path) as stream:
            _skip(stream, start.offset, seekable=path.suffix not in {".zst", ".gz"})
            while line := _readline(stream):
                if line.strip():
                    yield Cursor(at.offset, at.line), line
                at = Cursor(at.offset + len(line), at.line + 1)
    except _DamagedError as damage:
        rejects.add(path, at.line, f"compressed file is damaged or cut off here: {damage}", b"")
    except OSError as error:
        raise DataError(f"{path} can't be read: {error}") from error


class _DamagedError(Exception):
    """The compressed stream ends or breaks here."""


def _readline(stream: IO[bytes]) -> bytes:
    try:
        return stream.readline()
    except _TRUNCATED as error:
        raise _DamagedError(str(error)) from error


def _skip(stream: IO[bytes], offset: int, *, seekable: bool) -> None:
    if seekable:
        stream.seek(offset)
        return
    while offset > 0:
        try:
            read = len(stream.read(min(offset, 1 << 20)))
        except _TRUNCATED as error:
            raise _DamagedError(str(error)) from error
        if not read:
            return
        offset -= read


def read_rows(
    path: Path, kind: Kind, *, rejects: Rejects, start: Cursor | None = None
) -> Iterator[tuple[Cursor, int, Row]]:
    """Yield (where the line begins, its bytes, the row) of one file.

    In a .txt file each line is a document.
    """
    plain = ".txt" in path.suffixes
    for at, line in read_lines(path, start or Cursor(), rejects):
        try:
            text = line.decode("utf-8-sig" if at.offset == 0 else "utf-8")
            row = parse_row({"text": text.strip()} if plain else json.loads(text), kind)
        except UnicodeDecodeError as error:
            rejects.add(path, at.line, f"not UTF-8: byte {error.start} of the line", line)
        except RecursionError:
            rejects.add(path, at.line, "not JSON: nested too deep", line)
        except json.JSONDecodeError as error:
            rejects.add(path, at.line, f"not JSON: {error.msg} at column {error.colno}", line)
        except RowError as error:
            rejects.add(path, at.line, str(error), line)
        except ValueError as error:  # json: an integer of thousands of digits
            rejects.add(path, at.line, f"not JSON: {error}", line)
        else:
            yield at, len(line), row


def nothing_usable(files: Iterable[Path], kind: Kind, rejects: Rejects) -> DataError:
    """Return the error for a data set without a usable row, with the reason of the first."""
    names = ", ".join(map(str, files))
    if not rejects.total:
        return DataError(f"{names}: no row in it; the data set is empty")
    return DataError(
        f"{names}: no row of kind {kind!r} could be used. {rejects.summary()}. "
        "Check data.kind (text, chat or preference) and the rows' fields"
    )
