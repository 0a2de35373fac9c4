"""What a checkpoint of a model that sees has beside its language model.

config.json            `minimind_vision`: the encoder's name and checksum, and the projector's sizes
projector.safetensors  the projector's weights

model.safetensors holds the language model alone, so that every program that loads a checkpoint of
ours loads this one as well and reads text with it. The frozen encoder is not in it.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from torch import Tensor

from minimind.config import ModelConfig, VisionConfig
from minimind.errors import CheckpointError
from minimind.model.vision import PROJECTOR

FILE = "projector.safetensors"
KEY = "minimind_vision"


def mark(values: dict[str, Any], config: ModelConfig) -> dict[str, Any]:
    """Return the config.json of `config`'s language model with what belongs to its eyes."""
    if config.vision is None:
        return values
    return values | {KEY: dataclasses.asdict(config.vision)}


def unmark(values: dict[str, Any]) -> tuple[dict[str, Any], VisionConfig | None]:
    """Return a config.json without what belongs to eyes, and that.

    Raises:
        CheckpointError: it is not what `mark` writes.
    """
    if KEY not in values:
        return values, None
    rest = {name: value for name, value in values.items() if name != KEY}
    try:
        return rest, VisionConfig(**values[KEY])
    except TypeError as error:
        raise CheckpointError(f"config.json: {KEY} is damaged: {error}") from error


def parted(tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return the tensors of the language model, and those of the projector."""
    eyes = {name: tensor for name, tensor in tensors.items() if name.startswith(PROJECTOR)}
    return {name: tensors[name] for name in tensors if name not in eyes}, eyes
