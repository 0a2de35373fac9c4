"""Constraints on an answer that a program can check, and the Chinese sentences that ask for them.

After IFEval (Zhou et al. 2023), written for Chinese: lengths are counted in hanzi, sentences by
「。！？」. Every checker takes the answer as it is, and an empty answer keeps no constraint.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from minimind.data.sources.text import count_hanzi

Check = Callable[[str], bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class Topic:
    """What an answer is to be about, with two words that come easily and one that doesn't."""

    name: str
    easy: tuple[str, str]
    odd: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Constraint:
    """One demand.

    Attributes:
        kind: its name in `KINDS`.
        asked: the sentence that asks for it.
        holds: tells whether an answer keeps it.
    """

    kind: str
    asked: str
    holds: Check


Make = Callable[[Topic, random.Random], tuple[str, Check]]


def sentences(text: str) -> list[str]:
    """Split at 。！？; what follows the last of them counts as a sentence too."""
    return [part for part in re.split(r"[。！？!?]+[”」』）]*", text.strip()) if part.strip()]


def json_object(text: str) -> Mapping[str, object] | None:
    """Return the object that an answer is, a ```json fence allowed; None where it isn't one."""
    fenced = re.fullmatch(r"\s*```(?:json)?\s*\n(.*?)\n?\s*```\s*", text, re.DOTALL)
    try:
        value = json.loads(fenced[1] if fenced else text)
    except (json.JSONDecodeError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def numbered(text: str) -> list[int]:
    """Return the numbers with which lines begin: `1.`, `2、`, `3)`."""
    return [int(n) for n in re.findall(r"^\s*(\d{1,3})[.、．)）]", text, re.MULTILINE)]


def _at_most(_: Topic, draw: random.Random) -> tuple[str, Check]:
    limit = draw.choice((10, 20, 30, 50))
    return f"不超过{limit}个字。", lambda text: 0 < count_hanzi(text) <= limit


def _at_least(_: Topic, draw: random.Random) -> tuple[str, Check]:
    limit = draw.choice((30, 50, 80, 100))
    return f"至少写{limit}个字。", lambda text: count_hanzi(text) >= limit


def _contains(topic: Topic, _: random.Random) -> tuple[str, Check]:
    return f"必须用上“{topic.odd}”这个词。", lambda text: topic.odd in text


def _leaves_out(topic: Topic, draw: random.Random) -> tuple[str, Check]:
    word = draw.choice(topic.easy)
    return f"不要出现“{word}”。", lambda text: word not in text


def _often(topic: Topic, draw: random.Random) -> tuple[str, Check]:
    times = draw.choice((2, 3))
    return f"“{topic.name}”至少出现{times}次。", lambda text: text.count(topic.name) >= times


def _begins(topic: Topic, draw: random.Random) -> tuple[str, Check]:
    word = draw.choice((topic.name, "首先", "大家知道"))
    return f"以“{word}”开头。", lambda text: text.lstrip().startswith(word)


def _ends(_: Topic, draw: random.Random) -> tuple[str, Check]:
    end = draw.choice(("谢谢大家。", "就是这样。", "你觉得呢？"))
    return f"以“{end}”结尾。", lambda text: text.rstrip().endswith(end)


def _one_sentence(_: Topic, draw: random.Random) -> tuple[str, Check]:
    asked = draw.choice(("只用一句话回答。", "用一句话说完。"))
    return (
        asked,
        lambda text: (
            len(sentences(text)) == 1 and text.rstrip(" \n”」』）")[-1:] in tuple("。！？!?")
        ),
    )


def _some_sentences(_: Topic, draw: random.Random) -> tuple[str, Check]:
    count = draw.choice((2, 3, 4))
    return f"恰好写{'一二三四'[count - 1]}句话。", lambda text: len(sentences(text)) == count


def _list(_: Topic, draw: random.Random) -> tuple[str, Check]:
    count = draw.choice((2, 3, 4, 5))
    wanted = list(range(1, count + 1))
    asked = f"分{count}条回答，每条单独一行，用“1.”“2.”这样的编号开头。"
    return asked, lambda text: numbered(text) == wanted


def _json(_: Topic, draw: random.Random) -> tuple[str, Check]:
    keys = draw.choice((("名称", "说明"), ("标题", "内容"), ("name", "text")))
    asked = f"只输出一个JSON对象，键为“{keys[0]}”和“{keys[1]}”。"
    return asked, lambda text: (json_object(text) or {}).keys() == set(keys)


def _no_commas(_: Topic, __: random.Random) -> tuple[str, Check]:
    return "不要使用逗号。", lambda text: bool(text.strip()) and not re.search("[,，]", text)


def _english(_: Topic, __: random.Random) -> tuple[str, Check]:
    return (
        "只用英文回答。",
        lambda text: count_hanzi(text) == 0 and len(re.findall(r"[A-Za-z]+", text)) >= 3,
    )


def _quoted(_: Topic, __: random.Random) -> tuple[str, Check]:
    return "把整个回答放在书名号《》里。", lambda text: bool(
        re.fullmatch(r"《[^《》]+》", text.strip())
    )


def _paragraphs(_: Topic, draw: random.Random) -> tuple[str, Check]:
    count = draw.choice((2, 3))
    asked = f"分成{'一二三'[count - 1]}段，段与段之间空一行。"
    return (
        asked,
        lambda text: len([part for part in re.split(r"\n\s*\n", text) if part.strip()]) == count,
    )


KINDS: Mapping[str, Make] = {
    "at_most": _at_most, "at_least": _at_least, "contains": _contains,
    "leaves_out": _leaves_out, "often": _often, "begins": _begins, "ends": _ends,
    "one_sentence": _one_sentence, "some_sentences": _some_sentences, "list": _list,
    "json": _json, "no_commas": _no_commas, "english": _english, "quoted": _quoted,
    "paragraphs": _paragraphs,
}  # fmt: skip
"""A new kind is a function and a line here."""

TOGETHER = (
    ("at_most", "contains"), ("at_most", "one_sentence"), ("at_least", "leaves_out"),
    ("begins", "ends"), ("contains", "leaves_out"), ("list", "contains"), ("often", "at_least"),
    ("some_sentences", "begins"), ("paragraphs", "ends"), ("no_commas", "at_most"),
)  # fmt: skip
"""Kinds that can be asked for at once."""


def make_constraint(kind: str, topic: Topic, draw: random.Random) -> Constraint:
    """Make a constraint of a kind for a topic; `draw` chooses its numbers and words."""
    asked, check = KINDS[kind](topic, draw)
    return Constraint(kind=kind, asked=asked, holds=lambda text: bool(text.strip()) and check(text))


TOPICS = tuple(
    Topic(name=name, easy=(first, second), odd=odd)
    for name, first, second, odd in (
        row.split()
        for row in (
            "春天 花 温暖 算盘", "夏天 热 西瓜 邮票", "秋天 落叶 丰收 钢琴", "冬天 雪 寒冷 风筝",
            "长江 河 水 铅笔", "黄山 松 石 电话", "大海 水 船 书架", "月亮 夜 光 火车",
            "太阳 光 热 围巾", "雨 伞 水 棋盘", "老师 学生 学校 草原", "医生 医院 病 沙滩",
            "农民 土地 粮食 电梯", "母亲 爱 孩子 地图", "朋友 友谊 帮助 灯塔",
            "图书馆 书 阅读 瀑布", "学校 学生 老师 雨伞", "医院 医生 病人 彩虹",
            "火车 铁路 车站 蝴蝶", "自行车 轮子 骑 星星", "电脑 屏幕 键盘 稻田",
            "手机 电话 屏幕 骆驼", "苹果 水果 甜 航海", "茶 喝 杯 足球", "米饭 吃 大米 望远镜",
            "饺子 馅 过年 森林", "春节 过年 红包 实验", "中秋节 月亮 月饼 机器",
            "熊猫 竹子 可爱 闹钟", "狗 忠诚 动物 字典", "猫 动物 老鼠 桥梁", "鱼 水 游 手表",
            "竹子 绿 高 唱歌", "足球 球 比赛 茶叶", "音乐 歌 声音 雪山", "历史 过去 古代 饼干",
            "数学 数字 计算 海鸥", "法律 规定 公民 葡萄", "健康 身体 运动 信封",
            "友谊 朋友 真诚 石榴",
        )
    )
)  # fmt: skip
