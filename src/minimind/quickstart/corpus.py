"""What a plan notes of the text, `plan.json["corpus"]`, and what follows from it.

    {"pretrain": {"tokens a step": 262144, "parts": [...]}, "sft": {...}}

Each part is a `minimind.data.passes.Part`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from minimind.data.passes import Part
from minimind.eval.results import MANY_PASSES

FEWEST_STEPS, FEWEST_SFT_STEPS = 20, 10
"""Of pretraining and SFT, however few minutes there are."""


def passes_of(corpus: Mapping[str, Any], tokens: int) -> list[dict[str, Any]]:
    """Return what a stage of so many tokens reads, path by path; see `Part.read`."""
    return [Part(**part).read(tokens) for part in corpus["parts"]]


def sft_step(corpus: Mapping[str, Any]) -> float:
    """Return a step of SFT in steps of pretraining, by their tokens; plans of before have none."""
    return corpus["sft"]["tokens a step"] / corpus["pretrain"]["tokens a step"] if corpus else 1.0


def most_steps(corpus: Mapping[str, Any] | None) -> float:
    """Return the steps after which a part has been read `MANY_PASSES` times."""
    parts = [part for part in corpus["parts"] if part["tokens"]] if corpus else []
    if corpus is None or not parts:
        return math.inf
    tokens = min(part["tokens"] / part["share"] for part in parts)
    return max(FEWEST_SFT_STEPS, int(MANY_PASSES * tokens / corpus["tokens a step"]))
