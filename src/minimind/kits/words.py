"""The words of a kit's page, English and Chinese."""

from __future__ import annotations

from collections.abc import Mapping

from minimind.eval.statistics import Language

Both = tuple[str, str]

WORDS: Mapping[str, Both] = {
    "title": ("Domain kit: {title}", "领域套件：{title}"),
    "about": (
        "What the kit did to its base `{base}`: every figure before and after, on the same items, "
        "with its 95 % interval.",
        "套件给底座 `{base}` 带来了什么：同样的题目，训练前后各测一次，附 95% 区间。",
    ),
    "card_choice": ("held-out questions of the domain", "留出的领域问题"),
    "card_bits": ("bits per byte of general text", "通用文本的每字节比特数"),
    "card_probes": ("answers that keep the safety rules", "遵守安全规则的回答"),
    "card_size": ("{kind}", "{kind}"),
    "adapters": ("adapters beside a base of {base}", "适配器，底座为 {base}"),
    "whole": ("a whole model, fine-tuned", "整个模型，全量微调"),
    "card_time": ("of training, {steps} steps", "训练时间，{steps} 步"),
    "from": ("{before} before", "之前 {before}"),
    "gain_yes": (
        "Held-out questions: {before} before, {after} after; the intervals don't overlap.",
        "留出问题：之前 {before}，之后 {after}，两个区间不重叠。",
    ),
    "gain_no": (
        "Held-out questions: {before} before, {after} after; the intervals overlap "
        "(paired on the same questions: {value} [{low}, {high}], p = {p}).",
        "留出问题：之前 {before}，之后 {after}，两个区间重叠"
        "（同题成对比较：{value} [{low}, {high}]，p = {p}）。",
    ),
    "forgot_yes": (
        "Forgetting: bits per byte {change}, under 3 %{replay}.",
        "遗忘：每字节比特数 {change}，低于 3%{replay}。",
    ),
    "forgot_no": (
        "Forgetting: bits per byte {change}, not under 3 %{replay}.",
        "遗忘：每字节比特数 {change}，没有低于 3%{replay}。",
    ),
    "replayed": (" with {share} of the bytes replayed", "（{share} 的字节为通用数据回放）"),
    "alone": (" without replay", "（没有回放）"),
    "domain": ("The domain", "领域"),
    "general": ("What was forgotten", "遗忘了什么"),
    "probes": ("Safety probes", "安全探针"),
    "models": ("The models", "模型"),
    "measure": ("measure", "指标"),
    "base": ("base", "底座"),
    "difference": ("difference", "差"),
    "chance": ("chance", "随机"),
    "n": ("n", "题数"),
    "probes_about": (
        "Fixed questions, greedy answers, rules that a program checks. None of them stands in the "
        "rows that were trained on. A kept rule says how the model speaks, not that it is right. "
        "`_system` is asked with the system prompt that the server puts in.",
        "固定问题、贪心解码、由程序按规则检查；问题都不在训练数据里。守规则只说明说话方式，不说明答得对。"
        "`_system` 带上服务器默认的系统提示。",
    ),
    "domain_about": (
        "`{kit}_choice`: the right answer against three of other questions; chosen is the one "
        "that its question makes likelier the most, against other questions of the source (PMI). "
        "`_empty`: against an empty question. `_likeliest`: by likelihood per character. `clean` "
        "leaves out questions found in the training rows. A model of a few million parameters "
        "guesses exams.",
        "`{kit}_choice`：正确答案对另外三题的答案，选“比起同类的别的问题，因为这个问题而变得更可能”的那个（点互信息）。"
        "`_empty`：与空问题相比。"
        "`_likeliest`：按每个字的似然选。`clean` 去掉在训练数据里找到的题。"
        "几百万参数的模型做考试题等于猜。",
    ),
    "said": ("What the models said to the probes", "模型对探针的回答"),
    "kept": ("keeps the rule", "守规则"),
    "broke": ("breaks the rule", "不守规则"),
    "question": ("question", "问题"),
    "weights": ("size", "大小"),
    "parameters": ("trained numbers", "训练的参数"),
    "time": ("training", "训练"),
    "replay": ("replay", "回放"),
    "notes": ("Not asked", "没有测的"),
    "repeat": ("Commands", "命令"),
}  # fmt: skip


def say(key: str, language: Language, **values: object) -> str:
    """Return the words of a key in a language."""
    return WORDS[key][("en", "zh").index(language)].format(**values)
