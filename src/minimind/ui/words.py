"""Every word of the page, in Chinese and in English."""

from __future__ import annotations

import locale
import os
from typing import Literal

Language = Literal["zh", "en"]

SUGGESTIONS: dict[Language, tuple[str, ...]] = {
    "zh": ("你是谁？", "写一首关于春天的诗。", "“画蛇添足”是什么意思？", "3 加 5 等于多少？"),
    "en": ("Who are you?", "Tell me a short story.", "What is 3 plus 5?"),
}

_WORDS: dict[str, tuple[str, str]] = {
    "other_language": ("English", "中文"),
    "tagline": (
        "和你的模型聊天，看它怎样选出每一个词。",
        "Chat with your model, and see how it chose each word.",
    ),
    "tab_chat": ("聊天", "Chat"),
    "tab_tokens": ("逐词看", "Token by token"),
    "empty": (
        "### 开始聊天\n小模型学会的是语言的样子：它说的事实、算术和建议常常是错的。",
        "### Say something\nA small model has learnt what language looks like: its facts, sums and "
        "advice are often wrong.",
    ),
    "message": ("输入消息，按回车发送（Shift+回车换行）", "Write a message; Enter sends it"),
    "send": ("发送", "Send"),
    "stop": ("停止", "Stop"),
    "image": ("图片", "Image"),
    "attached": ("已附上 {name}：随下一条消息发送", "{name} goes with the next message"),
    "bad_image": ("这张图片不能用：{message}", "This image can't be used: {message}"),
    "again": ("↻ 重新回答", "↻ Answer again"),
    "clear": ("清空对话", "Clear"),
    "save_json": ("↓ JSON", "↓ JSON"),
    "save_markdown": ("↓ Markdown", "↓ Markdown"),
    "model": ("模型", "Model"),
    "reload": ("刷新列表", "Refresh"),
    "system": ("系统提示", "System prompt"),
    "system_hint": ("例如：你是一位诗人。", "For example: You are a poet."),
    "sampling": ("采样设置", "Sampling"),
    "temperature": ("温度", "Temperature"),
    "temperature_hint": (
        "0 总取最可能的词；越大越多样",
        "0 takes the likeliest; more is more varied",
    ),
    "top_p": ("top-p", "Top-p"),
    "top_p_hint": (
        "只从合计这么多概率的词里选；1 为关",
        "the likeliest that together have this; 1: off",
    ),
    "top_k": ("top-k", "Top-k"),
    "top_k_hint": ("只从最可能的 k 个词里选；0 为关", "only the k likeliest; 0: off"),
    "min_p": ("min-p", "Min-p"),
    "min_p_hint": (
        "概率至少为最可能的词的这个比例；0 为关",
        "at least this share of the likeliest; 0: off",
    ),
    "repetition": ("重复惩罚", "Repetition penalty"),
    "repetition_hint": ("让出现过的词更不可能；1 为关", "makes used tokens less likely; 1: off"),
    "max_tokens": ("回答最多多少 token", "Longest answer, in tokens"),
    "seed": ("随机种子", "Seed"),
    "seed_hint": (
        "同一个种子，同一个回答；空着则每次不同",
        "the same seed, the same answer; empty: random",
    ),
    "bad_seed": (
        "随机种子要是整数，或者空着：{seed}",
        "The seed must be a whole number, or empty: {seed}",
    ),
    "adapter_of": ("{id}（{parent} 的适配器）", "{id} (adapter of {parent})"),
    "loading": ("服务器正在载入模型……", "The server is loading its models ..."),
    "no_models": ("服务器没有模型。", "The server has no models."),
    "ready": ("已连接 {url}", "connected to {url}"),
    "ready_context": (
        "已连接 {url} · 上下文 {context} token",
        "connected to {url} · context of {context} tokens",
    ),
    "answering": ("正在回答……", "answering ..."),
    "figures": ("{tokens} token · {rate:.0f} token/秒 · 首个 {first:.2f} 秒",
                "{tokens} tokens · {rate:.0f} tokens/s · first after {first:.2f} s"),
    "ended_stop": ("说完了", "finished"),
    "ended_length": ("到了长度上限", "cut at the longest answer"),
    "ended_tool_calls": ("要调用工具", "wants to call a tool"),
    "ended_stopped": ("已停止", "stopped"),
    "dropped": (
        "上下文放不下：最早的 {count} 轮没有发给模型",
        "the context is full: the first {count} turns were not sent",
    ),
    "shortened": (
        "上下文剩余不够：回答可能比设置的短",
        "little room left in the context: the answer may be shorter than asked for",
    ),
    "unreachable": (
        "连不上服务器 {url}。它还在运行吗？运行后点“重新回答”。（{message}）",
        "The server {url} can't be reached. Is it running? When it is, press “Answer again”. "
        "({message})",
    ),
    "broken": (
        "与服务器的连接断了，回答不完整。点“重新回答”再试一次。（{message}）",
        "The connection to the server broke, so the answer is incomplete. “Answer again” tries "
        "once more. ({message})",
    ),
    "foreign": (
        "{url} 的回应不像 OpenAI 兼容的服务器。检查地址（以 /v1 结尾）。（{message}）",
        "What {url} sent is not what an OpenAI-compatible server sends. Check the address; it ends "
        "in /v1. ({message})",
    ),
    "refused": ("服务器拒绝了：{message}", "The server refused: {message}"),
    "failed": ("页面出错了：{message}", "The page failed: {message}"),
    "user": ("用户", "User"),
    "assistant": ("助手", "Assistant"),
    "error": ("错误", "Error"),
    "title": ("对话", "Conversation"),
    # The second tab.
    "guide": (
        "颜色越浓，模型对这个词越意外：看看它在哪里犹豫，那里还有哪些词差不多可能。"
        "从带 ⟲ 的地方起，模型只是在照抄自己刚说过的话。",
        "The stronger its colour, the more a token surprised the model: look where it hesitates, "
        "and what else was about as likely there. From a ⟲ on, the model only copies what it has "
        "just said.",
    ),
    "no_answer": (
        "还没有回答：先在“聊天”里说点什么。",
        "No answer yet: say something in “Chat” first.",
    ),
    "no_logprobs": (
        "这个服务器没有给出每个词的概率。",
        "This server sent no token probabilities.",
    ),
    "legend": ("模型给选中的词的概率", "Probability the model gave the token"),
    "point": (
        "把鼠标移到一个词上，或点一下，看还有哪些词可能。",
        "Point at a token, or click it, to see what else was likely.",
    ),
    "chosen": ("选中", "chosen"),
    "token": ("第 {n} 个 token", "token {n}"),
    "surprise": ("意外", "surprise"),
    "bits": ("比特", "bits"),
    "rest": ("其余所有", "all others"),
    "rare": ("不在前 {n}", "not in the top {n}"),
    "summary": (
        "{tokens} 个 token，平均意外 {bits:.2f} 比特"
        "（相当于每步在 {choices:.1f} 个同样可能的词里选）。",
        "{tokens} tokens, mean surprise {bits:.2f} bits (like choosing among {choices:.1f} equally "
        "likely tokens at each step).",
    ),
    "no_loop": ("没有发现循环。", "No loop found."),
    "loop": (
        "从第 {start} 个 token 起开始循环：{period} 个 token 一遍遍重复，到第 {end} 个为止。",
        "A loop sets in at token {start}: the same {period} tokens again and again, up to token "
        "{end}.",
    ),
    "loop_mark": ("从这里开始重复", "repeats from here"),
    "rule": (
        "规则：同样的 1 到 {longest} 个 token 紧接着至少出现 {copies} 次，"
        "且总共至少 {least} 个 token；标记在第二遍的开头。",
        "The rule: the same 1 to {longest} tokens at least {copies} times in a row, {least} tokens "
        "or more in all; the mark is where the second copy begins.",
    ),
    "raw": (
        "概率是模型自己的：温度、过滤和惩罚之前。",
        "Probabilities are the model's own: before temperature, filters and penalties.",
    ),
}  # fmt: skip


def word(key: str, language: Language, **values: object) -> str:
    """Return the text of `key` with its values filled in."""
    text = _WORDS[key][0 if language == "zh" else 1]
    return text.format(**values) if values else text


def language_of(accept: str | None) -> Language:
    """Return the page's language for a browser's Accept-Language; without one, the system's.

    The first of Chinese and English wins, by quality and then by place; English for neither.
    """
    wanted: list[tuple[float, int, Language]] = []
    for place, item in enumerate((accept or "").split(",")):
        tag, _, quality = item.strip().partition(";q=")
        for language in ("zh", "en"):
            if tag.lower().split("-")[0] == language:
                wanted.append((-_number(quality), place, language))
    if wanted:
        return min(wanted)[2]
    return "en" if accept and accept.strip() not in {"", "*"} else system_language()


def system_language() -> Language:
    """Return the language that the system is set to."""
    names = (os.environ.get(name) for name in ("LC_ALL", "LC_MESSAGES", "LANG"))
    name = next((name for name in names if name), None) or locale.getlocale()[0] or ""
    return "zh" if name.lower().startswith(("zh", "chinese")) else "en"


def _number(text: str) -> float:
    try:
        return float(text) if text else 1.0
    except ValueError:
        return 0.0
