"""What the quickstart says: one line a stage, what it does and why; and what it asks the model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

Language = Literal["zh", "en"]

WHY: Mapping[str, Mapping[Language, str]] = {
    "data": {
        "en": "fetch small open sources by pinned checksum, write documents, questions and a "
        "licence ledger: a model is what it reads",
        "zh": "按固定校验和下载小型开放语料，写出文档、问答和许可证台账：模型就是它读过的东西",
    },
    "tokenizer": {
        "en": "learn word pieces from the training text: the model reads their numbers, not "
        "characters",
        "zh": "从训练文本中学出词元：模型读的是词元的编号，不是汉字",
    },
    "plan": {
        "en": "time real training steps on this machine and divide the minutes by what it can do",
        "zh": "在这台机器上实测训练速度，据此给每个阶段分配时间",
    },
    "pretrain": {
        "en": "from random weights, learn to predict the next token of plain text: language comes "
        "from here",
        "zh": "从随机权重开始，学习预测下一个词元：语言能力来自这一步",
    },
    "sft": {
        "en": "learn to answer: the same loop, but only the assistant's tokens are learnt",
        "zh": "学习回答问题：同一个训练循环，只在助手的回答上计算损失",
    },
    "preferences": {
        "en": "let this very model solve problems and check the results by arithmetic: its own "
        "mistakes become the rejected side",
        "zh": "让这个模型自己解题，由程序验算：它自己的错误就是“被拒绝”的一方",
    },
    "dpo": {
        "en": "prefer the checked answer to the own mistake; the loss starts at ln 2 = 0.693, the "
        "loss of a coin toss",
        "zh": "让模型偏好经过验算的答案；损失从 ln 2 = 0.693（相当于抛硬币）开始",
    },
    "evaluation": {
        "en": "measure on documents and questions that no stage has seen, beside baselines that "
        "know no language",
        "zh": "在任何阶段都没见过的文档和题目上测量，并与不懂语言的基线对照",
    },
}

PASSES: Mapping[Language, Mapping[str, str]] = {
    "en": {
        "read": "{stage}: {tokens:,} tokens of {what}, ",
        "counted": "which has {unique:,} (counted): {passes:,.1f} passes",
        "estimated": "which has about {unique:,} (estimated): {passes:,.1f} passes",
        "unknown": "whose size nobody says: how many passes is unknown",
        "many": "{stage}: more than {many:g} passes over the same text. Each further one teaches "
        "less than fresh text would (docs/recipe.md, Muennighoff et al. 2023).",
        "more": " More text: --text YOUR.jsonl or --text hub:fineweb-edu-zh (docs/speedrun.md); or "
        "a smaller --budget.",
        "no more": " More text: minimind speedrun --text YOUR.jsonl, or --sources full.",
        "sft": " More conversations: into sft.jsonl of a folder for --data.",
    },
    "zh": {
        "read": "{stage}：读 {what} 的 {tokens:,} 词元，",
        "counted": "它有 {unique:,} 词元（实数）：{passes:,.1f} 遍",
        "estimated": "它约有 {unique:,} 词元（估计）：{passes:,.1f} 遍",
        "unknown": "它有多大没有人说过：读几遍未知",
        "many": "{stage}：同样的文本要读超过 {many:g} 遍。之后每一遍学到的都比不上新的文本"
        "（docs/recipe.md；Muennighoff 等，2023）。",
        "more": "加文本：--text 你的.jsonl 或 --text hub:fineweb-edu-zh（docs/speedrun.md）；"
        "或者减小 --budget。",
        "no more": "加文本：minimind speedrun --text 你的.jsonl，或 --sources full。",
        "sft": "加对话：放进 --data 所指文件夹的 sft.jsonl。",
    },
}

HONEST: Mapping[Language, str] = {
    "en": "A model of this size, trained for minutes, writes in the register of its sources and "
    "keeps the form of a chat. It knows next to nothing, does not reason and makes things up.",
    "zh": "这么小的模型、几分钟的训练：它能写出像样的句式、保持对话的形式，"
    "但几乎没有知识，不会推理，会编造内容。",
}

CONTINUATIONS = (
    "第一条　为了保护",
    "小明有12个苹果，",
    "画蛇添足（huà shé tiān zú）：",
    "宝玉听了，",
)
"""Continued by every stage's model, so that the stages can be compared."""

QUESTIONS = (
    "你是谁？",
    "“守株待兔”是什么意思？",
    "小明有12个苹果，吃了5个，还剩几个？",
    "把这句话翻译成英文：我每天早上六点起床。",
)
"""Asked as a chat from SFT on; before it, the model has never seen the chat format."""
