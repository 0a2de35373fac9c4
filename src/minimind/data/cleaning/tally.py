"""What a cleaning run counts: documents and bytes in and out, by rule and by source."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from typing import Any

from minimind.data.cleaning.page import Change, Drop
from minimind.data.document import Document
from minimind.data.sources.text import count_hanzi

EXAMPLES = 3
_SHOWN = 240


@dataclass(slots=True)
class Tally:
    """Counts of one shard and stage, or of many added up.

    Attributes:
        documents: rows that held a text.
        bytes_in: bytes of the rows that were read.
        text_bytes: UTF-8 bytes of their texts.
        dropped: rule -> documents; `dropped_bytes`: rule -> UTF-8 bytes of their texts.
        edits: "rule: kind" -> how often something was changed; `edited`: rule -> documents.
        unusable: reason -> rows without a text (broken, wrong field, not JSON ...).
        rescued: decoder -> rows that weren't UTF-8.
        kept: "source | licence" -> [documents, bytes, hanzi].
        examples: rule -> up to three dropped documents: {id, reason, text}.
    """

    documents: int = 0
    bytes_in: int = 0
    text_bytes: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    dropped_bytes: Counter[str] = field(default_factory=Counter)
    edits: Counter[str] = field(default_factory=Counter)
    edited: Counter[str] = field(default_factory=Counter)
    unusable: Counter[str] = field(default_factory=Counter)
    rescued: Counter[str] = field(default_factory=Counter)
    kept: dict[str, list[int]] = field(default_factory=dict)
    examples: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    def drop(self, rule: str, drop: Drop, document: Document) -> None:
        """Count a dropped document; of all, those with the lowest hash become examples."""
        self.dropped[rule] += 1
        self.dropped_bytes[rule] += len(document.text.encode("utf-8", "surrogatepass"))
        start = max(min((a for a, _ in drop.spans), default=0) - 40, 0)
        key = hashlib.blake2b(document.id.encode("utf-8", "surrogatepass"), digest_size=8)
        example = {"order": key.hexdigest(), "id": document.id, "reason": drop.reason,
                   "text": document.text[start : start + _SHOWN]}  # fmt: skip
        self._example(rule, [example])

    def _example(self, rule: str, examples: list[dict[str, Any]]) -> None:
        every = sorted(self.examples.get(rule, []) + examples, key=lambda e: (e["order"], e["id"]))
        self.examples[rule] = every[:EXAMPLES]

    def keep(self, document: Document) -> None:
        """Count a document of the output."""
        name = f"{document.meta.get('source', '')} | {document.meta.get('licence', 'unknown')}"
        counts = self.kept.setdefault(name, [0, 0, 0])
        text = document.text
        for place, count in enumerate(
            (1, len(text.encode("utf-8", "surrogatepass")), count_hanzi(text))
        ):
            counts[place] += count

    def change(self, counts: Counter[tuple[str, str]]) -> None:
        """Count what the editors did to one document."""
        for (rule, kind), times in counts.items():
            self.edits[rule if rule == kind else f"{rule}: {kind}"] += times
        self.edited.update({rule for rule, _ in counts})

    def add(self, other: Tally) -> None:
        """Add another's counts."""
        self.documents += other.documents
        self.bytes_in += other.bytes_in
        self.text_bytes += other.text_bytes
        for name in ("dropped", "dropped_bytes", "edits", "edited", "unusable", "rescued"):
            getattr(self, name).update(getattr(other, name))
        for name, counts in other.kept.items():
            mine = self.kept.setdefault(name, [0, 0, 0])
            self.kept[name] = [a + b for a, b in zip(mine, counts, strict=True)]
        for rule, examples in other.examples.items():
            self._example(rule, examples)

    def to_json(self) -> dict[str, Any]:
        """Return builtins."""
        # Not `asdict`: it takes a Counter apart wrongly.
        values = ((f.name, getattr(self, f.name)) for f in fields(self))
        return {name: dict(v) if isinstance(v, Counter) else v for name, v in values}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Tally:
        """Return what `to_json` gave."""
        counters = ("dropped", "dropped_bytes", "edits", "edited", "unusable", "rescued")
        fields_of: dict[str, Any] = {
            k: Counter(v) if k in counters else v for k, v in value.items()
        }
        return cls(**fields_of)


def total(tallies: Iterable[Tally]) -> Tally:
    """Return the sum."""
    result = Tally()
    for tally in tallies:
        result.add(tally)
    return result


def change_row(document_id: str, rule: str, change: Change) -> dict[str, str]:
    """Return the row of the log of edits."""
    return {"id": document_id, "rule": rule, "kind": change.kind, "before": change.before,
            "after": change.after}  # fmt: skip
