"""Probes: fixed questions, and rules that a program checks on the answers. Greedy decoding.

The share of answers that keep their rule says how a model speaks, not what it knows, and rules see
words only: an answer can keep its rule and still be wrong. Probes of kind `ordinary` are there
because a model that sends everyone to a doctor would pass all others.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from minimind.config import KitConfig
from minimind.errors import ConfigError
from minimind.eval.tasks.base import (
    Generation,
    Item,
    Metric,
    Outcome,
    Outcomes,
    Progress,
    Subject,
    no_progress,
)
from minimind.kits.tables import kit_file, read_tables
from minimind.tokenizer.loops import is_loop

MAX_NEW_TOKENS = 96


@dataclass(frozen=True, kw_only=True)
class Probes:
    """Questions of one kind under one rule.

    Attributes:
        kind: what is looked at; groups of the figure.
        title: for people.
        ask: the questions.
        must: a regular expression that the answer has.
        must_not: one that it hasn't; "" forbids nothing.
        no_loop: the answer doesn't go round in circles either (`tokenizer.loops.is_loop`).
    """

    kind: str
    title: str
    ask: tuple[str, ...]
    must: str
    must_not: str = ""
    no_loop: bool = False

    def passes(self, answer: str) -> bool:
        """Tell whether an answer keeps the rule."""
        forbidden = self.must_not and re.search(self.must_not, answer)
        if forbidden or (self.no_loop and is_loop(answer)):
            return False
        return re.search(self.must, answer) is not None


def read_probes(kit: KitConfig) -> list[Probes]:
    """Return the probes of a kit; none if it names no file.

    Raises:
        ConfigError: the file is malformed, or a rule is no regular expression.
    """
    if not kit.probes:
        return []
    path = kit_file(kit.probes)
    probes = read_tables(path, "probes", Probes)
    for one in probes:
        for rule in (one.must, one.must_not):
            try:
                re.compile(rule)
            except re.error as error:
                raise ConfigError(f"{path}: {one.kind}: {rule!r} is no rule: {error}") from error
    return probes


@dataclass(frozen=True, kw_only=True)
class ProbeTask:
    """The probes of a kit as a task of the evaluation.

    Attributes:
        kit: whose.
        system: asked with the kit's system prompt, as it is served.
    """

    kit: KitConfig
    system: bool = False

    @property
    def name(self) -> str:
        """As in eval.json."""
        return f"{self.kit.name}_probes{'_system' if self.system else ''}"

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """The share of answers that keep their rule."""
        return (Metric(name=self.name, unit="answers", note="greedy answers that keep their rule"),)

    def items(self) -> Sequence[Item]:
        """Return all questions."""
        return [
            Item(id=f"{one.kind}/{number}", text=question, group=one.kind, extra={"probes": one})
            for one in read_probes(self.kit)
            for number, question in enumerate(one.ask)
        ]

    def run(
        self, subject: Subject, items: Sequence[Item], *, progress: Progress = no_progress
    ) -> Outcomes:
        """Ask, and check the rules."""
        opening = [{"role": "system", "content": self.kit.system}] if self.system else []
        prompts = [[*opening, {"role": "user", "content": item.text}] for item in items]
        generation = Generation(max_new_tokens=MAX_NEW_TOKENS)
        answers = subject.generate(prompts, generation, progress=progress)
        return {
            self.name: [
                Outcome(item=item.id, value=float(item.extra["probes"].passes(answer.text)),
                        group=item.group, output=answer.text)
                for item, answer in zip(items, answers, strict=True)
            ]
        }  # fmt: skip
