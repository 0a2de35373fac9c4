"""Rows of several origins in a seeded order that can be taken up anywhere.

Each file or hub data set is a source, shuffled in windows (`data.windows`); here they are mixed.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minimind.data.cache import TokenCache
from minimind.data.reader import Origin, text_bytes
from minimind.data.rejects import Rejects, nothing_usable
from minimind.data.windows import Drawn, Selection, WindowedFile
from minimind.errors import DataError

MIN_WINDOW_BYTES = 1 << 20
UNKNOWN_BYTES = 1 << 30
"""What a hub data set of unknown size counts for."""


class EmptySideError(DataError):
    """Every usable row is on the other side of the held-out split."""


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
