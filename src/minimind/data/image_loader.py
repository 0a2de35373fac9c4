"""The loader of `data.kind = "image"`: rows with images, and text among them in a stated share.

Files are mixed as everywhere (`minimind.data.stream`): `data.weights` gives each its share of the
bytes that are read, so that text can be replayed among images (a model that learns from captions
alone forgets). A pass is one over the rows with images; of the text as much is read as its share.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from minimind.config import DataConfig, VisionConfig
from minimind.data.batch import Batch
from minimind.data.files import mixture
from minimind.data.formats import ImageRow
from minimind.data.image_rows import Encoded, ImageRows
from minimind.data.position import check_position, what_makes_rows
from minimind.data.reader import Origin
from minimind.data.rejects import Rejects
from minimind.data.stream import EmptySideError, MixedStream, Mixture
from minimind.data.windows import Drawn, Selection, Split
from minimind.errors import ConfigError, DataError
from minimind.tokenizer import Tokenizer

STATE_VERSION = 2
IMAGE_ROWS, IMAGE_TOKENS = "rows with images", "tokens of rows with images"
"""What the counts of a run call them, beside all its documents and tokens."""


class ImageLoader:
    """Yields `list[Batch]`: this rank's micro-batches of one optimizer step (see `Loader`).

    Attributes:
        counts: documents and tokens, those of rows with images, rejects; after the last step taken.
        rejects: what could not be used.
    """

    def __init__(
        self, config: DataConfig, tokenizer: Tokenizer, *, vision: VisionConfig, batch_rows: int,
        micro_batch_rows: int, seed: int, rank: int = 0, world_size: int = 1,
        rejects: Path | None = None, split: Literal["train", "validation"] = "train",
    ) -> None:  # fmt: skip
        """Look through one pass of the rows.

        Raises:
            ConfigError: numbers that contradict each other.
            DataError: a file is missing, or no row with an image is on this side of the split.
        """
        if batch_rows % world_size:
            raise ConfigError(
                f"train.batch_rows = {batch_rows} must be a multiple of the {world_size} processes"
            )
        self.config, self.tokenizer, self.vision = config, tokenizer, vision
        self.batch_rows, self.micro_batch_rows = batch_rows, micro_batch_rows
        self.seed, self.rank, self.world_size = seed, rank, world_size
        self.split: Literal["train", "validation"] = split
        self.rejects = Rejects(rejects if rank == 0 else None)
        self.rows = ImageRows(config, tokenizer, vision=vision, rejects=self.rejects)
        self.counts: Counter[str] = Counter()
        self._mixture = mixture(config, split)
        self._stream = self._open(self._mixture)
        self._seeing: set[Origin] = set()
        self._rows_per_epoch = self._look_through() if split == "train" else 0

    def rows_per_epoch(self) -> int:
        """Return the rows of one pass over the images, with the text among them."""
        return self._rows_per_epoch

    def _open(self, mixed: Mixture) -> MixedStream:
        explicit = self.config.validation is not None
        split: Split = "all" if explicit else self.split
        share = 0.0 if explicit else self.config.validation_share
        return MixedStream(
            mixed, Selection("image", split, share), seed=self.seed,
            window_mb=self.config.shuffle_mb, rejects=self.rejects,
        )  # fmt: skip

    def _look_through(self) -> int:
        """Count the rows until those with images were all drawn once; note which files have some.

        Raises:
            DataError: none has.
        """
        mixed = self._mixture
        endless = replace(mixed, epochs=(None,) * len(mixed.origins), stages=())
        stream = self._open(endless)
        for rows, drawn in enumerate(stream):
            if isinstance(drawn.row, ImageRow):
                self._seeing.add(drawn.file)
            if self._was_seen(stream):
                return rows
            if stream.passes and not self._seeing:
                break
        raise DataError(
            f"{', '.join(map(str, self._mixture.origins))}: no row with an image in a whole pass. "
            f"{self.rejects.summary()}. For text alone set data.kind = 'chat' or 'text'"
        )

    def _was_seen(self, stream: MixedStream) -> bool:
        """Tell whether a stream has been through every file with images."""
        passed = [source.place.epoch for source in stream.sources if source.path in self._seeing]
        return bool(passed) and min(passed) > 0

    def __iter__(self) -> Iterator[list[Batch]]:
        """Yield steps from the position on."""
        drawn = iter(self._stream)
        while rows := self.take(drawn, self.batch_rows):
            yield self._batches(rows)

    def take(
        self, drawn: Iterator[Drawn], count: int, *, images: bool | None = None
    ) -> list[Encoded]:
        """Encode rows until there are `count`, or the stream is over.

        Args:
            drawn: the stream.
            count: rows wanted.
            images: only rows with images, or only those without.

        Raises:
            DataError: a whole pass had no image that could be used.
        """
        rows: list[Encoded] = []
        while len(rows) < count:
            if not (part := list(islice(drawn, count - len(rows)))):
                break
            if images is not None:
                part = [one for one in part if isinstance(one.row, ImageRow) == images]
            encoded = self.rows.encode(part, seed=f"{self.seed}:{self._stream.rows}")
            rows += [row for row in encoded if row is not None]
            self._count(encoded)
            if self._was_seen(self._stream) and not self.counts[IMAGE_ROWS] and images is None:
                raise DataError(f"no row with an image could be used. {self.rejects.summary()}")
        return rows

    def _count(self, encoded: list[Encoded | None]) -> None:
        for row in encoded:
            if row is None:
                self.counts["rejects"] += 1
                continue
            self.counts["documents"] += 1
            self.counts["tokens"] += len(row.ids)
            if row.keys:
                self.counts[IMAGE_ROWS] += 1
                self.counts[IMAGE_TOKENS] += len(row.ids)

    def _batches(self, rows: list[Encoded]) -> list[Batch]:
        share = -(-len(rows) // self.world_size)
        mine = rows[self.rank * share : (self.rank + 1) * share]
        # Rows of one micro-batch are padded to its longest: alike in length, they waste little,
        # and the step's sum over all of them is the same.
        mine.sort(key=lambda row: len(row.ids))
        size = self.micro_batch_rows
        return [
            self.rows.collate(mine[start : start + size]) for start in range(0, len(mine), size)
        ]

    def held_out(self, *, images: bool) -> list[Batch]:
        """Return the first rows with images, or those without, as micro-batches."""
        mixed = self._mixture
        self._stream = self._open(replace(mixed, epochs=(1,) * len(mixed.origins), stages=()))
        try:
            return self._batches(self.take(iter(self._stream), self.batch_rows, images=images))
        except EmptySideError:
            return []

    def state_dict(self) -> dict[str, Any]:
        """Return the position after the last step taken."""
        return {
            "version": STATE_VERSION, "identity": self._identity(),
            "stream": self._stream.state_dict(), "counts": dict(self.counts),
        }  # fmt: skip

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go to a position.

        Raises:
            DataError: the rows are not those of the state.
        """
        check_position(state, version=STATE_VERSION, identity=self._identity())
        self._stream.load_state_dict(state["stream"])
        self.counts = Counter(state["counts"])

    def _identity(self) -> dict[str, Any]:
        rows = what_makes_rows(
            self.config, self._mixture, self.tokenizer, split=self.split, seed=self.seed
        )
        return rows | {"image encoder": self.vision.encoder_sha256}


def image_validation_batches(
    config: DataConfig, tokenizer: Tokenizer, *, vision: VisionConfig, rows: int,
    micro_batch_rows: int,
) -> dict[str, list[Batch]]:  # fmt: skip
    """Return held-out rows as micro-batches by name, the same on every call and rank.

    `""`: up to `rows` with images, whatever text is read among them, so that runs with other
    shares can be compared. `text`: up to as many without. What there is none of is left out.
    """
    loader = ImageLoader(
        config, tokenizer, vision=vision, batch_rows=rows, micro_batch_rows=micro_batch_rows,
        seed=0, split="validation",
    )  # fmt: skip
    sets = {"": loader.held_out(images=True), "text": loader.held_out(images=False)}
    return {name: batches for name, batches in sets.items() if batches}
