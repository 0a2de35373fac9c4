"""Bits per byte of held-out text by domain: the figure that moves first and furthest.

A text is read as one document; its end is not scored (`eval.bits_per_byte`, which the quickstart
reports, counts the end as well, so its figures are a little higher). Bits are summed over all
tokens, bytes are UTF-8, and windows don't overlap, so that tokenizers and context lengths of other
models compare. 8 is no knowledge at all. Domains are the sources of the catalogue: `domains` has
the eight embedded packages, `domains_full` all of them.

Held out are the documents that the hash of their text keeps out of training; at most 100 a domain,
drawn with a seed, so that laws don't drown the rest.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from minimind.data.catalogue import GROUPS
from minimind.eval.bits_per_byte import utf8
from minimind.eval.held_out import draw
from minimind.eval.tasks import sources
from minimind.eval.tasks.base import (
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

EACH = 100
SEED = 0


@dataclass(frozen=True, kw_only=True)
class DomainsTask:
    """Texts to be read.

    Attributes:
        name: as in `--tasks`.
        group: of the catalogue: `embedded` or `full`.
        metrics: bits per byte; groups are sources.
    """

    name: str
    group: str
    metrics: tuple[Metric, ...]

    def items(self) -> Sequence[Item]:
        """Return the held-out texts of every source.

        Raises:
            FetchError: a package can't be had.
        """
        return [
            Item(id=document.id, text=document.text, group=source)
            for source in GROUPS[self.group]
            for document in draw(sources.documents(source).held_out, limit=EACH, seed=SEED)
        ]

    def run(
        self, subject: Subject, items: Sequence[Item], *, progress: Progress = no_progress
    ) -> Outcomes:
        """Read every text."""
        likelihoods = subject.rolling([item.text for item in items], progress=progress)
        return {
            self.metrics[0].name: [
                Outcome(item=item.id, value=-likelihood.log_prob / math.log(2), group=item.group,
                        weight=float(len(utf8(item.text))), details={"tokens": likelihood.tokens})
                for item, likelihood in zip(items, likelihoods, strict=True)
            ]
        }  # fmt: skip


def make_domains(_: TaskOptions) -> Task:
    """Bits per byte of the embedded sources."""
    return _task("domains", "embedded")


def make_domains_full(_: TaskOptions) -> Task:
    """Bits per byte of every source of the catalogue."""
    return _task("domains_full", "full")


def _task(name: str, group: str) -> Task:
    metric = Metric(
        name=f"{name}_bits_per_byte", unit="documents", kind="ratio", higher_is_better=False,
        percent=False, note="bits per UTF-8 byte of held-out text; document ends not counted",
    )  # fmt: skip
    return DomainsTask(name=name, group=group, metrics=(metric,))
