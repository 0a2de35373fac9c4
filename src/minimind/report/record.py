"""Sections on what is on record: samples along training, data files, cost, settings, commands."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from minimind.eval.results import StageRecord
from minimind.report.blocks import Block, Code, Folded, Heading, Paragraph, Table, quoted
from minimind.report.wording import COMMANDS
from minimind.report.writer import Run, Training, Writer

DONE_IN_ORDER = (
    "data", "tokenizer", "plan", "pretrain", "sft", "preferences", "dpo", "evaluation"
)  # fmt: skip

LONG_DATA = 12
"""Data files that are listed one by one."""


def along(run: Run, say: Writer) -> list[Block]:
    """What the model said to the same prompts while it learnt (samples.txt)."""
    blocks: list[Block] = []
    for training in run.trainings.values():
        for prompt in dict.fromkeys(prompt for _, prompt, _ in training.said):
            rows = tuple(
                (f"{step:,}", quoted(text) or say("empty"))
                for step, asked, text in training.said
                if asked == prompt
            )
            about = say("prompt", prompt=quoted(prompt))
            blocks.append(Paragraph(f"**{say.stage(training.name)} · {about}**"))
            blocks.append(Table((say("x_step"), say("output")), rows, frozenset({0})))
    return [Heading(say("along")), Paragraph(say("along_text")), *blocks] if blocks else []


def cost(run: Run, say: Writer) -> list[Block]:
    """Time, tokens, rate, FLOPs and money of every stage."""
    names = [record.name for record in in_order(run)] or list(run.trainings)
    names = [name for name in names if run.seconds(name)]
    if not names:
        return []
    header = [say("stage"), say("time"), say("tokens"), say("per_second"), say("flops")]
    priced = run.price is not None
    if priced:
        header.append(f"{say('card_cost')} {run.currency}".strip())
    rows = [_cost_row(run, name, say) for name in names]
    total = [say("total"), say.duration(run.total_seconds), f"{run.tokens:,}", "", ""]
    if run.price is not None:
        total.append(money(run.price * run.total_seconds / 3600))
    table = Table(tuple(header), (*rows, tuple(total)), frozenset(range(1, len(header))))
    sentences = [
        say("cost_price", price=run.price, currency=run.currency,
            cost=money((run.price or 0) * run.total_seconds / 3600))
        if priced
        else say("cost_no_price", directory=shlex.quote(str(run.directory))),
        say("energy_no"), say("cost_text"),
    ]  # fmt: skip
    return [Heading(say("cost")), table, Paragraph(say.paragraph(sentences))]


def money(amount: float) -> str:
    """Return an amount with as many decimals as it needs."""
    return f"{amount:,.2f}" if amount >= 1 else f"{amount:.4f}"


def in_order(run: Run) -> list[StageRecord]:
    """Return what was done in the order of the path: stages.json has that of its writing."""
    places = {name: number for number, name in enumerate(DONE_IN_ORDER)}
    return sorted(run.stages.stages, key=lambda record: places.get(record.name, len(places)))


def _cost_row(run: Run, name: str, say: Writer) -> tuple[str, ...]:
    training = run.trainings.get(name)
    tokens = int((training and training.last("tokens")) or 0)
    rates = sorted(line["tokens_per_second"] for line in (training.steps if training else ())
                   if line.get("tokens_per_second"))  # fmt: skip
    parameters = (training and training.parameters) or run.parameters
    row = [
        say.stage(name), say.duration(run.seconds(name)), f"{tokens:,}" if tokens else "",
        f"{rates[len(rates) // 2]:,.0f}" if rates else "",
        f"{6 * parameters * tokens:.2e}" if tokens and parameters else "",
    ]  # fmt: skip
    if run.price is not None:
        row.append(money(run.price * run.seconds(name) / 3600))
    return tuple(row)


def settings(run: Run, say: Writer) -> list[Block]:
    """All settings, folded."""
    folded = [
        Folded(
            say("settings_of", stage=say.stage(training.name)),
            (Code(tuple(training.toml.rstrip().splitlines())),),
        )
        for training in run.trainings.values()
        if training.toml
    ]
    return [Heading(say("settings")), Paragraph(say("settings_text")), *folded] if folded else []


def data_files(training: Training, say: Writer) -> list[Block]:
    """The data files of one run with checksums and licences."""
    entries: Sequence[Mapping[str, Any]] = training.ledger.get("data", ())
    if not entries:
        return []
    rows = tuple(
        (
            f"`{entry.get('path', '')}`",
            ", ".join(map(str, entry.get("licences", ()))),
            f"{float(entry.get('bytes', 0)) / 1e6:.2f}",
            f"`{str(entry.get('sha256', ''))[:12]}`",
        )
        for entry in entries
    )
    header = (say("file"), say("licence"), say("megabytes"), say("sha256"))
    table: Block = Table(header, rows, frozenset({2}))
    title = say("files", stage=say.stage(training.name))
    if len(rows) > LONG_DATA:
        table = Folded(f"{title} ({len(rows)})", (table,))
    used = training.ledger.get("used", {})
    figures = {name: int(used.get(name, 0)) for name in ("documents", "tokens", "rejects")}
    return [Heading(title, level=3), table, Paragraph(say("used", **figures))]


def commands(run: Run, say: Writer) -> list[Block]:
    """The exact commands to repeat it and to go on."""
    names = COMMANDS[say.language]
    listed = [(c, names.get(purpose, purpose)) for purpose, c in run.stages.commands.items()]
    for one in run.trainings.values():
        if not one.toml:
            continue
        at, again = shlex.quote(str(one.directory)), shlex.quote(f"{one.name}-again")
        stage = say.stage(one.name)
        listed.append((f"minimind train {at}/run.toml --name {again}", say("again", stage=stage)))
        if run.kind != "quickstart":
            listed.append((f"minimind train {at}/run.toml --resume", say("resume_it")))
            verb = "generate" if one.settings.get("data", {}).get("kind") == "text" else "chat"
            listed.append((f"minimind {verb} {at}", say("talk")))
    if not listed:
        return []
    if "report" not in run.stages.commands:
        where = shlex.quote(str(run.directory))
        listed.append((f"minimind report {where}", say("make_report")))
    lines = tuple(line for command, purpose in listed for line in (f"# {purpose}", command))
    return [Heading(say("next")), Code(lines)]
