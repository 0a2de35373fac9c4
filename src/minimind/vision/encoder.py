"""What an image encoder is: frozen, and known by the checksum of its weights.

An encoder never learns, so what it says of an image is a fact about the image: it is computed once
and kept (`minimind.vision.store`). A model's configuration names its encoder and the checksum.

Axes: N images, P positions (patches), E features of a position.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

if TYPE_CHECKING:
    from PIL.Image import Image


class ImageEncoder(Protocol):
    """Turns images into a grid of features."""

    @property
    def name(self) -> str:
        """Return what a configuration calls it: `efficientnet-lite0`, or a directory."""
        ...

    @property
    def sha256(self) -> str:
        """Return the checksum of its weights."""
        ...

    @property
    def positions(self) -> int:
        """Return P."""
        ...

    @property
    def feature_size(self) -> int:
        """Return E."""
        ...

    def encode(self, images: Sequence[Image]) -> Tensor:
        """Return (N, P, E) fp32 of RGB images of any size."""
        ...


@dataclass(frozen=True, slots=True)
class Pooled:
    """An encoder whose square grid is averaged down to `grid` x `grid` positions."""

    encoder: ImageEncoder
    grid: int

    @property
    def name(self) -> str:
        """Return the encoder's."""
        return self.encoder.name

    @property
    def sha256(self) -> str:
        """Return the encoder's."""
        return self.encoder.sha256

    @property
    def positions(self) -> int:
        """Return grid^2."""
        return self.grid**2

    @property
    def feature_size(self) -> int:
        """Return the encoder's."""
        return self.encoder.feature_size

    def encode(self, images: Sequence[Image]) -> Tensor:
        """Return (N, grid^2, E)."""
        features_NPE = self.encoder.encode(images)
        N, P, E = features_NPE.shape
        side = round(P**0.5)
        square_NEhw = features_NPE.transpose(1, 2).reshape(N, E, side, side)
        return F.adaptive_avg_pool2d(square_NEhw, self.grid).flatten(2).transpose(1, 2)


def pixels(
    images: Sequence[Image],
    *,
    size: int,
    mean: Sequence[float],
    std: Sequence[float],
) -> Tensor:
    """Return (N, 3, size, size): whole images, padded to squares with white, resized, normalised.

    Args:
        images: RGB.
        size: of a side.
        mean: of each channel, for values from 0 to 1.
        std: of each channel.
    """
    import numpy as np
    from PIL import ImageOps
    from PIL.Image import Resampling

    squares = [
        ImageOps.pad(image, (size, size), method=Resampling.BICUBIC, color=(255, 255, 255))
        for image in images
    ]
    x_NhwC = torch.from_numpy(np.stack([np.asarray(square) for square in squares]))
    x_NChw = x_NhwC.permute(0, 3, 1, 2).float() / 255
    return (x_NChw - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
