"""Images in a conversation with a model: opened, encoded, and given their token ids."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

from minimind.data.images import encoder_of
from minimind.errors import DataError
from minimind.model import CausalLM
from minimind.model.vision import SeenImage
from minimind.vision.encoder import ImageEncoder
from minimind.vision.images import Picture, open_image


class Eyes:
    """The encoder that a model was trained with, and the model's projector.

    From any thread; two images are encoded side by side.

    Args:
        model: generates from the ids that `look` gives.

    Raises:
        DataError: the model can't see.
        CheckpointError, FetchError: its encoder can't be had.
    """

    def __init__(self, model: CausalLM) -> None:
        sight, vision = model.multi_modal_projector, model.config.vision
        if sight is None or vision is None:
            raise DataError(
                "this model can't see images: it was trained on text only. `minimind train vision` "
                "gives a checkpoint eyes"
            )
        self._sight = sight
        self._encoder: ImageEncoder = encoder_of(vision)
        self._lock = threading.Lock()

    @property
    def positions(self) -> int:
        """Return how many tokens an image takes."""
        return self._encoder.positions

    def look(self, picture: Picture) -> SeenImage:
        """Return a picture as the model reads it; hold it until the prompt with it was read."""
        known = self._sight.find(picture.key)
        if known is not None:
            return known
        # As the store of features rounds them, so that it is what the model was trained on.
        features_PE = self._encoder.encode([picture.image])[0].half().float()
        with self._lock:
            return self._sight.see(picture.key, features_PE)


def look_at(model: CausalLM, paths: Sequence[str | Path]) -> list[SeenImage]:
    """Return image files as the model reads them.

    Raises:
        DataError: the model can't see, or a file is no image.
    """
    pictures = [open_image(path) for path in paths]
    eyes = Eyes(model)
    return [eyes.look(picture) for picture in pictures]
