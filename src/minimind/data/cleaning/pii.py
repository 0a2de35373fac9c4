# ruff: noqa: E501 - ruff counts a hanzi as two columns
"""Personal data, masked: what identifies a person is replaced by the name of its kind."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date

from minimind.data.cleaning.page import Change, Edited, Editor, Page

KINDS = (
    "id-number",
    "bank-card",
    "phone",
    "email",
    "address",
    "plate",
    "passport",
    "ip",
    "account",
)
MASKS: dict[str, str] = dict(zip(KINDS, ("[身份证号]", "[银行卡号]", "[电话]", "[邮箱]", "[地址]", "[车牌]", "[护照号]",
                         "[IP]", "[账号]"), strict=True))  # fmt: skip
_CONTEXT = 16

# Each begins with a plain set of characters: the regular expression engine then skips fast.
_DIGITS = re.compile(r"[0-9][0-9 \-]{5,28}[0-9Xx]")
_MOBILE = re.compile(r"(?:(?:\+?86|0086)[- ]?)?(1[3-9][0-9][ \-]?[0-9]{4}[ \-]?[0-9]{4})")
_LANDLINE = re.compile(r"0(?:10|2[0-57-9]|[3-9][0-9]{2})[- ]?[2-8][0-9]{6,7}(?:-[0-9]{1,4})?")
_SERVICE = re.compile(r"[48]00[- ]?[0-9]{3,4}[- ]?[0-9]{3,4}")
_CALL_WORD = re.compile(
    r"(?:电话|手机|热线|座机|传真|致电|拨打|联系方式|(?<![A-Za-z])[Tt][Ee][Ll])[^0-9\n]{0,8}\Z"
)
_EMAIL = re.compile(
    r"[A-Za-z0-9][A-Za-z0-9._%+\-]{0,63}@[A-Za-z0-9](?:[A-Za-z0-9\-]{0,62}\.)+[A-Za-z]{2,12}(?![A-Za-z0-9])"
)
_HOUSE = re.compile(
    r"[路街道巷弄村](?:[东西南北中一二三四五六七八九]段)?[0-9一二三四五六七八九十百]{1,5}号"
    r"(?:[一-鿿]{0,8}[0-9A-Za-z一二三四五六七八九十]{1,4}(?:号楼|栋|幢|座|单元|楼|层|室|号|户)){0,4}"
)
_DISTRICT = re.compile(
    r"(?:[一-鿿]{2,7}(?:省|自治区))?(?:[一-鿿]{2,6}市)?[一-鿿]{1,6}[市区县旗镇乡](?:[一-鿿]{1,6}(?:镇|乡|街道))?"
    r"[一-鿿0-9]{1,8}\Z"
)
_PLATE = re.compile(
    r"[京津沪渝冀豫云辽黑湘皖鲁新苏浙赣鄂桂甘晋蒙陕吉闽贵粤青藏川宁琼][A-HJ-NP-Z]"
    r"[·• ]?[A-HJ-NP-Z0-9]{5,6}(?![A-Za-z0-9])"
)
_PASSPORT = re.compile(r"护照[^A-Za-z0-9\n]{0,8}([EGDSPH][A-Z]?[0-9]{7,8})(?![0-9])")
_IP = re.compile(r"[0-9]{1,3}(?:\.[0-9]{1,3}){3}")
_ACCOUNT = re.compile(
    r"(?:微信号?|支付宝|(?<![A-Za-z0-9$./_])(?:[Ww]e[Cc]hat|[VvＶ][Xx信]|[Qq]{2}群?))(?:号码|账号|帐号|号)?\s{0,2}[:：是为]?\s{0,2}"
    r"([A-Za-z][A-Za-z0-9_\-]{5,19}|[1-9][0-9]{4,11})(?![A-Za-z0-9])"
)
_WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
_CHECKS = "10X98765432"

Span = tuple[int, int, str]


def is_id_number(digits: str) -> bool:
    """Tell whether these are 18 digits of a citizen's number: region, date and checksum (GB 11643).

    The old 15 digits have no checksum; they count with a region and a date.
    """
    if not re.fullmatch(r"[1-8][0-9]{16}[0-9Xx]|[1-6][0-9]{14}", digits):
        return False
    born = digits[6:14] if len(digits) == 18 else f"19{digits[6:12]}"
    try:
        year = date(int(born[:4]), int(born[4:6]), int(born[6:])).year
    except ValueError:
        return False
    if not 1900 <= year <= 2035 or digits[:2] not in _REGIONS:
        return False
    if len(digits) == 15:
        return True
    total = sum(w * int(d) for w, d in zip(_WEIGHTS, digits[:17], strict=True))
    return _CHECKS[total % 11] == digits[17].upper()


_REGIONS = {str(code) for first, last in ((11, 16), (21, 24), (31, 38), (41, 47), (50, 55), (61, 66),
                                          (71, 72), (81, 84)) for code in range(first, last)}  # fmt: skip


def is_bank_card(digits: str) -> bool:
    """Tell whether these digits begin like a card (UnionPay, Visa, Mastercard) and pass Luhn."""
    if not re.fullmatch(r"(?:62|4[0-9]|5[1-5]|9[5689]|60)(?:[0-9]{14}|[0-9]{17})", digits):
        return False
    total = 0
    for place, digit in enumerate(reversed(digits)):
        value = int(digit) * (1 + place % 2)
        total += value - 9 if value > 9 else value
    return total % 10 == 0 and len(set(digits)) > 1


def _numbers(text: str) -> Iterator[Span]:
    for run in _DIGITS.finditer(text):
        start, end = run.span()
        before, after = text[max(start - 1, 0) : start], text[end : end + 1]
        if before.isascii() and (before.isalnum() or before in "._/=%&#") and before:
            continue
        if after.isascii() and (after.isalnum() or after in "_/=%") and after:
            continue
        yield from _run_kinds(text, start, end)


def _run_kinds(text: str, start: int, end: int) -> Iterator[Span]:
    """Yield what a run of digits, spaces and dashes holds: the whole of it, else its parts."""
    run = text[start:end]
    digits = re.sub(r"[ \-]", "", run)
    grouped = re.fullmatch(r"[0-9]{4}([ \-])[0-9]{4}\1[0-9]{4}\1[0-9]{4}(?:\1[0-9]{1,3})?", run)
    named = "证" in text[max(start - _CONTEXT, 0) : start]
    if is_id_number(digits) and run == digits and (len(digits) == 18 or named):
        yield start, end, "id-number"
        return
    if is_bank_card(digits) and (grouped or len(run) == len(digits)):
        yield start, end, "bank-card"
        return
    if _MOBILE.fullmatch(run) or _LANDLINE.fullmatch(run):
        yield start - (text[start - 1 : start] == "+"), end, "phone"
        return
    years = re.fullmatch(r"[12][0-9]{3}[ \-]{1,3}[12][0-9]{3}", run)
    callable_ = not years and (_SERVICE.fullmatch(run) or 7 <= len(digits) <= 8)
    if callable_ and _CALL_WORD.search(text, max(start - _CONTEXT, 0), start):
        yield start, end, "phone"
        return
    if len(run) > len(digits):  # several numbers in a row
        at = start
        for part in re.split(r"([ ]+)", run):
            if part.strip() and part != run:
                yield from _run_kinds(text, at, at + len(part))
            at += len(part)


def _addresses(text: str) -> Iterator[Span]:
    """Yield house addresses: a district before the street, or a room after the house."""
    for house in _HOUSE.finditer(text):
        start, end = house.span()
        left = text[max(start - 30, 0) : start]
        found = _DISTRICT.search(re.split(r"[^一-鿿0-9]", left)[-1])
        if found is None or not found[0]:
            continue
        yield start - len(found[0]), end, "address"


def _matches(
    pattern: re.Pattern[str], kind: str, group: int = 0
) -> Callable[[str], Iterator[Span]]:
    def find(text: str) -> Iterator[Span]:
        for found in pattern.finditer(text):
            yield found.start(group), found.end(group), kind

    return find


def _plates(text: str) -> Iterator[Span]:
    for found in _PLATE.finditer(text):
        if sum(character.isdigit() for character in found[0]) >= 3:
            yield found.start(), found.end(), "plate"


def _ips(text: str) -> Iterator[Span]:
    """Yield public IPv4 addresses: not private, reserved or documentation ones, not versions."""
    import ipaddress

    for found in _IP.finditer(text):
        start, end = found.span()
        around = text[max(start - 1, 0) : start] + text[end : end + 1]
        if any(c.isascii() and (c.isalnum() or c == ".") for c in around):
            continue
        try:
            # `5.2.1.1` is a section: short ones are left alone.
            if len(found[0]) >= 10 and ipaddress.ip_address(found[0]).is_global:
                yield start, end, "ip"
        except ValueError:
            continue


_FINDERS: dict[str, tuple[str, Callable[[str], Iterator[Span]]]] = {
    "email": ("@", _matches(_EMAIL, "email")),
    "address": ("号", _addresses),
    "plate": ("", _plates),
    "passport": ("护照", _matches(_PASSPORT, "passport", 1)),
    "ip": (".", _ips),
    "account": ("", _matches(_ACCOUNT, "account", 1)),
}


def find(text: str, kinds: tuple[str, ...] = KINDS) -> list[Span]:
    """Return (from, to, kind) of personal data, in order, without overlaps."""
    spans: list[Span] = []
    if {"id-number", "bank-card", "phone"} & set(kinds):
        spans += [span for span in _numbers(text) if span[2] in kinds]
    for kind, (sign, finder) in _FINDERS.items():
        if kind in kinds and sign in text:
            spans += finder(text)
    kept: list[Span] = []
    for span in sorted(spans, key=lambda span: (span[0], -span[1])):
        if not kept or span[0] >= kept[-1][1]:
            kept.append(span)
    return kept


@dataclass(frozen=True, kw_only=True)
class PersonalData(Editor):
    """ID numbers (checksum), bank cards (Luhn), phones, e-mail, addresses, plates, passports.

    `ip` and `account` (messenger names) are kinds too. What is found is masked, and counted by
    kind; the log never holds it.
    """

    kinds: tuple[str, ...] = KINDS

    def __post_init__(self) -> None:
        from minimind.errors import ConfigError, did_you_mean

        for kind in self.kinds:
            if kind not in KINDS:
                raise ConfigError(
                    f"rules.pii.kinds has {kind!r}.{did_you_mean(kind, KINDS)} "
                    f"Kinds: {', '.join(KINDS)}"
                )

    def edit(self, page: Page) -> Edited | None:
        """Return the text with masks."""
        text = page.text
        if not (spans := find(text, self.kinds)):
            return None
        edited, parts, at = Edited(""), [], 0
        for start, end, kind in spans:
            parts += [text[at:start], MASKS[kind]]
            at = end
            edited.counts[kind] = edited.counts.get(kind, 0) + 1
        edited.text = "".join([*parts, text[at:]])
        edited.changes = [Change(kind, "", _around(edited.text, MASKS[kind])) for kind in
                          dict.fromkeys(span[2] for span in spans)]  # fmt: skip
        return edited


def _around(text: str, mask: str) -> str:
    at = text.index(mask)
    return text[max(at - 24, 0) : at + len(mask) + 24]
