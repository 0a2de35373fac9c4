# ruff: noqa: E501 - ruff counts a hanzi as two columns
"""A cleaning run for reading: samples of what was kept and dropped, and a page that shows them."""

from __future__ import annotations

import hashlib
import heapq
import html
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from minimind.data.cleaning.pii import MASKS
from minimind.data.cleaning.run import REPORT
from minimind.data.cleaning.shards import read_shard
from minimind.errors import DataError

_AROUND = 260
_TEMPLATE = Path(__file__).with_name("look.html")


@dataclass(slots=True)
class Sample:
    """A document to read.

    Attributes:
        rule: what dropped it, "" for a kept one; `reason` in words.
        spans: (from, to) in `text` to highlight.
        edits: what was changed in a kept one: (rule, kind, before, after).
    """

    id: str
    text: str
    source: str
    licence: str
    rule: str = ""
    reason: str = ""
    spans: list[tuple[int, int]] = field(default_factory=list)
    edits: list[dict[str, str]] = field(default_factory=list)

    def excerpt(self) -> tuple[str, list[tuple[int, int]]]:
        """Return the passage around the first span, and the spans in it."""
        first = self.spans[0][0] if self.spans else 0
        start = max(first - _AROUND // 2, 0)
        stop = min(start + 3 * _AROUND, len(self.text))
        inside = [(max(a, start) - start, min(b, stop) - start) for a, b in self.spans
                  if a < stop and b > start]  # fmt: skip
        return self.text[start:stop], inside


@dataclass(frozen=True, slots=True)
class Samples:
    """Samples of a run, and its report."""

    kept: list[Sample]
    dropped: list[Sample]
    report: dict[str, Any]


def draw(out: Path, *, count: int, rules: tuple[str, ...] = (), seed: int = 0) -> Samples:
    """Return `count` kept documents and `count` dropped ones a rule, drawn by a seeded hash.

    Raises:
        DataError: `out` is not the folder of a finished run, or no such rule dropped anything.
    """
    try:
        report = json.loads((out / REPORT).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(
            f"{out} is not a finished cleaning run ({error}). `minimind data clean` makes one, "
            "and the same command goes on with an interrupted one"
        ) from error
    there = set(report["dropped"])
    if wrong := set(rules) - there:
        raise DataError(f"no document was dropped by {', '.join(sorted(wrong))}. "
                        f"Rules that dropped: {', '.join(sorted(there))}")  # fmt: skip
    kept = [_sample(row) for row in _lowest(_rows(out / "data"), count, seed)]
    by_rule: dict[str, list[dict[str, Any]]] = {}
    for row in _rows(out / "rejects"):
        if not rules or row["rule"] in rules:
            held = by_rule.setdefault(row["rule"], [])
            held.append(row)
            if len(held) > 64 + 2 * count:
                by_rule[row["rule"]] = _lowest(held, count, seed)
    order = {rule: place for place, rule in enumerate(report["rules"])}
    dropped = [_sample(row) for rule in sorted(by_rule, key=lambda r: order.get(r, 99))
               for row in _lowest(by_rule[rule], count, seed)]  # fmt: skip
    _add_edits(out, {sample.id: sample for sample in kept})
    return Samples(kept, dropped, report)


def _rows(folder: Path) -> Iterator[dict[str, Any]]:
    for path in sorted(folder.glob("*.jsonl.zst")):
        yield from read_shard(path)


def _lowest(rows: Any, count: int, seed: int) -> list[dict[str, Any]]:
    def order(row: dict[str, Any]) -> bytes:
        name = f"{seed}:{row.get('source', '')}:{row['id']}"
        return hashlib.blake2b(name.encode("utf-8", "replace"), digest_size=8).digest()

    return heapq.nsmallest(count, rows, key=order)


def _sample(row: dict[str, Any]) -> Sample:
    spans = [(a, b) for a, b in row.get("spans", [])]
    if not row.get("rule"):
        spans = sorted(span for mask in MASKS.values() for span in _places(row["text"], mask))
    return Sample(row["id"], row["text"], row.get("source", ""), row.get("licence", ""),
                  row.get("rule", ""), row.get("reason", ""), spans)  # fmt: skip


def _places(text: str, part: str) -> Iterator[tuple[int, int]]:
    at = text.find(part)
    while at >= 0:
        yield at, at + len(part)
        at = text.find(part, at + len(part))


def _add_edits(out: Path, kept: dict[str, Sample]) -> None:
    for row in _rows(out / "edits"):
        if (sample := kept.get(row["id"])) is not None and len(sample.edits) < 8:
            sample.edits.append({key: row[key] for key in ("rule", "kind", "before", "after")})


def page(samples: Samples) -> str:
    """Return a self-contained HTML page."""
    report = samples.report
    rules = [rule for rule in report["rules"] if report["dropped"].get(rule)]
    changed = [rule for rule in report["rules"] if report["edited"].get(rule)]
    most = max((report["dropped"][rule] for rule in rules), default=1)
    parts = {
        "SUMMARY": (
            f"{report['documents']:,} documents, {report['text_bytes'] / 1e6:.1f} MB in · "
            f"{report['documents_out']:,} documents, {report['bytes_out'] / 1e6:.1f} MB, "
            f"{report['hanzi_out'] / 1e6:.2f} M hanzi out"
        ),
        "RULES": "".join(
            f'<button data-rule="{rule}" aria-pressed="false"><b>{rule}</b>'
            f'<i style="width:{max(2, 90 * report["dropped"][rule] / most):.0f}px"></i>'
            f"{report['dropped'][rule]:,}</button>"
            for rule in rules
        ),
        "EDITS": " · ".join(f"{rule} {report['edited'][rule]:,}" for rule in changed),
        "KEPT": "".join(map(_card, samples.kept)),
        "DROPPED": "".join(map(_card, samples.dropped)),
    }
    text = _TEMPLATE.read_text("utf-8")
    for name, value in parts.items():
        text = text.replace(f"<!--{name}-->", value)
    return text


def _card(sample: Sample) -> str:
    text, spans = sample.excerpt()
    why = (f'<p class="why"><b>{html.escape(sample.rule)}</b> {html.escape(sample.reason)}</p>'
           if sample.rule else "")  # fmt: skip
    edits = "".join(
        f"<li><b>{html.escape(e['rule'])}</b> <del>{html.escape(e['before'])}</del> "
        f"<ins>{html.escape(e['after'])}</ins></li>"
        for e in sample.edits
    )
    edits = (
        f"<details><summary>{len(sample.edits)} edits</summary><ul>{edits}</ul></details>"
        if edits
        else ""
    )
    whole = ""
    if len(text) < len(sample.text):
        rest = html.escape(sample.text[:20_000])
        whole = f"<details><summary>all {len(sample.text):,} characters</summary><pre>{rest}</pre></details>"
    return (
        f'<article data-rule="{html.escape(sample.rule)}"><header>{html.escape(sample.id)}'
        f"<span>{html.escape(sample.source)} · {html.escape(sample.licence or 'unknown')}</span></header>"
        f"{why}<pre>{_marked(text, spans)}</pre>{edits}{whole}</article>"
    )


def _marked(text: str, spans: list[tuple[int, int]]) -> str:
    parts, at = [], 0
    for start, stop in sorted(spans):
        if start >= at:
            parts += [html.escape(text[at:start]), f"<mark>{html.escape(text[start:stop])}</mark>"]
            at = stop
    return "".join([*parts, html.escape(text[at:])])
