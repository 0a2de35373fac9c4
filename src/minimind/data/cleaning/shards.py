"""Units of work, and the files that they read and write: each is whole or isn't there."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import zstandard

from minimind.data.cleaning.config import Input
from minimind.data.document import Document
from minimind.data.formats import RowError, TextRow, parse_row
from minimind.data.lines import Cursor
from minimind.data.reader import Rejects, expand_paths, read_records
from minimind.data.tables import as_json
from minimind.errors import DataError, did_you_mean

_KEPT_META = ("source", "licence", "license", "rights", "url", "url_path", "date", "title")
_LEVEL = 3


@dataclass(frozen=True)
class Shard:
    """One unit of work: a file, or a piece of one.

    Attributes:
        number: its place in the order; documents that come earlier win over their duplicates.
        name: of the files that it becomes.
        start: where its first line begins; `stop` is the byte after its last, None for the end.
        licence: what `input.licences` says of rows that name none.
    """

    number: int
    name: str
    path: str
    licence: str
    offset: int = 0
    line: int = 1
    stop: int | None = None


def plan(config: Input) -> list[Shard]:
    """Return the units of work in order; large uncompressed JSONL files are cut at line ends.

    Raises:
        DataError: no path was named, or one isn't there.
    """
    if not config.paths:
        raise DataError("nothing to clean: name files, input.paths = [...] or --input FILES")
    shards: list[Shard] = []
    licences = config.licences or ("",) * len(config.paths)
    seen: set[Path] = set()
    for pattern, licence in zip(config.paths, licences, strict=True):
        for path in expand_paths([pattern]):
            if path in seen:
                continue
            seen.add(path)
            for start, stop in _cuts(path, config.shard_mb << 20):
                number = len(shards)
                name = f"{number:05d}-{path.name.split('.')[0]}"
                shards.append(
                    Shard(number, name, str(path), licence, start.offset, start.line, stop)
                )
    return shards


def _cuts(path: Path, size: int) -> Iterator[tuple[Cursor, int | None]]:
    """Yield (start, stop) of pieces of about `size` bytes."""
    total = path.stat().st_size
    start = Cursor()
    if path.suffix in {".jsonl", ".txt"} and total > 1.5 * size:
        with path.open("rb") as file:
            while total - start.offset > 1.5 * size:
                lines, read = 0, 0
                while read < size and (block := file.read(min(1 << 20, size - read))):
                    lines, read = lines + block.count(b"\n"), read + len(block)
                rest = file.readline()
                stop = start.offset + read + len(rest)
                if not rest or stop >= total:
                    break
                yield start, stop
                start = Cursor(stop, start.line + lines + 1)
    yield start, None


@dataclass(slots=True)
class _Rescuing(Rejects):
    """Lines that aren't UTF-8 but read as Chinese in GB 18030 or Big5 are rows after all."""

    rescued: list[tuple[int, Any]] = field(default_factory=list)
    codecs: dict[str, int] = field(default_factory=dict)

    def add(self, file: object, line: int, reason: str, raw: bytes) -> None:
        """Queue the line as a record if another decoder reads it, else reject it."""
        if reason.startswith("not UTF-8"):
            plain = ".txt" in Path(str(file)).suffixes
            for codec in ("gb18030", "big5"):
                if (record := _decoded(raw, codec, plain=plain)) is not None:
                    self.rescued.append((line, record))
                    self.codecs[codec] = self.codecs.get(codec, 0) + 1
                    return
        # Called by name: a dataclass with slots is not the class that `super()` was written in.
        Rejects.add(self, file, line, reason, raw)


def _decoded(raw: bytes, codec: str, *, plain: bool) -> Any:
    from minimind.data.cleaning.repair import plausible

    try:
        text = raw.decode(codec)
        record = {"text": text.strip()} if plain else json.loads(text)
    except ValueError:
        return None
    return record if plausible(text) >= 0.8 else None


@dataclass(slots=True)
class Reading:
    """The documents of a shard, and what became of the rest of its bytes."""

    shard: Shard
    text: str | None
    rejects_path: Path
    rejects: _Rescuing = field(init=False)
    documents: int = 0
    bytes: int = 0

    def __post_init__(self) -> None:
        self.rejects_path.unlink(missing_ok=True)
        self.rejects = _Rescuing(self.rejects_path)

    def __iter__(self) -> Iterator[Document]:
        """Yield the documents, in the order of the file."""
        path, stop = Path(self.shard.path), self.shard.stop
        start, last, piece = Cursor(self.shard.offset, self.shard.line), 0, 0
        for at, size, record in read_records(path, start, self.rejects):
            yield from self._rescued(path)
            if stop is not None and at.offset >= stop:
                return
            self.bytes += size
            # A long line of a .txt file comes in pieces: each is a document with a name.
            last, piece = at.line, piece + 1 if at.line == last else 0
            yield from self._document(path, at.line, record, piece)
        yield from self._rescued(path)

    def _rescued(self, path: Path) -> Iterator[Document]:
        while self.rejects.rescued:
            yield from self._document(path, *self.rejects.rescued.pop(0))

    def _document(self, path: Path, line: int, record: Any, piece: int = 0) -> Iterator[Document]:
        try:
            text = _text(record, self.text)
        except RowError as error:
            self.rejects.add(path, line, str(error), as_json(record))
            return
        self.documents += 1
        meta = {key: value for key in _KEPT_META if isinstance(value := record.get(key), str)}
        meta.setdefault("source", path.name.split(".")[0])
        if self.shard.licence and not any(meta.get(k) for k in ("licence", "license", "rights")):
            meta["licence"] = self.shard.licence
        name = record.get("id")
        place = f"{path.name}:{line}.{piece}" if piece else f"{path.name}:{line}"
        yield Document(text, str(name) if name else place, meta)


def _text(record: Any, name: str | None) -> str:
    """Return the row's text, from the named field or from those that rows usually have."""
    if name is None or not isinstance(record, dict):
        row = parse_row(record, "text")
        return row.text if isinstance(row, TextRow) else ""
    value = record.get(name)
    if not isinstance(value, str):
        fields = ", ".join(map(repr, list(record)[:8]))
        raise RowError(
            f"no text in the field {name!r} (input.text).{did_you_mean(name, record)} "
            f"Its fields: {fields}"
        )
    if not value.strip():
        raise RowError(f"nothing to learn: {name!r} is empty")
    return value


@contextmanager
def writing(path: Path) -> Iterator[Path]:
    """Give a temporary name to write to; it gets its own name when all went well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise DataError(f"{path} can't be written: {error}") from error
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def jsonl_writer(path: Path) -> Iterator[io.TextIOBase]:
    """Open a .jsonl.zst for writing text; it appears under its name when it is whole."""
    with writing(path) as temporary, temporary.open("wb") as raw:
        packed = zstandard.ZstdCompressor(level=_LEVEL).stream_writer(raw, closefd=False)
        # Half a surrogate pair is written as JSON's escape of it.
        text = io.TextIOWrapper(packed, encoding="utf-8", errors="backslashreplace", newline="\n")
        yield text
        text.close()


def write_row(file: io.TextIOBase, row: dict[str, Any]) -> None:
    """Write one row."""
    file.write(json.dumps(row, ensure_ascii=False) + "\n")


def read_shard(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a .jsonl.zst that this package wrote."""
    with path.open("rb") as raw, zstandard.ZstdDecompressor().stream_reader(raw) as packed:
        for line in io.TextIOWrapper(packed, encoding="utf-8"):
            yield json.loads(line)


def write_json(path: Path, value: Any) -> None:
    """Write JSON under a temporary name first."""
    with writing(path) as temporary:
        temporary.write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n", "utf-8")


def row_of(document: Document, extra: Iterable[tuple[str, Any]] = ()) -> dict[str, Any]:
    """Return the output row of a document."""
    return {"text": document.text, "id": document.id, **document.meta, **dict(extra)}


def document_of(row: dict[str, Any]) -> Document:
    """Return the document of an output row."""
    meta = {key: value for key, value in row.items() if key not in {"text", "id"}}
    return Document(row["text"], row["id"], meta)
