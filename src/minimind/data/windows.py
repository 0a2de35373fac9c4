"""One source, a file or a hub data set, shuffled in windows.

A window of so many MB is read, permuted by (seed, name, epoch, window) and emitted. So the position
is a few numbers, and a corpus of any size is shuffled with bounded memory.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

from minimind.data.cache import Noted, ReadShard, ShardWriter, TokenCache, WindowFacts
from minimind.data.document import is_held_out
from minimind.data.formats import Kind, Row
from minimind.data.items import Item
from minimind.data.reader import Cursor, Origin, read_rows
from minimind.data.rejects import Rejects

Split = Literal["train", "validation", "all"]
NOTED_BYTES = 1_000


@dataclass(frozen=True, slots=True)
class Selection:
    """Which rows of a file count: a kind, a side of the held-out split.

    Attributes:
        share: the held-out share; 0 holds nothing out.
    """

    kind: Kind
    split: Split
    share: float

    def wants(self, row: Row) -> bool:
        """Tell whether the row is on this side."""
        if self.split == "all":
            return True
        return is_held_out(row.held_out_key, self.share) == (self.split == "validation")


@dataclass(slots=True)
class Drawn:
    """A row with where it stood; `size` is the bytes of its line.

    Attributes:
        row: None if the cache had its `item`.
        number: its place in its window, in the order of the file.
        shard: collects the window's items for the cache.
    """

    row: Row | None
    file: Origin
    line: int
    size: int
    item: Item | None = None
    number: int = 0
    shard: ShardWriter | None = None


@dataclass(slots=True)
class Place:
    """Where a source stands: the pass, where its window begins, rows taken of the window."""

    epoch: int = 0
    offset: int = 0
    line: int = 1
    taken: int = 0
    kept: int = 0
    finished: bool = False
    token: dict[str, Any] | None = None


class _Noting(Rejects):
    """Passes rejections on, and remembers them for the window's shard."""

    def __init__(self, rejects: Rejects) -> None:
        super().__init__()
        self.rejects = rejects
        self.noted: list[Noted] = []

    def add(self, file: object, line: int, reason: str, raw: bytes) -> None:
        self.noted.append(Noted(line, reason, raw[:NOTED_BYTES].decode(errors="replace")))
        self.rejects.add(file, line, reason, raw)


class _Window:
    """The rows of one window, in the order of the file; from its origin or from the cache."""

    def __init__(
        self, origin: Origin, facts: WindowFacts, *, rows: list[Row | None] | None = None,
        read: ReadShard | None = None, write: ShardWriter | None = None,
    ) -> None:  # fmt: skip
        self.origin, self.facts = origin, facts
        self._rows, self._read, self._write = rows, read, write
        self.order = list(range(len(facts.lines)))

    def draw(self, at: int) -> Drawn:
        """Return the row that is the `at`-th in the shuffled order; each is drawn once."""
        number = self.order[at]
        line, size = self.facts.lines[number], self.facts.sizes[number]
        if self._read is not None:
            return Drawn(None, self.origin, line, size, item=self._read.item(number))
        assert self._rows is not None
        row, self._rows[number] = self._rows[number], None  # drawn once, so its memory can go
        return Drawn(row, self.origin, line, size, number=number, shard=self._write)


class WindowedFile:
    """One source, pass after pass, shuffled in windows.

    `place.kept` counts the rows of the current pass, so that a file without a usable row ends.
    """

    def __init__(
        self, path: Origin, selection: Selection, *, seed: int, window_bytes: int,
        epochs: int | None, rejects: Rejects, cache: TokenCache | None = None,
    ) -> None:  # fmt: skip
        self.path, self.selection = path, selection
        self.seed, self.window_bytes, self.epochs = seed, window_bytes, epochs
        self.cache = cache if cache is not None and cache.takes(path) else None
        self.place = Place()
        self.held_back = 0
        self._rejects = _Noting(rejects)
        self._window: _Window | None = None
        self._reader: Iterator[tuple[Cursor, int, Row]] | None = None
        self._next: tuple[Cursor, int, Row] | None = None

    def next(self) -> Drawn | None:
        """Return the next row, or None when the last pass is over."""
        while not self.place.finished:
            if self._window is None:
                self._window = self._open_window()
            if self.place.taken < len(self._window.order):
                self.place.taken += 1
                return self._window.draw(self.place.taken - 1)
            self._leave_window(self._window.facts)
        return None

    def _open_window(self) -> _Window:
        place, shard = self.place, None
        if self.cache is not None:
            shard = self.cache.path(self.path, place.offset, self.window_bytes)
            if (read := self.cache.read(shard)) is not None:
                for note in read.noted:
                    self._rejects.rejects.add(self.path, note.line, note.reason, note.raw.encode())
                self._reader, self._next = None, None  # it stands elsewhere
                self.held_back += read.facts.held_back
                return self._shuffled(_Window(self.path, read.facts, read=read))
        rows, facts = self._read_window()
        write = None
        if self.cache is not None and shard is not None and place.taken == 0:
            write = self.cache.writer(shard, facts)
        if write is not None:
            write.noted = list(self._rejects.noted)
        self._rejects.noted.clear()
        return self._shuffled(_Window(self.path, facts, rows=rows, write=write))

    def _read_window(self) -> tuple[list[Row | None], WindowFacts]:
        """Read on from the place, in the iterator that is open if it stands there."""
        if self._reader is None:
            start = Cursor(self.place.offset, self.place.line, self.place.token)
            self._reader = read_rows(
                self.path, self.selection.kind, rejects=self._rejects, start=start
            )
        rows: list[Row | None] = []
        lines: list[int] = []
        sizes: list[int] = []
        size = held_back = 0
        upcoming, self._next = self._next or next(self._reader, None), None
        while upcoming is not None and size < self.window_bytes:
            at, length, row = upcoming
            size += length
            if self.selection.wants(row):
                rows.append(row)
                lines.append(at.line)
                sizes.append(length)
            else:
                held_back += 1
            upcoming = next(self._reader, None)
        self._next = upcoming
        if upcoming is None:
            self._reader = None
        self.held_back += held_back
        after = upcoming[0] if upcoming is not None else Cursor()
        facts = WindowFacts(
            lines=lines, sizes=sizes, after=(after.offset, after.line, after.token),
            ended=upcoming is None, held_back=held_back,
        )  # fmt: skip
        return rows, facts

    def _shuffled(self, window: _Window) -> _Window:
        key = f"{self.seed}:{self.path.name}:{self.place.epoch}:{self.place.offset}"
        random.Random(key).shuffle(window.order)
        return window

    def _leave_window(self, facts: WindowFacts) -> None:
        kept = self.place.kept + len(facts.lines)
        if facts.ended:
            epoch = self.place.epoch + 1
            done = kept == 0 or (self.epochs is not None and epoch >= self.epochs)
            self.place = Place(epoch=epoch, finished=done)
        else:
            offset, line, token = facts.after
            self.place = Place(
                epoch=self.place.epoch, offset=offset, line=line, kept=kept, token=token
            )
        self._window = None

    def state_dict(self) -> dict[str, Any]:
        """Return the place as builtins."""
        return asdict(self.place)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go to a place; its window is read again when the next row is asked for."""
        self.place = Place(**state)
        self._window, self._reader, self._next = None, None, None
