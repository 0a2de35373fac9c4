"""Rows of several origins in a seeded order that can be taken up anywhere.

Each file or hub data set is a source. Inside a source, rows are shuffled in windows: a window of so
many MB is read, permuted by (seed, name, epoch, window) and emitted. So the position is a few
numbers, and a corpus of any size is shuffled with bounded memory.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from minimind.data.cache import Noted, ReadShard, ShardWriter, TokenCache, WindowFacts
from minimind.data.document import is_held_out
from minimind.data.formats import Kind, Row
from minimind.data.items import Item
from minimind.data.reader import Cursor, Origin, read_rows, text_bytes
from minimind.data.rejects import Rejects, nothing_usable
from minimind.errors import DataError

Split = Literal["train", "validation", "all"]
MIN_WINDOW_BYTES = 1 << 20
NOTED_BYTES = 1_000
UNKNOWN_BYTES = 1 << 30
"""What a hub data set of unknown size counts for."""


class EmptySideError(DataError):
    """Every usable row is on the other side of the held-out split."""


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


HEAD_START_BYTES = 1000.0
"""About a document: enough to vary the order between seeds, too little to keep a file waiting."""


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """What is mixed, and how.

    Attributes:
        origins: where rows come from.
        weights: each origin's share of the bytes that are read.
        epochs: after so many passes an origin gives no more; None: no limit.
        stages: (bytes read in all, weights from there on), ascending; a weight of 0 rests.
    """

    origins: tuple[Origin, ...]
    weights: tuple[float, ...]
    epochs: tuple[int | None, ...]
    stages: tuple[tuple[float, tuple[float, ...]], ...] = ()


class MixedStream:
    """Rows of several origins, mixed so that each one's share of the bytes is its weight.

    The next row comes from the origin that is furthest behind its share. Unlike independent draws
    this keeps the mix right at every moment, and with weights in proportion to size (the default)
    all files end a pass together. A seeded head start per file varies the order between seeds.
    """

    def __init__(
        self, mixture: Mixture, selection: Selection, *, seed: int, window_mb: int,
        rejects: Rejects, cache: TokenCache | None = None,
    ) -> None:  # fmt: skip
        self.mixture, self.selection, self.rejects = mixture, selection, rejects
        known = [text_bytes(origin) for origin in mixture.origins]
        self.sizes_known = all(
            size > 0 or isinstance(origin, Path)
            for size, origin in zip(known, mixture.origins, strict=True)
        )
        sizes = [
            max(size, 1) if isinstance(origin, Path) else size or UNKNOWN_BYTES
            for size, origin in zip(known, mixture.origins, strict=True)
        ]
        self.total_bytes = sum(sizes)
        self.sources = [
            WindowedFile(
                origin, selection, seed=seed, epochs=epochs, rejects=rejects, cache=cache,
                window_bytes=max(MIN_WINDOW_BYTES, (window_mb << 20) * size // self.total_bytes),
            )
            for origin, size, epochs in zip(mixture.origins, sizes, mixture.epochs, strict=True)
        ]  # fmt: skip
        head_start = random.Random(f"{seed}:mix")
        self._head_start = [head_start.random() * HEAD_START_BYTES for _ in mixture.weights]
        self.emitted = list(self._head_start)
        self.rows, self.drawn, self.stage = 0, 0, 0

    def __iter__(self) -> Iterator[Drawn]:
        while True:
            weights = self._weights()
            live = [
                i for i, source in enumerate(self.sources)
                if not source.place.finished and weights[i] > 0
            ]  # fmt: skip
            if not live:
                if self.rows == 0:
                    raise self._nothing()
                if not self._skip_stage():
                    return
                continue
            chosen = min(live, key=lambda i: self.emitted[i] / weights[i])
            if (drawn := self.sources[chosen].next()) is not None:
                self.emitted[chosen] += drawn.size
                self.drawn += drawn.size
                self.rows += 1
                yield drawn

    def _weights(self) -> Sequence[float]:
        """Return the weights of now; at the beginning of a stage every source starts anew."""
        stages = self.mixture.stages
        if self.stage < len(stages) and self.drawn >= stages[self.stage][0]:
            self._begin_stage()
        return stages[self.stage - 1][1] if self.stage else self.mixture.weights

    def _begin_stage(self) -> None:
        self.stage += 1
        self.emitted = list(self._head_start)

    def _skip_stage(self) -> bool:
        """Go to the next stage when all that this one uses has ended."""
        if self.stage >= len(self.mixture.stages):
            return False
        self._begin_stage()
        return True

    @property
    def passes(self) -> int:
        """Return how often every source has been read to its end."""
        return min(source.place.epoch for source in self.sources)

    @property
    def expected_bytes(self) -> float:
        """Return about how many bytes of lines one pass gives on this side of the split."""
        share = self.selection.share
        side = {"train": 1 - share, "validation": share, "all": 1.0}[self.selection.split]
        return self.total_bytes * side

    def _nothing(self) -> DataError:
        held_back = sum(source.held_back for source in self.sources)
        if not held_back:
            return nothing_usable(self.mixture.origins, self.selection.kind, self.rejects)
        side = "validation" if self.selection.split == "train" else "training"
        return EmptySideError(
            f"{', '.join(map(str, self.mixture.origins))}: all {held_back} usable rows are on the "
            f"{side} side of the held-out split (data.validation_share = {self.selection.share}). "
            "Give more data, another share, or name data.validation files"
        )

    def state_dict(self) -> dict[str, Any]:
        """Return the position as builtins."""
        return {"sources": [source.state_dict() for source in self.sources],
                "emitted": list(self.emitted), "rows": self.rows, "drawn": self.drawn,
                "stage": self.stage}  # fmt: skip

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go to a position."""
        for source, place in zip(self.sources, state["sources"], strict=True):
            source.load_state_dict(place)
        self.emitted, self.rows = list(state["emitted"]), state["rows"]
        self.drawn, self.stage = state.get("drawn", 0), state.get("stage", 0)
