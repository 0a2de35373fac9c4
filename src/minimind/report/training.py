"""Sections on training: the path, the curves with their bands, samples, time and cost, settings."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from minimind.eval.results import StageRecord
from minimind.report.blocks import (
    Block,
    Cards,
    Code,
    Figure,
    Folded,
    Heading,
    Paragraph,
    Path,
    Table,
    Verdict,
    quoted,
)
from minimind.report.charts import Area, LinePlot, Series, Unit, running_mean
from minimind.report.writer import Run, Training, Writer
from minimind.train import bands

USUAL = {
    "step", "loss", "lr", "grad_norm", "tokens", "learnt_tokens", "tokens_per_second", "seconds",
    "mfu", "skipped_steps",
}  # fmt: skip
"""Figures of every stage; what else a line has belongs to the objective."""

DONE_IN_ORDER = (
    "data", "tokenizer", "plan", "pretrain", "sft", "preferences", "dpo", "evaluation"
)  # fmt: skip

MEANS = 25
"""A running mean covers this share of the points, one of 25."""

LONG_DATA = 12
"""Data files that are listed one by one."""


def cards(run: Run, say: Writer) -> list[Block]:
    """The few figures that come first."""
    items: list[tuple[str, str, str]] = []
    if run.parameters:
        note = say("card_presets", preset=run.stages.preset) if run.stages.preset else ""
        items.append((f"{run.parameters / 1e6:.2f}M", say("card_parameters"), note))
    if run.tokens:
        items.append((f"{run.tokens:,}", say("card_tokens"), ""))
    if run.total_seconds:
        items.append((say.duration(run.total_seconds), say("card_time"), run.stages.device))
    if run.price is not None:
        note = say("card_price", price=run.price, currency=run.currency)
        cost = run.price * run.total_seconds / 3600
        items.append((f"{money(cost)} {run.currency}".strip(), say("card_cost"), note))
    if (bits := _bits(run)) is not None:
        items.append((f"{bits:.3f}", say("card_bpb"), say("card_bpb_note")))
    return [Cards(tuple(items))] if items else []


def _bits(run: Run) -> float | None:
    for subject, measures in run.evaluation.results.items():
        if subject == "pretrain" and "bits_per_byte" in measures:
            return measures["bits_per_byte"].value
    found = [training.last("validation_bits_per_byte") for training in run.trainings.values()]
    return next((value for value in found if value is not None), None)


def path(run: Run, say: Writer) -> list[Block]:
    """From data to chat, as boxes."""
    steps: list[tuple[str, str]] = []
    details = {record.name: record.details for record in run.stages.stages}
    if run.kind != "quickstart":
        return _path_of_one(run, say) if run.kind == "run" else []
    words = {
        "data": ("documents", "path_documents"),
        "tokenizer": ("vocabulary", "path_vocabulary"),
        "preferences": ("pairs", "path_pairs"),
    }
    for name in ("data", "tokenizer", "pretrain", "sft", "preferences", "dpo"):
        record, training = run.stages.get(name), run.trainings.get(name)
        if record is None and training is None:
            continue
        about = ""
        if name in words and (value := details.get(name, {}).get(words[name][0])):
            about = say(words[name][1], **{words[name][0]: value})
        elif training and (tokens := training.last("tokens")):
            about = say("path_trained", tokens=int(tokens))
        steps.append((say.stage(name), about))
    if not steps:
        return []
    return [Heading(say("path")), Path((*steps, (say("chat"), say("path_chat"))))]


def _path_of_one(run: Run, say: Writer) -> list[Block]:
    steps: list[tuple[str, str]] = []
    for training in run.trainings.values():
        if files := len(training.ledger.get("data", ())):
            steps.append((say.stage("data"), say("path_files", files=files)))
        checkpoint = training.settings.get("init", {}).get("checkpoint")
        start = f"`{checkpoint}`" if checkpoint else say("random")
        steps.append((say.stage(training.name), say("path_start", start=start)))
    return [Heading(say("path")), Path(tuple(steps))] if steps else []


def curves(run: Run, say: Writer) -> list[Block]:
    """The curves of every training run, and where it is beside its loss band."""
    blocks: list[Block] = []
    for training in run.trainings.values():
        if training.steps:
            blocks += _curves_of(training, say, titled=len(run.trainings) > 1)
    return [Heading(say("training")), Paragraph(say("curves_text")), *blocks] if blocks else []


def _curves_of(training: Training, say: Writer, *, titled: bool) -> list[Block]:
    stage = say.stage(training.name)
    blocks: list[Block] = [Heading(stage, level=3)] if titled else []
    blocks.append(Paragraph(say.paragraph(_in_words(training, say))))
    if training.verdict is not None:
        good = training.verdict.where == "inside"
        blocks.append(Verdict(good, verdict_words(training.verdict, say)))
    blocks.append(
        Figure(f"curves-{training.name}", tuple(_plots(training, say)),
               say("training_caption", stage=stage))
    )  # fmt: skip
    if training.band is not None:
        reach = training.band.points[-1].tokens / 1e6
        blocks.append(Paragraph(say("band_text", average=training.band.average, reach=reach)))
    if extra := _extra_plots(training, say):
        caption = say("metrics_caption", stage=stage)
        blocks.append(Figure(f"metrics-{training.name}", tuple(extra), caption))
    return blocks


def _in_words(training: Training, say: Writer) -> list[str]:
    last = training.steps[-1]
    loss = last["loss"] if last["loss"] is not None else math.nan
    sentences = [
        say("training_text", steps=int(last["step"]), tokens=int(last.get("tokens", 0)), loss=loss,
            time=say.duration(float(training.last("seconds") or 0)))
    ]  # fmt: skip
    held_out = [
        (line["validation_loss"], line["step"])
        for line in training.lines
        if line.get("validation_loss") is not None
    ]
    if held_out:
        best, step = min(held_out)
        sentences.append(say("training_best", best=best, step=step, last=held_out[-1][0]))
    if skipped := training.last("skipped_steps"):
        sentences.append(say("training_skipped", skipped=int(skipped)))
    return sentences


def verdict_words(verdict: bands.Verdict, say: Writer) -> str:
    """Say where a run is beside its band, and what to look at where it left it."""
    point = verdict.point
    hints = [
        say("hint_setting", name=name, mine=mine, theirs=theirs)
        for name, (mine, theirs) in verdict.differs.items()
    ]
    if not hints and verdict.grad_norm > 3 * point.grad_norm:
        hints = [say("hint_norm", mine=verdict.grad_norm, theirs=point.grad_norm)]
    if not hints:
        hints = [say("hint_below" if verdict.where == "below" else "hint_above")]
    key = "nan" if verdict.where == "not a number" else verdict.where
    return say(
        f"band_{key}", tokens=point.tokens / 1e6, loss=verdict.loss, seeds=verdict.seeds,
        low=point.low, high=point.high, hint=say.listed(hints),
    )  # fmt: skip


# ---------------------------------------------------------------- plots


def over(training: Training, key: str, *, by: str = "tokens") -> list[tuple[float, float]]:
    """Return (x, figure) of the lines that have the figure; a validation is at its step's x.

    Without tokens in the lines (none of a run of ours) they are over steps; without times nowhere.
    """
    known = {line["step"]: line[by] for line in training.lines if line.get(by) is not None}
    if by == "seconds" and not known:
        return []
    return [
        (float(known.get(line["step"], line["step"])), float(line[key]))
        for line in training.lines
        if line.get(key) is not None
    ]


def axis(training: Training, say: Writer) -> tuple[str, Unit]:
    """Return the label and the unit of the x axis."""
    if any(line.get("tokens") for line in training.lines):
        return say("x_tokens"), "tokens"
    return say("x_step"), ""


def smooth(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the running mean of points, over one of `MEANS` of them."""
    means = running_mean([y for _, y in points], window=max(1, len(points) // MEANS))
    return [(x, mean) for (x, _), mean in zip(points, means, strict=True)]


def _plots(training: Training, say: Writer) -> list[LinePlot]:
    label, unit = axis(training, say)
    loss = over(training, "loss")
    series = [Series(say("raw"), loss, 0, "faint"), Series(say("mean"), smooth(loss), 0)]
    if held_out := over(training, "validation_loss"):
        series.append(Series(say("held_out"), held_out, 1, "dots"))
    areas = ()
    if training.band is not None:
        points = [(p.tokens, p.low, p.high) for p in training.band.points]
        areas = (Area(say("band", seeds=len(training.band.seeds)), points),)
    dpo = training.settings.get("objective", {}).get("kind") == "dpo" or training.name == "dpo"
    levels = ((say("no_preference"), math.log(2)),) if dpo else ()
    plots = [LinePlot(say("loss_title"), label, say("loss_unit"), tuple(series), areas, levels,
                      x_unit=unit)]  # fmt: skip
    for key, title in (("lr", "lr_title"), ("grad_norm", "norm_title"),
                       ("tokens_per_second", "rate_title")):  # fmt: skip
        if points := over(training, key):
            line = Series(say(title), points, 0)
            plots.append(LinePlot(say(title), label, "", (line,), x_unit=unit, zero=True))
    if bits := over(training, "validation_bits_per_byte"):
        dots = (Series("", bits, 1), Series(say("held_out"), bits, 1, "dots"))
        plots.append(LinePlot(say("bits_title"), label, "", dots, x_unit=unit))
    if by_time := over(training, "loss", by="seconds"):
        means = (Series("", by_time, 0, "faint"), Series(say("mean"), smooth(by_time), 0))
        title, nats = say("loss_by_time"), say("loss_unit")
        plots.append(LinePlot(title, say("x_time"), nats, means, x_unit="seconds"))
    return plots


def _extra_plots(training: Training, say: Writer) -> list[LinePlot]:
    """Plot what only this objective measures, each with its held-out figures."""
    label, unit = axis(training, say)
    names = dict.fromkeys(
        name
        for line in training.steps
        for name, value in line.items()
        if name not in USUAL and isinstance(value, int | float)
    )
    plots = []
    for name in names:
        series = [Series(say("on_training"), over(training, name), 0)]
        if held_out := over(training, f"validation_{name}"):
            series.append(Series(say("held_out"), held_out, 1, "dots"))
        plots.append(LinePlot(name, label, "", tuple(series), x_unit=unit))
    return plots


# ---------------------------------------------------------------- samples, cost, settings


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
