"""Addition, subtraction and multiplication by the number of digits: exact match, greedily.

Every problem has two operands of the same number of digits, 1 to 5; differences are never negative.
A base model sees three worked lines first, so that it knows what is wanted:

    2+5=7
    9-4=5
    3×3=9
    47+85=

and its answer is the number that the line goes on with. Through the chat template the question is
「47+85等于多少？」 and the answer is the number after the last "=", else the last number. There is
no chance line: guessing gives nearly nothing from two digits on. The problems are generated with a
fixed seed and have no source; contamination checks read them as `47+85=132`.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass

from minimind.eval.tasks.base import (
    Generated,
    Generation,
    Item,
    Metric,
    Outcome,
    Outcomes,
    Progress,
    Subject,
    Task,
    TaskOptions,
    no_progress,
)

DIGITS = (1, 2, 3, 4, 5)
EACH = 100
SEED = 0
_WORKED = "2+5=7\n9-4=5\n3×3=9\n"
_NUMBER = re.compile(r"-?\d+")


def problems(digits: int, count: int, *, seed: int = SEED) -> list[tuple[str, int]]:
    """Return different problems like ("47+85", 132), a third of each operation."""
    generator = random.Random(f"{seed}/{digits}")
    low, high = 10 ** (digits - 1), 10**digits - 1
    found: dict[str, int] = {}
    while len(found) < count:
        a, b = generator.randint(low, high), generator.randint(low, high)
        sign = "+-×"[len(found) % 3]
        if sign == "-":
            a, b = max(a, b), min(a, b)
        found[f"{a}{sign}{b}"] = a + b if sign == "+" else a - b if sign == "-" else a * b
    return list(found.items())


def continued_number(text: str) -> int | None:
    """Return the number with which a line goes on, or None."""
    number = _NUMBER.match(text.strip().split("\n")[0].replace(",", "").strip())
    return int(number[0]) if number else None


def told_number(text: str) -> int | None:
    """Return the number that an answer gives: after its last "=", else the last one."""
    text = re.sub(r"(?<=\d)[,，](?=\d{3})", "", text.replace("＝", "="))
    numbers = _NUMBER.findall(text.rpartition("=")[2]) or _NUMBER.findall(text)
    return int(numbers[0] if "=" in text else numbers[-1]) if numbers else None


@dataclass(frozen=True, kw_only=True)
class ArithmeticTask:
    """Problems to be solved.

    Attributes:
        chat: asked through the chat template.
        name: as in `--tasks`.
        metrics: the share solved; groups are digits.
    """

    chat: bool = False
    name: str = "arithmetic"
    metrics: tuple[Metric, ...] = (
        Metric(name="arithmetic", unit="problems", note="exact match, by digits of the operands"),
    )

    def items(self) -> Sequence[Item]:
        """Return the problems of all digit counts."""
        return [
            Item(id=problem, text=f"{problem}={value}", group=f"{digits}", reference=str(value),
                 context=self._asked(problem), extra={"value": value})
            for digits in DIGITS
            for problem, value in problems(digits, EACH)
        ]  # fmt: skip

    def run(
        self, subject: Subject, items: Sequence[Item], *, progress: Progress = no_progress
    ) -> Outcomes:
        """Let the subject answer each problem."""
        generation = (
            Generation(max_new_tokens=64)
            if self.chat
            else Generation(max_new_tokens=14, stop=("\n",))
        )
        answers = subject.generate([item.context for item in items], generation, progress=progress)
        return {
            self.metrics[0].name: [
                self._outcome(item, answer) for item, answer in zip(items, answers, strict=True)
            ]
        }

    def _asked(self, problem: str) -> str | list[dict[str, str]]:
        if self.chat:
            return [{"role": "user", "content": f"{problem}等于多少？"}]
        return f"{_WORKED}{problem}="

    def _outcome(self, item: Item, answer: Generated) -> Outcome:
        number = told_number(answer.text) if self.chat else continued_number(answer.text)
        return Outcome(
            item=item.id,
            value=float(number == item.extra["value"]),
            group=item.group,
            output=answer.text,
            details={"no_number": float(number is None)},
        )


def make_arithmetic(options: TaskOptions) -> Task:
    """Arithmetic by digit count."""
    return ArithmeticTask(chat=options.chat)
