"""Images from outside: opened only if they are small enough, of a known kind, and whole.

The size is read from the header before a pixel is decoded, so a file of a few kilobytes that
unpacks to gigabytes costs nothing. Limits: docs/vision.md.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minimind.errors import DataError, require
from minimind.vision.ids import KEY_DIGITS

if TYPE_CHECKING:
    from PIL.Image import Image

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
"""What is decoded. Pillow knows dozens more, old and rarely tested ones among them."""

MAX_BYTES = 16 << 20
MAX_PIXELS = 40_000_000
"""A picture of 40 megapixels is 120 MB once decoded; telephones make 12 to 50."""

_DATA_URI = re.compile(r"data:(?P<kind>[\w.+/-]*)(?P<params>(;[^,;]*)*?);base64,", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Picture:
    """A decoded image.

    Attributes:
        image: RGB, as a person would see it: upright, the first frame, on white where transparent.
        key: the first digits of the file's sha256, which the image is known by.
    """

    image: Image
    key: str


def key_of_bytes(data: bytes) -> str:
    """Return what an image file is known by."""
    return hashlib.sha256(data).hexdigest()[:KEY_DIGITS]


def decode(data: bytes, *, origin: str, max_bytes: int = MAX_BYTES) -> Picture:
    """Return the picture in a file's bytes.

    Args:
        data: PNG, JPEG, WebP, GIF or BMP.
        origin: what errors call it: a path, or a field of a request.
        max_bytes: larger files are refused unread.

    Raises:
        DataError: it is no such image, too large, or damaged.
        MissingExtraError: pillow is not installed.
    """
    if len(data) > max_bytes:
        raise DataError(
            f"{origin} has {len(data):,} bytes, the limit is {max_bytes:,}: make the image smaller"
        )
    pil: Any = require("PIL.Image", extra="vision")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # its own warning of large images: ours is an error
            image = pil.open(io.BytesIO(data), formats=FORMATS)
            _check_size(image.width, image.height, origin)
            return Picture(_as_seen(image), key_of_bytes(data))
    except pil.DecompressionBombError as error:
        raise DataError(f"{origin} has too many pixels ({error}); {_LIMIT}") from error
    except pil.UnidentifiedImageError as error:
        raise DataError(
            f"{origin} is not an image of a known kind ({', '.join(FORMATS)})"
        ) from error
    # Damaged files make Pillow's decoders raise all of these.
    except (OSError, ValueError, SyntaxError, EOFError, IndexError, MemoryError) as error:
        raise DataError(f"{origin} is a damaged image: {error}") from error


_LIMIT = f"the limit is {MAX_PIXELS:,} pixels: make the image smaller"


def _check_size(width: int, height: int, origin: str) -> None:
    if width * height > MAX_PIXELS:
        raise DataError(f"{origin} has {width:,} x {height:,} pixels; {_LIMIT}")


def _as_seen(image: Image) -> Image:
    """Return RGB pixels: turned as the camera says, transparency laid on white."""
    pil: Any = require("PIL.Image", extra="vision")
    ops: Any = require("PIL.ImageOps", extra="vision")
    # A JPEG is decoded at about the size that encoders want: much faster, no more memory.
    image.draft("RGB", (512, 512))
    image = ops.exif_transpose(image)
    if image.mode == "RGB":
        return image
    rgba = image.convert("RGBA")
    white = pil.new("RGBA", rgba.size, (255, 255, 255, 255))
    return pil.alpha_composite(white, rgba).convert("RGB")


def read_image_file(path: Path) -> bytes:
    """Return the bytes of a file that is not too large to be an image.

    Raises:
        DataError: there is none, or it is too large.
    """
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:  # before it is read
            raise DataError(
                f"{path} has {size:,} bytes, the limit is {MAX_BYTES:,}: make the image smaller"
            )
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} can't be read: {error.strerror or error}") from error


def open_image(path: str | Path) -> Picture:
    """Return the picture in a file.

    Raises:
        DataError: there is none, or `decode` refuses it.
    """
    return decode(read_image_file(Path(path)), origin=str(path))


def decode_data_uri(uri: str, *, origin: str, max_bytes: int = MAX_BYTES) -> Picture:
    """Return the picture in `data:image/png;base64,...`; nothing else is fetched.

    Raises:
        DataError: it is another kind of URL, not base64, or `decode` refuses it.
    """
    if uri[:5].lower() != "data:":
        shown = uri if len(uri) <= 60 else uri[:57] + "..."
        raise DataError(
            f"{origin} is {shown!r}: only data URIs are read (data:image/png;base64,...); "
            "this program fetches nothing from other machines"
        )
    head = _DATA_URI.match(uri)
    if head is None:
        raise DataError(f"{origin} is not a data URI in base64 (data:image/png;base64,...)")
    payload = uri[head.end() :]
    if len(payload) > max_bytes * 4 // 3 + 4:  # before it is decoded
        raise DataError(
            f"{origin} has about {len(payload) * 3 // 4:,} bytes, the limit is {max_bytes:,}: "
            "make the image smaller"
        )
    try:
        data = base64.b64decode(payload, validate=True)
    except (binascii.Error, ValueError) as error:
        raise DataError(f"{origin} is not valid base64: {error}") from error
    return decode(data, origin=origin, max_bytes=max_bytes)
