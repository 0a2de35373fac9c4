"""Lines of plain, gzip and zstd files, from any place on; damage and size never end a run."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import zstandard

from minimind.data.rejects import Rejects
from minimind.errors import DataError

LINE_BYTES = 64 << 20
"""A longer line of JSON is rejected: parsed, it would take several times that in memory."""

PIECE_BYTES = 1 << 20
"""A longer line of a .txt file is read as several documents: a book without a line break is one
line, and nothing of it need be lost."""

_CHUNK = 1 << 17
_TRUNCATED = (zstandard.ZstdError, EOFError, gzip.BadGzipFile, zlib.error)


@dataclass(slots=True)
class Cursor:
    """Where a row begins.

    Attributes:
        offset: bytes into the (decompressed) file; for a table or a hub data set, rows; for WARC,
            bytes into the file as it is.
        line: its number from 1.
        token: what a hub data set needs beside the offset to go there without reading up to it.
    """

    offset: int = 0
    line: int = 1
    token: dict[str, Any] | None = None


class _ZstdBytes(io.RawIOBase):
    """A zstd file's content as raw bytes; unlike zstandard's reader it notices a missing end."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        self._frame = zstandard.ZstdDecompressor().decompressobj()
        self._ready, self._at = b"", 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        view = memoryview(buffer).cast("B")
        while self._at == len(self._ready):
            packed = self._frame.unused_data if self._frame.eof else b""
            if self._frame.eof and (packed := packed or self._file.read(_CHUNK)):
                self._frame = zstandard.ZstdDecompressor().decompressobj()
            elif not self._frame.eof and not (packed := self._file.read(_CHUNK)):
                raise zstandard.ZstdError("the file ends inside a zstd frame")
            if not packed:
                return 0
            self._ready, self._at = self._frame.decompress(packed), 0
        size = min(len(view), len(self._ready) - self._at)
        view[:size] = memoryview(self._ready)[self._at : self._at + size]
        self._at += size
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


def read_lines(path: Path, start: Cursor, rejects: Rejects) -> Iterator[tuple[Cursor, bytes]]:
    """Yield (where the line begins, the line) from `start` on; empty lines are passed over.

    A compressed file that ends too early gives what could be read, and one rejection. A line of
    JSON above `LINE_BYTES` is one rejection; of a .txt file it comes in pieces of whole characters.
    """
    at = Cursor(start.offset, start.line)
    try:
        with open_stream(path) as stream:
            _skip(stream, start.offset, seekable=path.suffix not in {".zst", ".gz"})
            parts = _pieces(stream) if ".txt" in path.suffixes else _whole_lines(stream)
            for line, size in parts:
                if size > len(line):
                    reason = f"the line is too long: {size / 1e6:.0f} MB, above {LINE_BYTES >> 20}"
                    rejects.add(path, at.line, reason, line)
                elif line.strip():
                    yield Cursor(at.offset, at.line), line
                # A piece that ends inside its line is followed by the rest of the same line.
                ended = size > len(line) or line.endswith(b"\n")
                at = Cursor(at.offset + size, at.line + ended)
    except _DamagedError as damage:
        rejects.add(path, at.line, f"compressed file is damaged or cut off here: {damage}", b"")
    except OSError as error:
        raise DataError(f"{path} can't be read: {error}") from error


class _DamagedError(Exception):
    """The compressed stream ends or breaks here."""


def _whole_lines(stream: IO[bytes]) -> Iterator[tuple[bytes, int]]:
    """Yield (line, its bytes); of a line that is too long only the beginning."""
    while line := _readline(stream, LINE_BYTES):
        size = len(line)
        if size == LINE_BYTES and not line.endswith(b"\n"):
            line = line[:1024]
            while rest := _readline(stream, 1 << 20):
                size += len(rest)
                if rest.endswith(b"\n"):
                    break
        yield line, size


def _pieces(stream: IO[bytes]) -> Iterator[tuple[bytes, int]]:
    """Yield lines, long ones in pieces that end with a whole UTF-8 character."""
    rest = b""
    while piece := rest + _readline(stream, PIECE_BYTES - len(rest)):
        rest = b""
        if len(piece) == PIECE_BYTES and not piece.endswith(b"\n"):
            cut = len(piece)
            # At most three bytes continue a character; more is not UTF-8 and is told later.
            while cut > len(piece) - 4 and piece[cut - 1] & 0xC0 == 0x80:
                cut -= 1
            if piece[cut - 1] >= 0xC0:
                piece, rest = piece[: cut - 1], piece[cut - 1 :]
        yield piece, len(piece)


def _readline(stream: IO[bytes], limit: int) -> bytes:
    try:
        return stream.readline(limit)
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
