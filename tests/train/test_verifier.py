"""The verifier on answers as children, teachers and small models write them."""

from fractions import Fraction

import pytest

from minimind.train.verifier import (
    Quantity,
    conclusion,
    expected_answer,
    hanzi_value,
    parse_value,
    quantities,
    verify,
)


def quantity(text):
    value, _, unit = text.partition(" ")
    return Quantity(Fraction(value), unit or None)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("15", ["15"]),
        ("１５个", ["15"]),
        ("５２．５元", ["105/2 元"]),
        ("30,000,000", ["30000000"]),
        ("1,234.5", ["2469/2"]),
        ("3、5、7", ["3", "5", "7"]),
        ("x=-5", ["-5"]),
        ("结余 = -500（元）", ["-500 元"]),
        ("180-75=105", ["180", "75", "105"]),
        ("10元-5元", ["10 元", "5 元"]),
        ("5/48", ["5/48"]),
        ("5 / 48", ["5/48"]),
        ("1又1/2", ["3/2"]),
        ("1 1/2", ["3/2"]),
        ("½", ["1/2"]),
        ("2½", ["5/2"]),
        (r"\frac{3}{4}", ["3/4"]),
        ("三分之二", ["2/3"]),
        ("5分之3", ["3/5"]),
        ("25%", ["25 %"]),
        ("２５％", ["25 %"]),
        ("百分之二十", ["20 %"]),
        ("百分之20", ["20 %"]),
        ("12cm²", ["12 cm^2"]),
        ("12平方厘米", ["12 平方厘米"]),
        ("5立方米", ["5 立方米"]),
        ("3米5厘米", ["61/20 米"]),
        ("5元7角", ["57/10 元"]),
        ("5元7角5分", ["23/4 元"]),
        ("2小时30分", ["5/2 小时"]),
        ("98分", ["98"]),
        ("72（元）", ["72 元"]),
        ("(36)千克", ["36"]),
        ("45°", ["45"]),
        ("x2和y3", []),
        ("一共八十五只", ["85"]),
        ("没有数", []),
        ("7/0", []),
    ],
)
def test_quantities(text, expected):
    assert quantities(text) == [quantity(one) for one in expected]


@pytest.mark.parametrize(
    ("text", "value"),
    [("五", 5), ("十", 10), ("十二", 12), ("二十", 20), ("三百零五", 305), ("一千二百", 1200),
     ("两万", 20_000), ("三万四千五百六十七", 34_567), ("二〇二六", 2026)],
)  # fmt: skip
def test_hanzi_numbers(text, value):
    assert hanzi_value(text) == value


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (5, "5"), (5.7, "57/10"), (-3, "-3"), ("5/48", "5/48"), ("25%", "25 %"), ("12元", "12 元"),
        ("约30", "30"), ("10个", "10"), ("1.5倍", "3/2"), ("1650.0", "1650"),
        (True, None), ("丙商店", None), ([1, 2], None), (None, None), ("36, 39", None),
        ("4×5", None), ("3:4", None), ("m³", None), ("59:59:10", None), ("27是3的倍数", None),
    ],
)  # fmt: skip
def test_which_values_can_be_checked(value, expected):
    assert parse_value(value) == (None if expected is None else quantity(expected))


@pytest.mark.parametrize(
    ("text", "stated"),
    [
        ("先算3×4=12。\n答：一共12个。", "一共12个。"),
        ("12÷4=3\n答案：3", "3"),
        ("答案是：7\n检查一下\n答案：8。", "8。"),
        ("解答：3+4=7", "7"),  # 解答： begins a solution, it doesn't end one
        (r"所以 \boxed{15}", "{15}"),
        ("2+3=5\n5×2=10", "10"),
        ("是15", "是15"),
    ],
)
def test_conclusion(text, stated):
    assert conclusion(text) == stated


@pytest.mark.parametrize(
    ("answer", "expected", "verdict"),
    [
        # plain
        ("12-5=7\n答案：7", "7", "right"),
        ("12-5=8\n答案：8", "7", "wrong"),
        ("答：还剩7个苹果。", "7", "right"),
        ("答：还剩７个苹果。", "7", "right"),
        ("答：还剩七个苹果。", "7", "right"),
        ("答：还剩6个苹果。", "7", "wrong"),
        ("12 - 5 = 7（个）", "7", "right"),
        ("12 - 5 = 6（个）", "7", "wrong"),
        ("我不知道。", "7", "unclear"),
        ("", "7", "unclear"),
        ("答案：", "7", "unclear"),
        # the conclusion counts, not the way
        ("12-5=8\n答案：7", "7", "right"),
        ("12-5=7\n答案：8", "7", "wrong"),
        ("答案：12-5=7", "7", "right"),
        ("答案：12-7=5", "7", "unclear"),
        # several numbers
        ("答：小明7个，小红3个。", "7", "unclear"),
        ("答：小明2个，小红3个。", "7", "wrong"),
        ("215 + 368 = 583。验算：583 - 215 = 368。", "583", "unclear"),
        ("215 + 368 = 573。验算：573 - 215 = 358。", "583", "wrong"),
        # fractions, percent, decimals
        ("答案：1/2", "1/2", "right"),
        ("答案：0.5", "1/2", "right"),
        ("答案：二分之一", "1/2", "right"),
        ("答案：2/4", "1/2", "right"),
        ("答案：2/1", "1/2", "wrong"),
        ("答案：25%", "25 %", "right"),
        ("答案：25%", "1/4", "right"),
        ("答案：0.25", "25 %", "right"),
        ("答案：25", "25 %", "right"),
        ("答案：2.5%", "25 %", "wrong"),
        ("答案：28.260", "1413/50", "right"),
        ("答案：-500", "-500", "right"),
        ("答案：500", "-500", "wrong"),
        # units
        ("答案：5.7元", "57/10 元", "right"),
        ("答案：5元7角", "57/10 元", "right"),
        ("答案：57角", "57/10 元", "right"),
        ("答案：5.7", "57/10 元", "right"),
        ("答案：5.7角", "57/10 元", "wrong"),
        ("答案：300厘米", "3 米", "right"),
        ("答案：3厘米", "3 米", "wrong"),
        ("答案：3千克", "3 米", "wrong"),
        ("答案：2.5小时", "150 分钟", "right"),
        ("答案：2小时30分", "150 分钟", "right"),
        ("答案：12cm²", "12 平方厘米", "right"),
        ("答案：12平方厘米", "12 cm^2", "right"),
        ("答案：1升", "1000 毫升", "right"),
        ("答案：30,000元", "30000", "right"),
        ("答案：**42**", "42", "right"),
        ("答案：$42$", "42", "right"),
        (r"\boxed{42}", "42", "right"),
        (r"\boxed{\frac{1}{2}}", "1/2", "right"),
    ],
)
def test_verify(answer, expected, verdict):
    assert verify(answer, quantity(expected)) == verdict


def test_the_unit_comes_from_the_published_solution():
    expected = expected_answer(5.7, "0.85 × 6 = 5.1（元）\n答案：5.7元")
    assert expected == quantity("57/10 元")
    assert verify("答案：57角", expected) == "right"
    assert expected_answer(5, "答案：5") == quantity("5")
    assert expected_answer("丙商店", "答案：丙商店") is None
