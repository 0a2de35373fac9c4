"""What the figures of `eval.json` and of objectives are called in the report.

A name is put together from its parts: `cmmlu_5shot_chat_letter_clean` is an exam, how it was asked,
how it was answered, and that items found in the training text are left out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from minimind.eval.statistics import Language

MEASURES: dict[Language, Mapping[str, str]] = {
    "en": {
        "choice_idiom_cloze": "which idiom fills the gap",
        "choice_idiom_meaning": "which meaning the idiom has",
        "choice_icd": "which Chinese name the disease has",
        "choice_law": "which law the article is from",
        "choice_verse": "which couplet comes next",
        "arithmetic": "sums, exact match",
        "distinct_2": "different bigrams in what it writes",
        "repetition": "4-grams that it wrote before (rep-4)",
        "never_stops": "answers that never stop",
        "domains_bits_per_byte": "bits per byte by domain",
        "domains_full_bits_per_byte": "bits per byte, every source",
        "translation_direction": "translation in the right language likelier",
        "translation_nats": "nats per byte of a translation",
        "wrong_script": "answers in the wrong script",
        "following_strict": "constraints kept",
        "following_loose": "constraints kept, loosely judged",
        "verse_form": "verse: form", "verse_rhyme": "verse: rhyme", "verse_tones": "verse: tones",
        "verse_rules": "verse: all rules",
        "accuracy": "share of pairs with the right sign (accuracy)",
        "margin": "reward margin", "chosen_reward": "reward of chosen answers",
        "rejected_reward": "reward of rejected answers",
    },
    "zh": {
        "choice_idiom_cloze": "填哪个成语", "choice_idiom_meaning": "成语是哪个意思",
        "choice_icd": "疾病的中文名是哪个", "choice_law": "条文出自哪部法律",
        "choice_verse": "下一联是哪个",
        "arithmetic": "算术，完全正确", "distinct_2": "输出中不同二元组的比例",
        "repetition": "输出中已出现过的四元组（rep-4）", "never_stops": "停不下来的回答",
        "domains_bits_per_byte": "各领域每字节比特数",
        "domains_full_bits_per_byte": "全部来源每字节比特数",
        "translation_direction": "正确语言的译文概率更高", "translation_nats": "译文每字节 nats",
        "wrong_script": "用错文字的回答",
        "following_strict": "遵守约束", "following_loose": "遵守约束（宽松判定）",
        "verse_form": "诗：句式", "verse_rhyme": "诗：押韵", "verse_tones": "诗：平仄",
        "verse_rules": "诗：全部规则",
        "accuracy": "方向正确的偏好对（准确率）", "margin": "奖励差",
        "chosen_reward": "优选回答的奖励", "rejected_reward": "劣选回答的奖励",
    },
}  # fmt: skip

_EXAMS = {"ceval": "C-Eval", "cmmlu": "CMMLU", "agieval": "AGIEval", "lawbench": "LawBench"}
_EXAM = re.compile(rf"({'|'.join(_EXAMS)})(?:_(\d+)shot)?(_chat)?_(letter|cloze)")
_HOW: dict[Language, Mapping[str, str]] = {
    "en": {"letter": "letters", "cloze": "answer texts", "shots": "{n} shots", "chat": "chat",
           "clean": "{name}; unseen only"},
    "zh": {"letter": "选字母", "cloze": "选答案文本", "shots": "{n} 个示例", "chat": "对话模板",
           "clean": "{name}；仅未见过的"},
}  # fmt: skip


def measure_words(name: str, language: Language) -> str:
    """Return what a figure is called, or its name where there are no words for it."""
    how, known = _HOW[language], MEASURES[language]
    if name in known:
        return known[name]
    if name.endswith("_clean"):
        return how["clean"].format(name=measure_words(name.removesuffix("_clean"), language))
    if found := _EXAM.fullmatch(name):
        exam, shots, chat, form = found.groups()
        parts = [f"{_EXAMS[exam]}: {how[form]}" if language == "en" else _EXAMS[exam] + how[form]]
        parts += [how["shots"].format(n=shots)] if shots else []
        parts += [how["chat"]] if chat else []
        return (", " if language == "en" else "，").join(parts)
    return name
