"""Sections on training: the path, and the curves with their bands."""

from __future__ import annotations

import math
from collections.abc import Sequence

from minimind.report.blocks import (
    Block,
    Cards,
    Figure,
    Heading,
    Paragraph,
    Path,
    Verdict,
)
from minimind.report.charts import Area, LinePlot, Series, Unit, running_mean
from minimind.report.record import money
from minimind.report.writer import Run, Training, Writer
from minimind.train import bands
from minimind.train.band_curves import curve

USUAL = {
    "step", "loss", "mean_loss", "lr", "grad_norm", "tokens", "learnt_tokens", "seconds",
    "tokens_per_second", "mfu", "skipped_steps", "data_wait_seconds", "data_wait_share",
}  # fmt: skip
"""Figures of every stage; what else a line has belongs to the objective."""

MEANS = 25
"""A running mean covers this share of the points, one of 25."""


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
        blocks.append(Paragraph(_band_text(training.band, say)))
    if extra := _extra_plots(training, say):
        caption = say("metrics_caption", stage=stage)
        blocks.append(Figure(f"metrics-{training.name}", tuple(extra), caption))
    return blocks


def _band_text(band: bands.Band, say: Writer) -> str:
    reach = band.points[-1].tokens / 1e6
    if band.of == "mean_loss":
        return say("band_text_mean", window=round(band.average * band.spacing), reach=reach)
    return say("band_text", average=band.average, reach=reach)


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


def _mean(training: Training) -> list[tuple[float, float]]:
    """Return the smoothed loss: what a band judges where there is one, else a running mean."""
    points = curve(training.lines, training.band.of) if training.band is not None else []
    if training.band is None or not points:
        return smooth(over(training, "loss"))
    means = [(tokens, training.band.loss(points, tokens)) for tokens, _ in points]
    return [(tokens, loss) for tokens, loss in means if math.isfinite(loss)]


def _plots(training: Training, say: Writer) -> list[LinePlot]:
    label, unit = axis(training, say)
    loss = over(training, "loss")
    series = [Series(say("raw"), loss, 0, "faint"), Series(say("mean"), _mean(training), 0)]
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
        plots.append(LinePlot(say.known(name), label, "", tuple(series), x_unit=unit))
    return plots
