"""Rows with images to batches: the loader of `data.kind = "image"`.

Unlike text, image-text rows are few (a path and some words each): they are held in memory and
shuffled whole. Images are encoded by the frozen encoder when they are first met, and read from the
store of features from then on (`minimind.vision.store`). Rows are not packed.

Axes: B rows, T positions, I images of a row, P positions of an image, E features.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from minimind.config import DataConfig, VisionConfig
from minimind.data.batch import IGNORE, Batch
from minimind.data.document import is_held_out
from minimind.data.formats import ImageRow, RowError, parse_row
from minimind.data.images import feature_store
from minimind.data.reader import Rejects, expand_paths
from minimind.errors import ConfigError, DataError
from minimind.tokenizer import Tokenizer

if TYPE_CHECKING:
    from PIL.Image import Image

STATE_VERSION = 1


@dataclass(frozen=True, slots=True)
class Example:
    """A row and where it stood."""

    row: ImageRow
    file: Path
    line: int

    @property
    def images(self) -> list[Path]:
        """Return its image files."""
        return [self.file.parent / name for name in self.row.images]


@dataclass(frozen=True, slots=True)
class Encoded:
    """A row as the model reads it: (n,) ids and labels, and the keys of its images."""

    ids: list[int]
    labels: list[int]
    keys: tuple[str, ...]


def read_examples(
    config: DataConfig, split: Literal["train", "validation", "all"], rejects: Rejects
) -> list[Example]:
    """Return the rows of one side of the held-out split, in the order of the files.

    Raises:
        DataError: a file is missing, or none of its rows can be used.
    """
    explicit = config.validation is not None
    named = config.validation if explicit and split == "validation" else config.train
    paths = expand_paths(named or ())
    examples: list[Example] = []
    for path in paths:
        examples += _read_file(path, rejects)
    if not examples:
        raise DataError(
            f"{', '.join(map(str, paths))}: no row of kind 'image' could be used. "
            f"{rejects.summary()}"
        )
    if explicit or split == "all":
        return examples
    share, wanted = config.validation_share, split == "validation"
    return [e for e in examples if is_held_out(e.row.held_out_key, share) == wanted]


def _read_file(path: Path, rejects: Rejects) -> Iterator[Example]:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = parse_row(json.loads(line), "image")
            except RowError as error:
                rejects.add(path, number, str(error), line)
            except (ValueError, RecursionError) as error:
                rejects.add(path, number, f"not JSON: {error}", line)
            else:
                assert isinstance(row, ImageRow)
                yield Example(row, path, number)


class ImageLoader:
    """Yields `list[Batch]`: this rank's micro-batches of one optimizer step (see `Loader`).

    Attributes:
        counts: documents, tokens, rejects; after the last step taken.
        rejects: what could not be used.
    """

    def __init__(
        self, config: DataConfig, tokenizer: Tokenizer, *, vision: VisionConfig, batch_rows: int,
        micro_batch_rows: int, seed: int, rank: int = 0, world_size: int = 1,
        rejects: Path | None = None, split: Literal["train", "validation"] = "train",
    ) -> None:  # fmt: skip
        """Read the rows.

        Raises:
            ConfigError: numbers that contradict each other.
            DataError: see `read_examples`.
        """
        if batch_rows % world_size:
            raise ConfigError(
                f"train.batch_rows = {batch_rows} must be a multiple of the {world_size} processes"
            )
        self.config, self.tokenizer, self.vision = config, tokenizer, vision
        self.batch_rows, self.micro_batch_rows = batch_rows, micro_batch_rows
        self.seed, self.rank, self.world_size = seed, rank, world_size
        self.rejects = Rejects(rejects if rank == 0 else None)
        self.examples = read_examples(config, split, self.rejects)
        self.store = feature_store(vision)
        self.counts: Counter[str] = Counter()
        self._epoch, self._index = 0, 0

    def rows_per_epoch(self) -> int:
        """Return the rows of one pass."""
        return len(self.examples)

    def __iter__(self) -> Iterator[list[Batch]]:
        """Yield steps from the position on."""
        limit = self.config.epochs_limit
        usable_seen = self.counts["documents"] > 0
        while self.examples and (limit is None or self._epoch < limit):
            order = self._order(self._epoch)
            while self._index < len(order):
                rows = self._next_rows(order)
                usable_seen = usable_seen or bool(rows)
                if rows:
                    yield self._batches(rows)
            if not usable_seen:
                raise DataError(f"no row with an image could be used. {self.rejects.summary()}")
            self._epoch, self._index = self._epoch + 1, 0

    def _next_rows(self, order: Sequence[int]) -> list[Encoded]:
        """Encode rows until a step is full or the pass is over."""
        rows: list[Encoded] = []
        while len(rows) < self.batch_rows and self._index < len(order):
            wanted = order[self._index : self._index + self.batch_rows - len(rows)]
            self._index += len(wanted)
            encoded = self.encode([self.examples[number] for number in wanted])
            rows += [row for row in encoded if row is not None]
            self.counts["rejects"] += sum(row is None for row in encoded)
        self.counts["documents"] += len(rows)
        self.counts["tokens"] += sum(len(row.ids) for row in rows)
        return rows

    def encode(self, examples: Sequence[Example]) -> list[Encoded | None]:
        """Return rows as ids, their images in the store; None for what was rejected."""
        encoded: list[Encoded | None] = []
        new: dict[str, Image] = {}
        for example in examples:
            try:
                keys, unseen = self.store.look(example.images)
            except DataError as error:
                reason = f"an image can't be used: {error}"  # one reason, whatever the file
                self.rejects.add(example.file, example.line, reason, b"")
                encoded.append(None)
                continue
            try:
                encoded.append(self._render(example, keys))
                new |= unseen
            except DataError as error:
                self.rejects.add(example.file, example.line, str(error), b"")
                encoded.append(None)
        self.store.add(new)  # together: in batches they cost half
        return encoded

    def _render(self, example: Example, keys: tuple[str, ...]) -> Encoded:
        image = [self.vision.image_token_id] * self.vision.positions
        rendered = self.tokenizer.render(example.row.messages, images=[image] * len(keys))
        length = self.config.sequence_length
        last_image = max(n for n, i in enumerate(rendered.ids) if i == image[0])
        if last_image >= length or not any(rendered.mask[1:length]):
            raise DataError(
                f"the row has {len(rendered.ids)} tokens ({self.vision.positions} an image): its "
                f"images or its answer lie beyond data.sequence_length = {length}"
            )
        shifted = zip(rendered.ids[1:], rendered.mask[1:], strict=True)
        labels = [*(i if learnt else IGNORE for i, learnt in shifted), IGNORE]
        return Encoded(rendered.ids[:length], labels[:length], keys)

    def _batches(self, rows: list[Encoded]) -> list[Batch]:
        share = -(-len(rows) // self.world_size)
        mine = rows[self.rank * share : (self.rank + 1) * share]
        # Rows of one micro-batch are padded to its longest: alike in length, they waste little,
        # and the step's sum over all of them is the same.
        mine.sort(key=lambda row: len(row.ids))
        size = self.micro_batch_rows
        return [self.collate(mine[start : start + size]) for start in range(0, len(mine), size)]

    def collate(self, rows: Sequence[Encoded]) -> Batch:
        """Return rows as a batch, padded to the longest, rounded up to an eighth of a row.

        `torch.compile` then meets eight shapes, not hundreds.
        """
        step = -(-self.config.sequence_length // 8)
        T = -(-max(len(row.ids) for row in rows) // step) * step
        inputs = np.full((len(rows), T), self.tokenizer.pad_id, np.int64)
        labels = np.full((len(rows), T), IGNORE, np.int64)
        for number, row in enumerate(rows):
            inputs[number, : len(row.ids)] = row.ids
            labels[number, : len(row.labels)] = row.labels
        return Batch(
            input_ids=torch.from_numpy(inputs),
            labels=torch.from_numpy(labels),
            image_features=self._features(rows),
        )

    def _features(self, rows: Sequence[Encoded]) -> Tensor:
        """Return (B, I, P, E); rows with fewer images than others are filled up with zeros."""
        count = max(len(row.keys) for row in rows)
        features = torch.zeros(len(rows), count, self.vision.positions, self.vision.feature_size)
        for number, row in enumerate(rows):
            features[number, : len(row.keys)] = self.store.get(row.keys)
        return features

    def _order(self, epoch: int) -> list[int]:
        order = list(range(len(self.examples)))
        random.Random(f"{self.seed}:{epoch}").shuffle(order)
        return order

    def state_dict(self) -> dict[str, Any]:
        """Return the position after the last step taken."""
        return {
            "version": STATE_VERSION, "identity": self._identity(), "epoch": self._epoch,
            "index": self._index, "counts": dict(self.counts),
        }  # fmt: skip

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go to a position.

        Raises:
            DataError: the rows are not those of the state.
        """
        for name, now in self._identity().items():
            before = (state.get("identity") or {}).get(name)
            if before != now:
                raise DataError(
                    f"the run can't be resumed exactly: {name} was {before}, is now {now}. "
                    "Put it back, or start a new run from the checkpoint (init.checkpoint)"
                )
        self._epoch, self._index = state["epoch"], state["index"]
        self.counts = Counter(state["counts"])

    def _identity(self) -> dict[str, Any]:
        return {
            "data.kind": "image", "rows": len(self.examples), "seed": self.seed,
            "data.sequence_length": self.config.sequence_length,
            "tokenizer": self.tokenizer.fingerprint(),
            "image encoder": self.vision.encoder_sha256,
        }  # fmt: skip


def image_validation_batches(
    config: DataConfig, tokenizer: Tokenizer, *, vision: VisionConfig, rows: int,
    micro_batch_rows: int,
) -> list[Batch]:  # fmt: skip
    """Return up to `rows` held-out rows as micro-batches, the same on every call and rank.

    Returns:
        An empty list if the hash holds none out.
    """
    loader = ImageLoader(
        config, tokenizer, vision=vision, batch_rows=rows, micro_batch_rows=micro_batch_rows,
        seed=0, split="validation",
    )  # fmt: skip
    return next(iter(loader), [])
