"""Features of images on disk: an image is encoded once, by whichever run meets it first.

CACHE/ENCODER-POSITIONS/ab/abcdef....npy     (P, E) float16, by the image's key

One file an image: runs and processes that share the folder never write into each other's, because
each file is renamed into place. float16 halves the room; it rounds by at most 0.05 %.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from minimind.errors import DataError
from minimind.vision.encoder import ImageEncoder
from minimind.vision.images import decode, key_of_bytes, read_image_file

if TYPE_CHECKING:
    from PIL.Image import Image

BATCH = 32
"""Images encoded at once."""


class FeatureStore:
    """Features by the keys of images.

    Args:
        directory: made when it is first written to.
        positions: P of a stored image.
        feature_size: E.
        load_encoder: called when the first image is met that isn't stored.
    """

    def __init__(
        self,
        directory: Path,
        *,
        positions: int,
        feature_size: int,
        load_encoder: Callable[[], ImageEncoder],
    ) -> None:
        self.directory, self._load = directory, load_encoder
        self.shape = (positions, feature_size)
        self._encoder: ImageEncoder | None = None

    @property
    def encoder(self) -> ImageEncoder:
        """Return the encoder, loaded on first use."""
        if self._encoder is None:
            self._encoder = self._load()
        return self._encoder

    def look(self, files: Sequence[Path]) -> tuple[tuple[str, ...], dict[str, Image]]:
        """Return the keys of image files, and the images of those that are not stored yet.

        Raises:
            DataError: one can't be read, or is no image.
        """
        keys, missing = [], {}
        for file in files:
            data = read_image_file(file)
            key = key_of_bytes(data)
            keys.append(key)
            if not self._path(key).is_file():
                missing[key] = decode(data, origin=str(file)).image
        return tuple(keys), missing

    def add(self, images: Mapping[str, Image]) -> None:
        """Encode images and store them by their keys."""
        keys = list(images)
        for begin in range(0, len(keys), BATCH):
            part = keys[begin : begin + BATCH]
            features_NPE = self.encoder.encode([images[key] for key in part])
            for key, features_PE in zip(part, features_NPE, strict=True):
                self._write(key, features_PE)

    def get(self, keys: Sequence[str]) -> Tensor:
        """Return (N, P, E) fp32 of stored images.

        Raises:
            DataError: one isn't there any more, or was damaged.
        """
        features = torch.empty(len(keys), *self.shape)
        for features_PE, array in zip(features, self._read(keys), strict=True):
            features_PE.copy_(torch.from_numpy(array))
        return features

    def _read(self, keys: Sequence[str]) -> Iterator[np.ndarray]:
        for key in keys:
            path = self._path(key)
            try:
                array = np.load(path, allow_pickle=False)
            except (OSError, ValueError, EOFError) as error:
                raise DataError(
                    f"{path}: the features of an image can't be read ({error}). Delete "
                    f"{self.directory} and run again: they are computed anew"
                ) from error
            if array.shape != self.shape:
                raise DataError(f"{path} has the shape {array.shape}, not {self.shape}: delete it")
            yield array

    def _write(self, key: str, features_PE: Tensor) -> None:
        path = self._path(key)
        temp = path.with_name(f".{key}.{os.getpid()}.tmp")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with temp.open("wb") as file:
                np.save(file, features_PE.half().numpy(), allow_pickle=False)
            temp.replace(path)
        except OSError as error:
            temp.unlink(missing_ok=True)
            raise DataError(f"{path} can't be written: {error}") from error

    def _path(self, key: str) -> Path:
        return self.directory / key[:2] / f"{key}.npy"
