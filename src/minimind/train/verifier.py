"""Check the final answer of a worked solution in primary-school mathematics, in Chinese.

Cautious on purpose: an answer is `wrong` only if the right value is nowhere in its conclusion, and
`unclear` rather than guessed at. Only the final value is checked, never the way to it.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

Verdict = Literal["right", "wrong", "unclear"]

# unit: (dimension, size in the dimension's base unit)
UNITS: dict[str, tuple[str, Fraction]] = {
    name: (dimension, Fraction(size))
    for dimension, table in {
        "length": {"千米 公里 km": "1000", "米 m": "1", "分米 dm": "1/10", "厘米 cm": "1/100",
                   "毫米 mm": "1/1000"},
        "area": {"平方千米 平方公里 km^2": "1000000", "公顷": "10000", "平方米 m^2": "1",
                 "平方分米 dm^2": "1/100", "平方厘米 cm^2": "1/10000",
                 "平方毫米 mm^2": "1/1000000"},
        "volume": {"立方米 m^3": "1000", "立方分米 dm^3 升 l L": "1",
                   "立方厘米 cm^3 毫升 ml mL": "1/1000"},
        "mass": {"吨 t": "1000000", "千克 公斤 kg": "1000", "克 g": "1"},
        "money": {"元 块": "1", "角": "1/10"},
        "time": {"天": "86400", "小时 时 h": "3600", "分钟 min": "60", "秒 s": "1"},
        "percent": {"%": "1/100"},
    }.items()
    for names, size in table.items()
    for name in names.split()
}  # fmt: skip
# 分 is a minute after hours and a hundredth of a yuan after money; alone it may be a mark.
_SMALL_PARTS = {"money": Fraction(1, 100), "time": Fraction(60)}

_PLAIN = r"\d+(?:\.\d+)?"
_NUMBER = re.compile(
    r"(?<![\d.^A-Za-z])"
    r"(?P<sign>(?:^|(?<=[=:是为示得(]))-)?"
    rf"(?:(?P<whole>\d+)(?:又|\s+(?=\d+/\d)))?"
    rf"(?:(?P<top>{_PLAIN})/(?P<bottom>{_PLAIN})"
    rf"|(?P<under>\d+)分之(?P<over>\d+)"
    rf"|(?P<plain>{_PLAIN}))"
)
_UNIT = re.compile(
    r"\s*[(\[]?(?P<unit>" + "|".join(sorted(map(re.escape, UNITS), key=len, reverse=True)) + "|分)"
    r"(?![A-Za-z])"
)
_DIGITS = {digit: value for value, digit in enumerate("零一二三四五六七八九")} | {"两": 2, "〇": 0}
_SCALES = {"十": 10, "百": 100, "千": 1_000}
_HANZI_NUMBER = re.compile(r"[零〇一二两三四五六七八九十百千万]+")
# Not 解答：or 回答：, which begin a solution.
_NO_NUMBER = re.compile(r"一(?=[共些样起定般])")
_MARK = re.compile(r"(?<![解回])答案?(?:是|为)?\s*:|\\boxed|答案(?:是|为)")


@dataclass(frozen=True, slots=True)
class Quantity:
    """A number, with the unit where it is one that can be converted."""

    value: Fraction
    unit: str | None = None

    def may_equal(self, other: Quantity) -> bool:
        """Tell whether both can mean the same amount.

        A missing unit fits any (`15` and `15元`), 25% also fits 0.25, and units of one dimension
        are converted.
        """
        if self.unit is None or other.unit is None:
            values = {self.value} | ({self.value / 100} if self.unit == "%" else set())
            return bool(
                values & ({other.value} | ({other.value / 100} if other.unit == "%" else set()))
            )
        (mine, size), (theirs, other_size) = UNITS[self.unit], UNITS[other.unit]
        return mine == theirs and self.value * size == other.value * other_size


def normalise(text: str) -> str:
    """Return text with half-width digits and signs, plain fractions, no thousands separators."""
    text = text.replace("²", "^2").replace("³", "^3")
    text = re.sub(r"(\d)([½⅓⅔¼¾⅕⅛])", r"\1又\2", text)
    text = unicodedata.normalize("NFKC", text)
    text = re.sub(r"\\d?frac\s*\{(\d+)\}\s*\{(\d+)\}", r"\1/\2", text)
    text = text.replace("⁄", "/").replace("∕", "/").replace("−", "-").replace("–", "-")
    text = text.replace("$", "").replace("**", "")
    text = re.sub(r"([=:是为示得])\s+-(?=\d)", r"\1-", text)
    text = re.sub(r"(?<=\d)\s*/\s*(?=\d)", "/", text)
    text = re.sub(r"(?<![\d.,])\d{1,3}(?:,\d{3})+(?!\d|,)", lambda m: m[0].replace(",", ""), text)
    return re.sub(r"百分之(\d+(?:\.\d+)?)", r"\1%", _hanzi_fractions(text))


def _hanzi_fractions(text: str) -> str:
    """Write 五分之三 as 5分之3 and 百分之二十 as 百分之20."""

    def digits(match: re.Match[str]) -> str:
        under = "百" if match[1] == "百" else str(hanzi_value(match[1]))
        return f"{under}分之{hanzi_value(match[2])}"

    number = _HANZI_NUMBER.pattern
    return re.sub(rf"({number})分之({number})", digits, text)


def hanzi_value(text: str) -> int:
    """Return the number that Chinese numerals spell: 三百零五 is 305, 两万 is 20,000."""
    total = section = digit = 0
    if len(text) > 1 and all(char in _DIGITS for char in text):
        return int("".join(str(_DIGITS[char]) for char in text))
    for char in text:
        if char in _DIGITS:
            digit = _DIGITS[char]
        elif char == "万":
            total, section, digit = (total + section + digit) * 10_000, 0, 0
        else:
            section += (digit or 1) * _SCALES[char]
            digit = 0
    return total + section + digit


def quantities(text: str) -> list[Quantity]:
    """Return the quantities in `text`, in order; 3米5厘米 is one of them."""
    found: list[tuple[Quantity, int, int]] = []
    text = normalise(text)
    for quantity, start, end in _plain_quantities(text):
        if found and found[-1][2] == start and (joined := _joined(found[-1][0], quantity)):
            found[-1] = (joined, found[-1][1], end)
        else:
            found.append((quantity, start, end))
    if not found:
        words = _NO_NUMBER.sub("", text)
        return [Quantity(Fraction(hanzi_value(m[0]))) for m in _HANZI_NUMBER.finditer(words)]
    return [
        Quantity(quantity.value, None) if quantity.unit == "分" else quantity
        for quantity, _, _ in found
    ]


def _plain_quantities(text: str) -> Iterator[tuple[Quantity, int, int]]:
    for match in _NUMBER.finditer(text):
        top, bottom = match["top"] or match["over"], match["bottom"] or match["under"]
        if bottom is not None and Fraction(bottom) == 0:
            continue
        value = Fraction(top) / Fraction(bottom) if bottom else Fraction(match["plain"])
        value = (value + int(match["whole"] or 0)) * (-1 if match["sign"] else 1)
        unit = _UNIT.match(text, match.end())
        if unit is None:
            yield Quantity(value), match.start(), match.end()
        else:
            yield Quantity(value, unit["unit"]), match.start(), unit.end()


def _joined(large: Quantity, small: Quantity) -> Quantity | None:
    """Return 3米5厘米 as 3.05米, or None if the two don't belong together."""
    if large.unit not in UNITS:
        return None
    dimension, size = UNITS[large.unit]
    if small.unit == "分" and dimension in _SMALL_PARTS:
        small_size = _SMALL_PARTS[dimension]
    elif small.unit in UNITS and UNITS[small.unit][0] == dimension:
        small_size = UNITS[small.unit][1]
    else:
        return None
    if small_size >= size:
        return None
    return Quantity(large.value + small.value * small_size / size, large.unit)


def conclusion(text: str) -> str:
    r"""Return the part of a solution that states its answer.

    What follows the last 答：, 答案： or \boxed; else the last line, after its last equals sign.
    """
    text = normalise(text).strip()
    marks = list(_MARK.finditer(text))
    if marks:
        return text[marks[-1].end() :].strip()
    return text.rpartition("\n")[2].rpartition("=")[2]


def parse_value(value: object) -> Quantity | None:
    """Return what a data set's answer value means, or None where it isn't a single number."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    text = normalise(str(value)).strip()
    found = quantities(text) if any(char.isdigit() for char in text) else []
    rest = _UNIT.sub("", _NUMBER.sub("", text)).strip(" ()[]。.^23°")
    only_number = len(found) == 1 and (not rest or re.fullmatch(r"[^\W\d_]{1,2}", rest))
    return found[0] if only_number else None


def expected_answer(value: object, solution: str) -> Quantity | None:
    """Return the right answer, with the unit that the published solution states."""
    expected = parse_value(value)
    if expected is None or expected.unit is not None:
        return expected
    stated = [q for q in quantities(conclusion(solution)) if q.unit and q.value == expected.value]
    return stated[-1] if stated else expected


def verify(answer: str, expected: Quantity) -> Verdict:
    """Compare the conclusion of `answer` with the right value."""
    stated = conclusion(answer)
    found = quantities(stated)
    if not found:
        return "unclear"
    agreeing = [quantity.may_equal(expected) for quantity in found]
    if not any(agreeing):
        marked = _MARK.search(normalise(answer))
        anywhere = any(quantity.may_equal(expected) for quantity in quantities(answer))
        # Without 答案： the last line may be a check (验算) of a right result further up.
        return "wrong" if marked or not anywhere else "unclear"
    result = quantities(stated.rpartition("=")[2]) if "=" in stated else found
    return "right" if result and all(q.may_equal(expected) for q in result) else "unclear"
