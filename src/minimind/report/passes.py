"""The section on how often the text was read: tokens trained, tokens that there are, passes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from minimind.eval.results import MANY_PASSES
from minimind.report.blocks import Block, Heading, Paragraph, Table, Verdict
from minimind.report.record import in_order
from minimind.report.writer import Run, Writer


def passes(run: Run, say: Writer) -> list[Block]:
    """One row a stage and path of its data, and a warning where it was read too often."""
    read = [(done, part) for done in in_order(run) for part in done.read]
    if not read:
        return []
    header = tuple(
        say(key) for key in ("stage", "path_read", "tokens_read", "tokens_there", "passes")
    )
    rows = [
        (
            say.stage(done.name),
            f"`{part.get('what', '')}`",
            f"{round(done.tokens * float(part.get('share', 1))):,}",
            _there(part, say),
            say("passes_unknown") if part.get("passes") is None else f"{part['passes']:,.1f}",
        )
        for done, part in read
    ]
    blocks: list[Block] = [
        Heading(say("passes_title")), Table(header, tuple(rows), frozenset({2, 3, 4})),
    ]  # fmt: skip
    often = {
        say.stage(done.name): f"{part['passes']:,.1f}"
        for done, part in read
        if (part.get("passes") or 0) > MANY_PASSES
    }
    if often:
        listed = say.listed([f"{stage} **{count}**" for stage, count in often.items()])
        blocks.append(Verdict(False, say("passes_many", list=listed, many=MANY_PASSES)))
    return [*blocks, Paragraph(say("passes_text"))]


def _there(part: Mapping[str, Any], say: Writer) -> str:
    tokens = part.get("unique tokens")
    return say("passes_unknown") if tokens is None else f"{tokens:,} ({say(str(part['how']))})"
