"""The encoder that a model names, and the store of what it said of images."""

from __future__ import annotations

from pathlib import Path

import torch

from minimind.config import SightConfig, VisionConfig
from minimind.data.catalogue_images import ENCODER
from minimind.data.fetch import cache_dir, fetch
from minimind.errors import CheckpointError, ConfigError
from minimind.vision import efficientnet
from minimind.vision.encoder import ImageEncoder, Pooled
from minimind.vision.store import FeatureStore


def load_encoder(
    name: str, *, grid: int | None = None, device: torch.device | str = "cpu"
) -> ImageEncoder:
    """Return an encoder by its name; efficientnet-lite0 is downloaded if it isn't in the cache.

    Raises:
        CheckpointError: the directory holds no encoder.
        ConfigError: a grid that isn't below the encoder's own.
        FetchError: it can't be downloaded.
    """
    encoder: ImageEncoder
    if name == efficientnet.NAME:
        encoder = efficientnet.EfficientNetEncoder(fetch(ENCODER), device=device)
    else:
        from minimind.vision.huggingface import HuggingFaceEncoder

        encoder = HuggingFaceEncoder(name, device=device)
    if grid is None:
        return encoder
    if grid**2 >= encoder.positions:
        raise ConfigError(
            f"vision.grid = {grid}: {name} has {encoder.positions} positions, so it can't be "
            f"averaged down to {grid} x {grid}; leave vision.grid out"
        )
    return Pooled(encoder, grid)


def vision_config(sight: SightConfig, *, image_token_id: int = 11) -> VisionConfig:
    """Return the part of a model's shape that an encoder decides."""
    encoder = load_encoder(sight.encoder, grid=sight.grid)
    return VisionConfig(
        encoder=encoder.name,
        encoder_sha256=encoder.sha256,
        feature_size=encoder.feature_size,
        positions=encoder.positions,
        grid=sight.grid,
        image_token_id=image_token_id,
    )


def encoder_of(vision: VisionConfig, *, device: torch.device | str = "cpu") -> ImageEncoder:
    """Return the encoder that a model was trained with.

    Raises:
        CheckpointError: what is there under its name is another one.
    """
    encoder = load_encoder(vision.encoder, grid=vision.grid, device=device)
    if encoder.sha256 != vision.encoder_sha256:
        raise CheckpointError(
            f"the image encoder {vision.encoder} has weights with sha256 {encoder.sha256[:12]}, "
            f"the model was trained with {vision.encoder_sha256[:12]}: put that encoder back"
        )
    return encoder


def feature_store(vision: VisionConfig) -> FeatureStore:
    """Return the features of images under a model's encoder, in the cache."""
    name = f"{vision.encoder_sha256[:16]}-{vision.positions}"
    return FeatureStore(
        cache_dir() / "image-features" / name,
        positions=vision.positions,
        feature_size=vision.feature_size,
        load_encoder=lambda: encoder_of(vision),
    )


def encoder_folder(vision: VisionConfig) -> Path | None:
    """Return where a CLIP or SigLIP encoder is; None for the one of a package."""
    return None if vision.encoder == efficientnet.NAME else Path(vision.encoder)
