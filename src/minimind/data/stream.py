"""Rows of several files in a seeded order that can be taken up anywhere.

Each file is a source. Inside a source, rows are shuffled in windows: a window of so many MB is
read, permuted by (seed, file, epoch, window) and emitted. So the position is a few numbers, and a
corpus of any size is shuffled with bounded memory.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from minimind.data.document import is_held_out
from minimind.data.formats import Kind, Row
from minimind.data.reader import Cursor, Rejects, nothing_usable, read_rows, text_bytes
from minimind.errors import DataError

Split = Literal["train", "validation", "all"]
MIN_WINDOW_BYTES = 1 << 20


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


@dataclass(frozen=True, slots=True)
class Drawn:
    """A row with where it stood; `size` is the bytes of its line."""

    row: Row
    file: Path
    line: int
    size: int


@dataclass(slots=True)
class Place:
    """Where a source stands: the pass, where its window begins, rows taken of the window."""

    epoch: int = 0
    offset: int = 0
    line: int = 1
    taken: int = 0
    kept: int = 0
    finished: bool = False


class WindowedFile:
    """One file, pass after pass, shuffled in windows.

    `place.kept` counts the rows of the current pass, so that a file without a usable row ends.
    """

    def __init__(
        self, path: Path, selection: Selection, *, seed: int, window_bytes: int,
        epochs: int | None, rejects: Rejects,
    ) -> None:  # fmt: skip
        self.path, self.selection, self.rejects = path, selection, rejects
        self.seed, self.window_bytes, self.epochs = seed, window_bytes, epochs
        self.place = Place()
        self.held_back = 0
        self._window: list[Drawn] | None = None
        self._after = Cursor()
        self._ended = False

    def next(self) -> Drawn | None:
        """Return the next row, or None when the last pass is over."""
        while not self.place.finished:
            if self._window is None:
                self._read_window()
            assert self._window is not None
            if self.place.taken < len(self._window):
                self.place.taken += 1
                return self._window[self.place.taken - 1]
            self._leave_window()
        return None

    def _read_window(self) -> None:
        start = Cursor(self.place.offset, self.place.line)
        window: list[Drawn] = []
        self._after, self._ended, size = start, True, 0
        rows = read_rows(self.path, self.selection.kind, rejects=self.rejects, start=start)
        for at, length, row in rows:
            if size >= self.window_bytes:
                self._after, self._ended = at, False
                break
            size += length
            if self.selection.wants(row):
                window.append(Drawn(row, self.path, at.line, length))
            else:
                self.held_back += 1
        key = f"{self.seed}:{self.path.name}:{self.place.epoch}:{self.place.offset}"
        random.Random(key).shuffle(window)
        self._window = window

    def _leave_window(self) -> None:
        kept = self.place.kept + len(self._window or ())
        if self._ended:
            epoch = self.place.epoch + 1
            done = kept == 0 or (self.epochs is not None and epoch >= self.epochs)
            self.place = Place(epoch=epoch, finished=done)
        else:
            self.place = Place(epoch=self.place.epoch, offset=self._after.offset,
                               line=self._after.line, kept=kept)  # fmt: skip
        self._window = None

    def state_dict(self) -> dict[str, Any]:
        """Return the place as builtins."""
        return asdict(self.place)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go to a place; its window is read again when the next row is asked for."""
        self.place, self._window = Place(**state), None


HEAD_START_BYTES = 1000.0
"""About a document: enough to vary the order between seeds, too little to keep a file waiting."""


class MixedStream:
    """Rows of several files, mixed so that each file's share of the bytes is its weight.

    The next row comes from the file that is furthest behind its share. Unlike independent draws
    this keeps the mix right at every moment, and with weights in proportion to size (the default)
    all files end a pass together. A seeded head start per file varies the order between seeds.
    """

    def __init__(
        self, files: Sequence[Path], weights: Sequence[float], selection: Selection, *,
        seed: int, window_mb: int, epochs: int | None, rejects: Rejects,
    ) -> None:  # fmt: skip
        self.files, self.selection, self.rejects = list(files), selection, rejects
        sizes = [max(text_bytes(path), 1) for path in files]
        self.total_bytes = sum(sizes)
        self.weights = [max(weight, 1e-12) for weight in weights]
        self.sources = [
            WindowedFile(
                path, selection, seed=seed, epochs=epochs, rejects=rejects,
                window_bytes=max(MIN_WINDOW_BYTES, (window_mb << 20) * size // self.total_bytes),
            )
            for path, size in zip(files, sizes, strict=True)
        ]  # fmt: skip
        head_start = random.Random(f"{seed}:mix")
        self.emitted = [head_start.random() * HEAD_START_BYTES for _ in self.weights]
        self.rows = 0

    def __iter__(self) -> Iterator[Drawn]:
        while True:
            live = [i for i, source in enumerate(self.sources) if not source.place.finished]
            if not live:
                if self.rows == 0:
                    raise self._nothing()
                return
            chosen = min(live, key=lambda i: self.emitted[i] / self.weights[i])
            if (drawn := self.sources[chosen].next()) is not None:
                self.emitted[chosen] += drawn.size
                self.rows += 1
                yield drawn

    @property
    def passes(self) -> int:
        """Return how often every file has been read to its end."""
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
            return nothing_usable(self.files, self.selection.kind, self.rejects)
        side = "validation" if self.selection.split == "train" else "training"
        return EmptySideError(
            f"{', '.join(map(str, self.files))}: all {held_back} usable rows are on the {side} "
            f"side of the held-out split (data.validation_share = {self.selection.share}). Give "
            "more data, another share, or name data.validation files"
        )

    def state_dict(self) -> dict[str, Any]:
        """Return the position as builtins."""
        return {"sources": [source.state_dict() for source in self.sources],
                "emitted": list(self.emitted), "rows": self.rows}  # fmt: skip

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go to a position."""
        for source, place in zip(self.sources, state["sources"], strict=True):
            source.load_state_dict(place)
        self.emitted, self.rows = list(state["emitted"]), state["rows"]
