"""A benchmark of a few questions, and subjects whose score is known beforehand."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Sequence
from pathlib import Path

from minimind.eval.tasks.base import Likelihood, no_progress

QUESTION = re.compile(r"[a-z]+的第[0-9]+个问题是什么")
CHOICES = ("疑是地上霜", "举头望明月", "低头思故乡", "春眠不觉晓")


def write_rows(
    path: Path, *, questions: int = 12, shots: int = 5, subjects: Sequence[str] = ("law", "physics")
) -> Path:
    """Write CMMLU-like rows: `shots` worked examples and `questions` a subject."""
    rows = []
    for subject in subjects:
        for i in range(questions + shots):
            rows.append({
                "question": f"{subject}的第{i}个问题是什么",
                **dict(zip("ABCD", CHOICES, strict=True)),
                "answer": "ABCD"[(i * 7 + len(subject)) % 4], "subject": subject,
                "split": "dev" if i < shots else "test",
            })  # fmt: skip
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return path


class Oracle:
    """Knows which answer is right, by letter and by text."""

    name, context_length, has_chat_template = "oracle", 10_000, True

    def __init__(self, items):
        self.right = {item.extra["row"].question: item for item in items}

    def count_tokens(self, context, continuation=""):
        return len(str(context)) + len(continuation)

    def score(self, requests, *, progress=no_progress):
        progress(len(requests))
        return [
            Likelihood(log_prob=0.0 if self.knows(one) else -99.0, greedy=True, tokens=1)
            for one in requests
        ]

    def knows(self, request):
        context = request.context
        text = context if isinstance(context, str) else context[-1]["content"]
        item = self.right[QUESTION.findall(text)[-1]]
        return request.continuation in {item.reference, "ABCD"[item.answer]}


class Guesser(Oracle):
    """Finds every answer equally likely, but for noise."""

    name = "guesser"

    def __init__(self, items):
        super().__init__(items)
        self.random = random.Random(1)

    def score(self, requests, *, progress=no_progress):
        progress(len(requests))
        return [Likelihood(log_prob=self.random.random(), greedy=False, tokens=1) for _ in requests]
