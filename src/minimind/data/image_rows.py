"""Rows with images, and rows without among them, as the model reads them.

Images are encoded by the frozen encoder when they are first met, and read from the store of
features from then on (`minimind.vision.store`). Rows are not packed.

Axes: B rows, T positions, I images of a row, P positions of an image, E features.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from minimind.config import DataConfig, VisionConfig
from minimind.data.batch import IGNORE, Batch
from minimind.data.formats import ChatRow, ImageRow, Row, TextRow
from minimind.data.images import feature_store
from minimind.data.items import RowEncoder, shifted_labels
from minimind.data.reader import Origin, Rejects, expand_paths, read_rows
from minimind.data.tables import as_json
from minimind.data.windows import Drawn
from minimind.errors import DataError
from minimind.tokenizer import Tokenizer

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True, slots=True)
class Example:
    """A row with images and where it stood."""

    row: ImageRow
    file: Path
    line: int

    @property
    def images(self) -> list[Path]:
        """Return its image files."""
        return image_files(self.row, self.file)


def image_files(row: Row, file: Origin) -> list[Path]:
    """Return the image files that a row names: beside its data file; none of a row without.

    Raises:
        DataError: the data file isn't on this machine.
    """
    if not isinstance(row, ImageRow):
        return []
    if not isinstance(file, Path):
        raise DataError("rows of the hub have no pictures beside them: download the data set")
    return [file.parent / name for name in row.images]


def read_examples(files: Iterable[str], rejects: Rejects) -> list[Example]:
    """Return the rows with images of data files, in their order; rows without are left out.

    Raises:
        DataError: a file is missing, or no row in it has an image that can be used.
    """
    paths = expand_paths(files)
    examples = [
        Example(row, path, at.line)
        for path in paths
        for at, _, row in read_rows(path, "image", rejects=rejects)
        if isinstance(row, ImageRow)
    ]
    if not examples:
        raise DataError(
            f"{', '.join(map(str, paths))}: no row with an image could be used. {rejects.summary()}"
        )
    return examples


@dataclass(frozen=True, slots=True)
class Encoded:
    """A row as the model reads it.

    Attributes:
        ids: (n,) of it; an image is `positions` times `image_token_id`.
        labels: (n,) already shifted.
        keys: of its images, in order; none: it is text.
    """

    ids: np.ndarray
    labels: np.ndarray
    keys: tuple[str, ...] = ()


class ImageRows:
    """Makes batches of rows; the features of new images go to the store on the way.

    Args:
        config: gives the length; `kind` is `image`.
        tokenizer: gives the ids.
        vision: how the model sees.
        rejects: where rows go that can't be used.
    """

    def __init__(
        self, config: DataConfig, tokenizer: Tokenizer, *, vision: VisionConfig, rejects: Rejects
    ) -> None:
        self.config, self.tokenizer, self.vision = config, tokenizer, vision
        self.rejects = rejects
        self.store = feature_store(vision)
        self._chats = RowEncoder(replace(config, kind="chat"), tokenizer)
        self._texts = RowEncoder(replace(config, kind="text", pack=False), tokenizer)

    def encode(self, rows: Sequence[Drawn], *, seed: str) -> list[Encoded | None]:
        """Return rows as ids, their images in the store; None for what was rejected.

        Args:
            rows: with images or without.
            seed: which piece is taken of a text that is longer than a row.
        """
        encoded: list[Encoded | None] = []
        new: dict[str, Image] = {}
        for drawn in rows:
            assert drawn.row is not None
            try:
                files = image_files(drawn.row, drawn.file)
                try:
                    keys, unseen = self.store.look(files)
                except DataError as error:  # one reason, whatever the file
                    raise DataError(f"an image can't be used: {error}") from error
                encoded.append(self._encoded(drawn.row, keys, seed=f"{seed}:{drawn.line}"))
                new |= unseen
            except DataError as error:
                raw = as_json(asdict(drawn.row))
                self.rejects.add(drawn.file, drawn.line, str(error), raw)
                encoded.append(None)
        self.store.add(new)  # together: in batches they cost half
        return encoded

    def _encoded(self, row: Row, keys: tuple[str, ...], *, seed: str) -> Encoded:
        if isinstance(row, ImageRow):
            return self._with_images(row, keys)
        length = self.config.sequence_length
        start = 0
        if isinstance(row, TextRow):
            (item,) = self._texts.encode([row])
            # Always the beginning would teach only how documents begin.
            start = random.Random(seed).randint(0, max(0, len(item.ids) - length))
        else:
            assert isinstance(row, ChatRow)
            (item,) = self._chats.encode([row])
            if item.reason:
                raise DataError(item.reason)
        piece = slice(start, start + length)
        return Encoded(item.ids[piece], shifted_labels(item.ids, item.mask)[piece])

    def _with_images(self, row: ImageRow, keys: tuple[str, ...]) -> Encoded:
        image = [self.vision.image_token_id] * self.vision.positions
        rendered = self.tokenizer.render(row.messages, images=[image] * len(keys))
        length = self.config.sequence_length
        last_image = max(n for n, i in enumerate(rendered.ids) if i == image[0])
        if last_image >= length or not any(rendered.mask[1:length]):
            raise DataError(
                f"the row has {len(rendered.ids)} tokens ({self.vision.positions} an image): its "
                f"images or its answer lie beyond data.sequence_length = {length}"
            )
        ids = np.array(rendered.ids, np.int64)
        labels = shifted_labels(ids, np.array(rendered.mask, np.bool_))
        return Encoded(ids[:length], labels[:length], keys)

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
        """Return (B, I, P, E); rows with fewer images than others are filled up with zeros.

        I is at least 1: also a batch of text alone goes through the projector, so that every rank
        has gradients of it (zeros) to add up.
        """
        count = max(1, *(len(row.keys) for row in rows))
        features = torch.zeros(len(rows), count, self.vision.positions, self.vision.feature_size)
        for number, row in enumerate(rows):
            features[number, : len(row.keys)] = self.store.get(row.keys)
        return features
