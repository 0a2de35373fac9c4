"""CLIP and SigLIP vision encoders from directories as transformers saves them.

The features are the hidden states before the last layer, as LLaVA takes them (Liu et al. 2023);
CLIP's class token is left out. SigLIP has none.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from minimind.errors import CheckpointError, require
from minimind.vision.encoder import pixels

if TYPE_CHECKING:
    from PIL.Image import Image

LAYER = -2
"""Which hidden states: LLaVA's `vision_feature_layer`."""

Family = Literal["clip_vision_model", "siglip_vision_model"]
_CLASSES: dict[str, tuple[str, Family]] = {
    "clip": ("CLIPVisionModel", "clip_vision_model"),
    "clip_vision_model": ("CLIPVisionModel", "clip_vision_model"),
    "siglip": ("SiglipVisionModel", "siglip_vision_model"),
    "siglip_vision_model": ("SiglipVisionModel", "siglip_vision_model"),
}
_DEFAULT_STATISTICS: dict[Family, tuple[list[float], list[float]]] = {
    # What OpenAI's CLIP and Google's SigLIP were trained with; a preprocessor_config.json wins.
    "clip_vision_model": (
        [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
    ),
    "siglip_vision_model": ([0.5, 0.5, 0.5], [0.5, 0.5, 0.5]),
}  # fmt: skip


class HuggingFaceEncoder:
    """A CLIP or SigLIP tower, loaded by transformers.

    Attributes:
        model: transformers' own, in eval mode.
        family: `clip_vision_model` or `siglip_vision_model`.
        name: the directory.
        sha256: of model.safetensors.
    """

    def __init__(self, directory: str | Path, *, device: torch.device | str = "cpu") -> None:
        """Load a directory (of the vision tower alone, or of the whole CLIP or SigLIP).

        Raises:
            CheckpointError: it is neither.
            MissingExtraError: transformers is not installed.
        """
        path = Path(directory).expanduser()
        kind = _model_type(path)
        transformers: Any = require("transformers", extra="reference")
        class_name, self.family = _CLASSES[kind]
        self.name, self.device = str(path.resolve()), torch.device(device)
        self.sha256 = _sha256_of_weights(path)
        try:
            model = getattr(transformers, class_name).from_pretrained(
                str(path), dtype=torch.float32, local_files_only=True
            )
        except (OSError, ValueError, RuntimeError) as error:
            raise CheckpointError(f"{path}: transformers can't load it: {error}") from error
        self.model = model.to(device).eval().requires_grad_(False)
        self.size: int = model.config.image_size
        self.mean, self.std = _statistics(path, self.family)
        self.feature_size: int = model.config.hidden_size
        self.positions: int = (self.size // model.config.patch_size) ** 2

    @torch.no_grad()
    def encode(self, images: Sequence[Image]) -> Tensor:
        """Return (N, P, E) fp32, on the CPU."""
        x_NChw = pixels(images, size=self.size, mean=self.mean, std=self.std).to(self.device)
        hidden = self.model(pixel_values=x_NChw, output_hidden_states=True).hidden_states[LAYER]
        if self.family == "clip_vision_model":
            hidden = hidden[:, 1:]
        return hidden.float().cpu()


def _model_type(path: Path) -> str:
    file = path / "config.json"
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
        kind = str(values.get("model_type"))
    except (OSError, ValueError, AttributeError) as error:
        raise CheckpointError(
            f"{path}: no image encoder there ({error}); name efficientnet-lite0, or a directory "
            "with a CLIP or SigLIP model as transformers saves it"
        ) from error
    if kind not in _CLASSES:
        raise CheckpointError(
            f"{file}: model_type is {kind!r}; as image encoders there are {', '.join(_CLASSES)}"
        )
    return kind


def _sha256_of_weights(path: Path) -> str:
    import hashlib

    file = path / "model.safetensors"
    if not file.is_file():
        raise CheckpointError(f"{path} has no model.safetensors: save the encoder as one file")
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _statistics(path: Path, family: Family) -> tuple[list[float], list[float]]:
    mean, std = _DEFAULT_STATISTICS[family]
    file = path / "preprocessor_config.json"
    if not file.is_file():
        return mean, std
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
        return values.get("image_mean") or mean, values.get("image_std") or std
    except (OSError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{file} can't be read: {error}") from error
