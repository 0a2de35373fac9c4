# ruff: noqa: E501 - ruff counts a hanzi as two columns
"""Which licence a document is under: by its metadata, and by what its page says of itself."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from minimind.data.cleaning.page import Drop, Filter, Page
from minimind.errors import ConfigError, did_you_mean

CLASSES = ("public-domain", "permissive", "cc-by", "cc-by-sa", "copyleft", "cc-nc", "cc-nd",
           "reserved", "unknown")  # fmt: skip
"""From the freest to the least known; `reserved` says that all rights are reserved."""

META_KEYS = ("licence", "license", "rights")

_NAMES: tuple[tuple[str, re.Pattern[str]], ...] = tuple(
    (name, re.compile(pattern, re.IGNORECASE))
    for name, pattern in (
        ("cc-nc", r"\bNC\b|non-?commercial|非商业"),
        ("cc-nd", r"\bND\b|no-?deriv|禁止演绎"),
        ("public-domain", r"public.?domain|\bCC.?0|\bPDDL|unlicense|公有领域|公共领域|not under copyright"
                          r"|无版权|不适用著作权|zero/1\.0|publicdomain/mark"),
        ("cc-by-sa", r"by[- ]?sa|share.?alike|相同方式共享"),
        ("cc-by", r"cc[- ]?by|creativecommons\.org/licenses/by|知识共享署名|\battribution\b"),
        ("copyleft", r"\b[AL]?GPL|\bGFDL|\bFDL\b|\bMPL|\bEPL|free documentation licen"),
        ("permissive", r"\bMIT\b|apache|\bBSD|\bISC\b|\bPSF|\bzlib\b|mulan|木兰|政府开放数据|\bODC-?BY\b"),
        ("reserved", r"all rights reserved|版权所有|proprietary|private"),
    )
)  # fmt: skip

_DEED = re.compile(
    r"creativecommons\.org/(?:licenses/(by(?:-(?:nc|nd|sa)){0,2})|publicdomain/(zero|mark))", re.I
)
_SUBJECT = (
    r"(?:本文|本站|本作品|本网站|本博客|本书|本页|全站|除特别(?:声明|注明)外|文章|内容|作品|文字)"
)
_STATED = re.compile(
    _SUBJECT + r"[^。\n]{0,30}?(?:采用|遵循|基于|使用|依照|适用|按照|以)[^。\n]{0,12}?"
    r"((?:知识共享|创作共用|CC|Creative ?Commons)[^。\n]{2,48})", re.I,
)  # fmt: skip
_BARE = re.compile(r"\bCC[- ](BY(?:[- ](?:NC|ND|SA)){0,2})(?:[- ]?[1-4]\.0)?\b")
_LABEL = re.compile(r"(?:许可|授权|协议|版权|声明|licen[sc]e|©)[^\n]{0,20}\Z", re.I)
_FORBIDDEN = re.compile(
    r"未经[^。\n]{0,12}?(?:许可|授权|同意|允许)[^。\n]{0,10}?(?:不得|禁止|严禁|请勿)[^。\n]{0,10}?"
    r"(?:转载|复制|摘编|传播)|(?:禁止|谢绝|严禁|不得)[^。，、\n]{0,4}转载(?![、，]?运)|版权所有[^。\n]{0,12}(?:翻印必究|侵权必究|不得转载)"
    r"|转载请?(?:须|需)?(?:联系|征得)[^。\n]{0,8}(?:授权|同意)|[Aa]ll [Rr]ights [Rr]eserved(?!.{0,90}?(?:free|redistribut|permi))",
    re.DOTALL,
)
_ARTICLE = re.compile(r"^第[一二三四五六七八九十百千零〇0-9]{1,7}条", re.MULTILINE)
_ITSELF = re.compile(r"本(?:站|网|文|书|刊|报|博客|平台|作品|公司|公众号)")
_STATUTE = 3
"""From so many articles on a page is a statute: what it forbids it forbids others."""
_EDGE = 1_500
"""A page speaks of its own licence at its head or foot; in the middle it speaks of licences."""


@lru_cache(maxsize=4096)
def licence_class(name: str) -> str:
    """Return the class of a licence by name, SPDX identifier or link."""
    return next((kind for kind, pattern in _NAMES if pattern.search(name)), "unknown")


def stated_licence(text: str) -> tuple[str, int, int] | None:
    """Return (class, from, to) of what a page says of its own licence, or None.

    The least free statement counts.
    """
    parts = [(0, text)]
    if len(text) > 2 * _EDGE:
        parts = [(0, text[:_EDGE]), (len(text) - _EDGE, text[-_EDGE:])]
    found = [(kind, at + start, at + end) for at, part in parts
             for kind, start, end in _statements(part)]  # fmt: skip
    return max(found, key=lambda item: CLASSES.index(item[0]), default=None)


def _statements(part: str) -> Iterator[tuple[str, int, int]]:
    for deed in _DEED.finditer(part):
        # `publicdomain/` links carry no name of a licence; the others do.
        yield licence_class(f"cc {deed[1]}" if deed[1] else "CC0"), *deed.span()
    for said in _STATED.finditer(part):
        if (kind := licence_class(said[1])) != "unknown":
            yield kind, *said.span()
    for name in _BARE.finditer(part):
        if _LABEL.search(part, max(name.start() - 30, 0), name.start()):
            yield licence_class(f"CC {name[1]}"), *name.span()
    statute = len(_ARTICLE.findall(part)) >= _STATUTE
    for forbidden in _FORBIDDEN.finditer(part):
        if not statute or _ITSELF.search(part, forbidden.start() - 20, forbidden.end() + 20):
            yield "reserved", *forbidden.span()


@dataclass(frozen=True, kw_only=True)
class Licence(Filter):
    """A licence that isn't allowed, or none that is known.

    What a row's metadata says (`licence`, `license`, or `input.licences`) and what the page says of
    itself are both asked; the less free of the two counts. The class found goes into the output.
    """

    allow: tuple[str, ...] = ("public-domain", "permissive", "cc-by", "cc-by-sa")

    def __post_init__(self) -> None:
        for name in self.allow:
            if name not in CLASSES:
                raise ConfigError(
                    f"rules.licence.allow has {name!r}.{did_you_mean(name, CLASSES)} "
                    f"Classes: {', '.join(CLASSES)}"
                )

    def check(self, page: Page) -> Drop | None:
        """Return the licence that isn't allowed."""
        named = next((page.meta[key] for key in META_KEYS if page.meta.get(key)), "")
        kind, said = licence_class(named) if named else "unknown", stated_licence(page.text)
        if said and (kind == "unknown" or CLASSES.index(said[0]) > CLASSES.index(kind)):
            kind, spans = said[0], (said[1:],)
        else:
            spans = ()
        page.meta["licence"] = named or kind
        page.meta["licence_class"] = kind
        if kind in self.allow:
            return None
        told = f"metadata: {named}" if named and not spans else "the page says so"
        if kind == "unknown":
            told = f"{named!r} names none" if named else "neither metadata nor the page name one"
        return Drop(f"{kind} ({told})", spans)
