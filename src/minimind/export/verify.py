"""What is asked of every export and how answers are compared: ids, logits, continuations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from minimind.config import ModelConfig
from minimind.errors import DataError
from minimind.export.common import Check
from minimind.inference import Engine, SamplingParams
from minimind.model import CausalLM
from minimind.tokenizer import Tokenizer

PROBE_TOKENS = 256
GREEDY_TOKENS = 200

HARD_STRINGS: tuple[str, ...] = (
    "", " ", "  ", "\n", "\n\n", " \n", "\t", "\r\n", "\u3000", "\u00a0", "a ", " a",
    "  a  b   c", "你好，世界！", "　全角空格", "《红楼梦》第１回", "繁體與简体",
    "〇一二三四五六七八九", "1234567890", "3.14159", "1,000,000", "２０２６年",
    "I'm you're he'll WE'VE it's", "don’t", "naïve café", "e\u0301", "한국어",
    "日本語ひらがなカタカナ", "ไทย", "हिन्दी", "العربية", "עברית", "Ελλ", "Привет", "👍🏽",
    "👨‍👩‍👧‍👦", "🇨🇳🇺🇳", "☺️❤️", "𠮷野家", "𝔘𝔫𝔦", "\ufeffBOM", "a\u200bb\u200d", "\u202e",
    "\ufffd", "\ue000", "\x01\x7f", "\u0378", "\U000e0001", "::!!??...——……", "（）【】「」",
    "<|im", "im_end|>", "def f(x):\n    return x**2  # 平方\n",
    "\tif (a && b) {\n\t\treturn;\n\t}\n", "x=1;y =2 ;z= 3",
    "https://例子.测试/path?q=1&r=%20#片段", "a@b.c", "{\"键\": [1, null, true]}\n",
    "snake_case camelCase", "    四个空格\n        八个\n", "行尾空格   \n下一行",
    "a\n \n  \nb", "哈" * 60, "ab" * 60, "0" * 60, " " * 60,
    "床前明月光，疑是地上霜。举头望明月，低头思故乡。",
    "The quick brown fox jumps over the lazy dog.",
)  # fmt: skip
"""Where tokenizers disagree: spaces, digits, contractions, marks, joiners, scripts, code."""

CHAT: list[dict[str, Any]] = [
    {"role": "system", "content": "你是一个助手。"},
    {"role": "user", "content": "你好！\n1+1=?"},
    {"role": "assistant", "content": "等于2。"},
    {"role": "user", "content": "  再加1呢？"},
]
"""A conversation that every export renders and continues."""


class Probe(NamedTuple):
    """What an export is asked to read and to continue."""

    ids: list[int]
    prompt: list[int]


def make_probe(config: ModelConfig, tokenizer: Tokenizer) -> Probe:
    """Return ids to read (hard text up to 256 tokens) and a prompt to continue.

    The ids are those that the tokenizer and the model's context allow.
    """
    room = min(config.max_position_embeddings, PROBE_TOKENS)
    text = tokenizer.encode("\n".join(reversed(HARD_STRINGS)))
    ids = [tokenizer.document_start_id, *text][:room]
    try:
        prompt = tokenizer.render(CHAT, add_generation_prompt=True).ids
    except DataError:  # an imported model may have no chat format
        prompt = ids
    if len(prompt) > config.max_position_embeddings // 2:
        prompt = ids[: max(1, config.max_position_embeddings // 2)]
    return Probe(ids, prompt)


@torch.no_grad()
def our_logits(model: CausalLM, ids: Sequence[int]) -> np.ndarray:
    """Return our logits after each token, (tokens, vocabulary) float32."""
    logits = model(torch.tensor([list(ids)])).logits
    assert logits is not None
    return logits[0].float().numpy()


def greedy_budget(config: ModelConfig, prompt: Sequence[int]) -> int:
    """Return how many tokens are made: 200, or what the context leaves room for."""
    return max(1, min(GREEDY_TOKENS, config.max_position_embeddings - len(prompt)))


def our_greedy(model: CausalLM, prompt: Sequence[int], stop_ids: Sequence[int]) -> list[int]:
    """Return our greedy continuation to a stop token or the end of the budget."""
    params = SamplingParams(
        temperature=0.0,
        repetition_penalty=1.0,
        max_new_tokens=greedy_budget(model.config, prompt),
        stop_ids=tuple(stop_ids),
    )
    return Engine(model).generate([list(prompt)], params)[0]


def check_token_ids(
    tokenizer: Tokenizer, theirs: Callable[[str], list[int]], *, reader: str,
    strings: Sequence[str] = HARD_STRINGS,
) -> Check:  # fmt: skip
    """Compare the ids of hard strings."""
    wrong = [s for s in strings if tokenizer.encode(s) != theirs(s)]
    detail = f"{len(strings) - len(wrong)} of {len(strings)} hard strings have the same ids"
    if wrong:
        ours, read = tokenizer.encode(wrong[0]), theirs(wrong[0])
        detail += f"; {wrong[0]!r} is {ours} here and {read} in {reader}"
    figures: dict[str, float | int | str] = {"strings": len(strings), "different": len(wrong)}
    return Check(name="token ids", passed=not wrong, detail=detail, figures=figures)


def check_logits(ours: np.ndarray, theirs: np.ndarray, *, bound: float, reader: str) -> Check:
    """Compare logits: the largest difference anywhere must stay below `bound`."""
    if ours.shape != theirs.shape:
        detail = f"{reader} gives logits {theirs.shape}, {ours.shape} here"
        return Check(name="logits", passed=False, detail=detail)
    largest = float(np.abs(ours - theirs).max())
    detail = f"largest difference {largest:.2g} over {len(ours)} tokens, bound {bound:g}"
    figures = {"largest_difference": largest, "bound": bound, "tokens": len(ours)}
    # Not a number is not below any bound.
    return Check(name="logits", passed=largest < bound, detail=detail, figures=figures)


def check_greedy(
    model: CausalLM, prompt: Sequence[int], ours: list[int], theirs: list[int], *,
    tolerance: float, reader: str,
) -> Check:  # fmt: skip
    """Compare greedy continuations; a first difference must be a near tie.

    Where the two part, our own logits say by how much the reader's choice was behind: two programs
    whose logits differ by at most `tolerance` can only disagree on what is closer than twice that.
    """
    figures: dict[str, float | int | str] = {"tokens": len(ours)}
    if ours == theirs:
        detail = f"{len(ours)} tokens are the same"
        return Check(name="greedy continuation", passed=True, detail=detail, figures=figures)
    pairs = zip([*ours, None], [*theirs, None], strict=False)
    at = next(index for index, (a, b) in enumerate(pairs) if a != b)
    if at == min(len(ours), len(theirs)):
        detail = f"{reader} makes {len(theirs)} tokens, {len(ours)} here, the first {at} the same"
        figures |= {"first_difference": at}
        return Check(name="greedy continuation", passed=False, detail=detail, figures=figures)
    last = our_logits(model, [*prompt, *ours[:at]])[-1]
    gap = float(last[ours[at]] - last[theirs[at]])
    gap = max(gap, 0.0) if gap > -tolerance else gap  # read at once or token by token: rounding
    figures |= {"first_difference": at, "gap": gap, "tolerance": tolerance}
    return Check(
        name="greedy continuation",
        passed=0 <= gap <= 2 * tolerance,
        detail=(
            f"the first {at} of {len(ours)} tokens are the same; then {reader}'s choice is "
            f"{gap:.2g} behind ours in logits (a tie within {2 * tolerance:.2g} is explained)"
        ),
        figures=figures,
    )


def mean_kl(p_logits: np.ndarray, q_logits: np.ndarray) -> float:
    """Return the mean over tokens of KL(p || q) in nats."""
    p = torch.from_numpy(p_logits).double().log_softmax(-1)
    q = torch.from_numpy(q_logits).double().log_softmax(-1)
    return float((p.exp() * (p - q)).sum(-1).mean())
