"""Instruction following by constraints that a program checks: a Chinese IFEval, 500 prompts.

「请介绍一下长江。要求：不超过30个字。」 Fifteen kinds of constraints (`constraints.KINDS`) with 26
or 27 prompts each, and 100 prompts with two at once, on forty topics, drawn with a fixed seed.

- `following_strict`: the answer, exactly as it is, keeps every constraint, and ends by itself.
- `following_loose`: so does it after what chat models put around it is taken away (Markdown stars,
  a first or last line), whether it ends or not.

Groups are kinds. Some constraints are kept by accident (an answer that leaves a word out), so there
is no chance line for the whole; look at the groups, and at the checkpoint before SFT. Prompts go
through the chat template; a model that has none reads them as plain text and a line end. They are
ours and in no training file of the project; nothing is held out.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence
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
from minimind.eval.tasks.constraints import KINDS, TOGETHER, TOPICS, Constraint, make_constraint

ITEMS = 500
PAIRS = 100
SEED = 0
BUDGET = 192
_ASKED = ("请介绍一下{}。", "请写一段关于{}的话。", "谈谈{}。", "关于{}，你能说些什么？")

STRICT = Metric(
    name="following_strict", unit="answers", note="every constraint kept by the answer as it is"
)
LOOSE = Metric(
    name="following_loose", unit="answers", note="kept without Markdown stars, first or last line"
)


@dataclass(frozen=True, kw_only=True)
class FollowingTask:
    """Prompts with constraints.

    Attributes:
        name: as in `--tasks`.
        metrics: strict and loose.
    """

    name: str = "following"
    metrics: tuple[Metric, ...] = (STRICT, LOOSE)

    def items(self) -> Sequence[Item]:
        """Return the prompts; `extra` has the constraints."""
        return [
            Item(
                id=f"{number}:{group}", text=prompt, group=group,
                context=[{"role": "user", "content": prompt}], extra={"constraints": constraints},
            )
            for number, (group, prompt, constraints) in enumerate(_prompts())
        ]  # fmt: skip

    def run(
        self, subject: Subject, items: Sequence[Item], *, progress: Progress = no_progress
    ) -> Outcomes:
        """Let the subject answer each prompt."""
        prompts = [
            item.context if subject.has_chat_template else f"{item.text}\n" for item in items
        ]
        generation = Generation(max_new_tokens=BUDGET)
        answers = subject.generate(prompts, generation, progress=progress)
        pairs = list(zip(items, answers, strict=True))
        return {
            STRICT.name: [_outcome(item, answer, strict(item, answer)) for item, answer in pairs],
            LOOSE.name: [_outcome(item, answer, loose(item, answer)) for item, answer in pairs],
        }


def _prompts() -> Iterator[tuple[str, str, tuple[Constraint, ...]]]:
    """Yield (group, prompt, constraints), each prompt once."""
    draw = random.Random(SEED)
    seen: set[str] = set()
    wanted = [
        (kind,) for kind, _ in zip(itertools.cycle(KINDS), range(ITEMS - PAIRS), strict=False)
    ]
    wanted += [pair for pair, _ in zip(itertools.cycle(TOGETHER), range(PAIRS), strict=False)]
    for kinds in wanted:
        prompt = ""
        constraints: tuple[Constraint, ...] = ()
        while not prompt or prompt in seen:
            topic = draw.choice(TOPICS)
            constraints = tuple(make_constraint(kind, topic, draw) for kind in kinds)
            demands = "".join(constraint.asked for constraint in constraints)
            prompt = f"{draw.choice(_ASKED).format(topic.name)}要求：{demands}"
        seen.add(prompt)
        yield "+".join(kinds) if len(kinds) == 1 else "two", prompt, constraints


def strict(item: Item, answer: Generated) -> bool:
    """Tell whether the answer as it is keeps every constraint, and ends by itself."""
    return answer.finished == "stop" and _holds(item, answer.text)


def loose(item: Item, answer: Generated) -> bool:
    """Tell whether any of its variants keeps every constraint."""
    lines = answer.text.split("\n")
    variants = [answer.text, "\n".join(lines[1:]), "\n".join(lines[:-1]), "\n".join(lines[1:-1])]
    return any(
        _holds(item, text) for variant in variants for text in (variant, variant.replace("*", ""))
    )


def _holds(item: Item, text: str) -> bool:
    return all(constraint.holds(text) for constraint in item.extra["constraints"])


def _outcome(item: Item, answer: Generated, kept: bool) -> Outcome:
    return Outcome(item=item.id, value=float(kept), group=item.group, output=answer.text,
                   details={"unfinished": float(answer.finished != "stop")})  # fmt: skip


def make_following(_: TaskOptions) -> Task:
    """Constraints that a program checks."""
    return FollowingTask()
