"""The rules on one document, one after another."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from functools import lru_cache

from minimind.data.cleaning.config import Rules
from minimind.data.cleaning.page import Change, Drop, Editor, Filter, Page
from minimind.data.document import Document

_AGAIN = {"encoding", "script"}
"""After these the text is another one: the editors before them look once more."""

_PASSES = 6


@dataclass(slots=True)
class Outcome:
    """What became of a document.

    Attributes:
        page: its text as the last rule saw it.
        rule: the rule that dropped it, or "" for a document that is kept.
        drop: why.
        counts: (rule, kind) -> how often an editor changed something.
        changes: (rule, change), a few of them.
    """

    page: Page
    rule: str = ""
    drop: Drop | None = None
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    changes: list[tuple[str, Change]] = field(default_factory=list)


def clean(document: Document, rules: Rules) -> Outcome:
    """Return the document cleaned, or the rule that dropped it.

    A cleaned document that is cleaned again stays as it is.
    """
    outcome = Outcome(Page(document))
    steps, _ = _plan(rules)
    for _ in range(_PASSES):
        if not (_edits(outcome, steps) & _AGAIN) or outcome.rule:
            break
    if not outcome.rule:
        check(outcome, rules)
    return outcome


@lru_cache(maxsize=8)
def _plan(rules: Rules) -> tuple[list[tuple[str, Editor | Filter]], list[tuple[str, Filter]]]:
    """Return the editors with the licence filter in its place among them, and the filters."""
    active = rules.active()
    filters = [(name, rule) for name, rule in active if isinstance(rule, Filter)]
    steps = [(name, rule) for name, rule in active if isinstance(rule, Editor) or name == "licence"]
    return steps, [(name, rule) for name, rule in filters if name != "licence"]


def _edits(outcome: Outcome, steps: list[tuple[str, Editor | Filter]]) -> set[str]:
    fired: set[str] = set()
    for name, rule in steps:
        if isinstance(rule, Editor):
            edited = rule.edit(outcome.page)
            if edited is None:
                continue
            fired.add(name)
            outcome.page = outcome.page.with_text(edited.text)
            outcome.counts.update({(name, kind): n for kind, n in edited.counts.items()})
            outcome.changes += [(name, change) for change in edited.changes]
        elif drop := rule.check(outcome.page):
            outcome.rule, outcome.drop = name, drop
            break
    return fired


def check(outcome: Outcome, rules: Rules) -> None:
    """Run the filters on the text as it is, and note the first that drops it."""
    for name, rule in _plan(rules)[1]:
        if drop := rule.check(outcome.page):
            outcome.rule, outcome.drop = name, drop
            return
