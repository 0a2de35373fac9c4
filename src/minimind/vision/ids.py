"""Token ids of images: numbers far beyond any vocabulary that say which image and which position.

Rows and prompts carry them in place of words, so queues, packers and prefix caches need to know
nothing of images: the same picture twice is the same ids, another picture is others.
"""

from __future__ import annotations

from minimind.errors import ConfigError

FIRST_IMAGE_ID = 1 << 62
"""Ids from here on are positions of images."""

KEY_DIGITS = 12
"""Hexadecimal digits of the checksum of its file that an image is known by: 48 bits."""

_POSITION_BITS = 12


def image_ids(key: str, positions: int) -> list[int]:
    """Return the ids of an image's positions.

    Args:
        key: the first `KEY_DIGITS` digits of its checksum, or more.
        positions: how many.

    Raises:
        ConfigError: more positions than an id can count.
    """
    if positions > 1 << _POSITION_BITS:
        raise ConfigError(f"an image of {positions} tokens: at most {1 << _POSITION_BITS}")
    first = FIRST_IMAGE_ID + (int(key[:KEY_DIGITS], 16) << _POSITION_BITS)
    return list(range(first, first + positions))


def is_image_id(token: int) -> bool:
    """Tell whether an id is a position of an image."""
    return token >= FIRST_IMAGE_ID


def key_of(token: int) -> str:
    """Return the key of the image that an id belongs to."""
    return f"{(token - FIRST_IMAGE_ID) >> _POSITION_BITS:0{KEY_DIGITS}x}"


def position_of(token: int) -> int:
    """Return which position of its image an id is."""
    return (token - FIRST_IMAGE_ID) & ((1 << _POSITION_BITS) - 1)
