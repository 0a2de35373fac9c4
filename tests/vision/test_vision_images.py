"""Images from outside: what is refused, and what is seen of those that are not."""

import base64
import io
import struct
import zlib

import pytest
from PIL import Image

from minimind.errors import DataError
from minimind.vision.images import MAX_BYTES, decode, decode_data_uri, open_image


def png(image: Image.Image, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few kilobytes that claims, and has, so many pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes((width // 8 + 1) * height), 9)
    whole = chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + whole


def test_a_bomb_of_a_hundred_megapixels_is_refused_unread():
    data = bomb(10_000, 10_000)
    assert len(data) < 20_000
    with pytest.raises(DataError, match=r"10,000 x 10,000 pixels; the limit is 40,000,000"):
        decode(data, origin="bomb.png")
    with pytest.raises(DataError, match=r"too many pixels|pixels; the limit"):
        decode(bomb(40_000, 40_000), origin="bomb.png")


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"this is a text", "not an image of a known kind"),
        (b"", "not an image of a known kind"),
        (png(Image.radial_gradient("L"))[:400], "damaged"),
        (b"GIF89a" + bytes(40), "damaged|not an image"),
        (png(Image.new("RGB", (4, 4)), "TIFF"), "not an image of a known kind"),
        (bytes(MAX_BYTES + 1), "bytes, the limit is"),
    ],
)
def test_what_is_no_image(data, why):
    with pytest.raises(DataError, match=why) as refused:
        decode(data, origin="a.png")
    assert str(refused.value).startswith("a.png")


def test_transparent_is_white_and_a_turned_photograph_is_upright():
    clear = Image.new("RGBA", (2, 1), (255, 0, 0, 0))
    clear.putpixel((1, 0), (10, 20, 30, 255))
    seen = decode(png(clear), origin="a").image
    assert [seen.getpixel((x, 0)) for x in (0, 1)] == [(255, 255, 255), (10, 20, 30)]
    photograph = Image.new("RGB", (40, 20))
    exif = photograph.getexif()
    exif[0x0112] = 6  # the camera was held sideways
    buffer = io.BytesIO()
    photograph.save(buffer, "JPEG", exif=exif)
    assert decode(buffer.getvalue(), origin="a").image.size == (20, 40)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(DataError, match="can't be read"):
        open_image(tmp_path / "none.png")


def test_data_uris():
    data = png(Image.new("RGB", (3, 3), (1, 2, 3)))
    uri = "data:image/png;base64," + base64.b64encode(data).decode()
    assert decode_data_uri(uri, origin="url").image.getpixel((0, 0)) == (1, 2, 3)
    for wrong, why in (
        ("https://example.com/a.png", "fetches nothing"),
        ("file:///etc/passwd", "fetches nothing"),
        ("data:image/png,abc", "not a data URI in base64"),
        ("data:image/png;base64,@@@", "not valid base64"),
        ("data:image/png;base64," + base64.b64encode(b"text").decode(), "not an image"),
    ):
        with pytest.raises(DataError, match=why):
            decode_data_uri(wrong, origin="url")
    with pytest.raises(DataError, match="the limit is 20"):
        decode_data_uri(uri, origin="url", max_bytes=20)
