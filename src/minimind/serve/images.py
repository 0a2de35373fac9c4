"""Images in requests: `image_url` parts with data URIs, as OpenAI's clients send them.

Nothing is fetched from anywhere. An image is decoded and encoded on a thread of its own, so that
others' tokens go on coming.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

from minimind.errors import DataError
from minimind.serve.errors import bad_request
from minimind.serve.protocol import ChatMessage, ImagePart
from minimind.serve.registry import Served
from minimind.vision.images import decode_data_uri

if TYPE_CHECKING:
    from minimind.model.vision import SeenImage


async def see(served: Served, messages: Sequence[ChatMessage]) -> list[SeenImage]:
    """Return the images of a conversation, in order, as the model reads them.

    Raises:
        ApiError: 400; the model can't see, the images alone fill its context, or one is no image
            that can be read. `param` is its place.
    """
    parts = [
        (f"messages[{m}].content[{p}].image_url.url", part.image_url.url)
        for m, message in enumerate(messages)
        if isinstance(message.content, list)
        for p, part in enumerate(message.content)
        if isinstance(part, ImagePart)
    ]
    if not parts:
        return []
    eyes = served.eyes
    if eyes is None:
        raise bad_request(
            f"The model '{served.id}' can't see images: it was trained on text only.",
            param=parts[0][0],
            code="invalid_value",
        )
    # Before any of them is decoded: how many there may be is known without that.
    most = served.backend.context_length // eyes.positions
    if len(parts) > most:
        raise bad_request(
            f"{len(parts)} images: each takes {eyes.positions} tokens, and this model's maximum "
            f"context length is {served.backend.context_length}. Send fewer.",
            param=parts[most][0],
            code="context_length_exceeded",
        )
    images: list[SeenImage] = []
    for param, url in parts:
        try:
            picture = await asyncio.to_thread(decode_data_uri, url, origin=f"'{param}'")
            images.append(await asyncio.to_thread(eyes.look, picture))
        except DataError as error:
            raise bad_request(str(error) + ".", param=param, code="invalid_value") from error
    return images
