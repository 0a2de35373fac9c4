"""An image that goes with a message: opened safely, made small, sent as a data URI."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from pathlib import Path

from minimind.vision.images import open_image

LONGEST_SIDE = 448
"""Pixels. Encoders look at 224 to 384: a larger picture would only fill the request."""


@dataclass(frozen=True, slots=True)
class Attached:
    """A picture that was chosen on the page.

    Attributes:
        path: of the uploaded file, which the page shows.
        name: what it was called.
        uri: what is sent.
    """

    path: str
    name: str
    uri: str


def attach(path: str) -> Attached:
    """Return an uploaded file as it is sent.

    Raises:
        DataError: it is no image, damaged, or too large.
    """
    image = open_image(path).image
    image.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    if buffer.tell() > 256 << 10:  # photographs: lossless would be several times as much
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=90)
    kind = "png" if buffer.getvalue().startswith(b"\x89PNG") else "jpeg"
    packed = base64.b64encode(buffer.getvalue()).decode()
    return Attached(path, Path(path).name, f"data:image/{kind};base64,{packed}")
