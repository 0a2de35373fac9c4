"""The page of a kit: gain, forgetting, manners, size and time, as blocks of the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from minimind.eval.harness import Scored
from minimind.eval.results import Evaluation
from minimind.eval.statistics import Language
from minimind.kits.measure import BASE, KitResult, Tuned
from minimind.kits.probes import ProbeTask
from minimind.kits.words import say
from minimind.report.blocks import (
    Block,
    Bullets,
    Cards,
    Figure,
    Folded,
    Heading,
    Paragraph,
    Table,
    Verdict,
    quoted,
)
from minimind.report.charts import Interval, IntervalPlot
from minimind.report.files import write_documents

BITS = "domains_bits_per_byte"
FORGETTING_LIMIT = 0.03
"""More bits per byte than this share are called forgetting."""


def write_page(result: KitResult, out: Path) -> list[Path]:
    """Write kit-NAME.html, .md, .zh-CN.md and .json into `out`; return their paths."""
    documents: Mapping[Language, Sequence[Block]] = {
        language: kit_blocks(result, language) for language in ("en", "zh")
    }
    name = f"kit-{result.kit.name}"
    paths = write_documents(documents, out, name)
    evaluation = Evaluation()
    for one in (result.base, *result.tuned):
        measures = {key: scored.measure for key, scored in one.scored.items()}
        measures |= {f"{k}_clean": s.clean for k, s in one.scored.items() if s.clean is not None}
        evaluation = evaluation.adding(one.name, measures)
    evaluation.save(out / f"{name}.json")
    return [*paths, out / f"{name}.json"]


def kit_blocks(result: KitResult, language: Language) -> list[Block]:
    """Return the whole page in one language."""
    kit = result.kit
    blocks: list[Block] = [
        Heading(say("title", language, title=kit.title or kit.name), 1),
        Paragraph(say("about", language, base=result.base.directory)),
    ]
    if kit.disclaimer:
        blocks.append(Paragraph(f"**{kit.disclaimer}**"))
    blocks += [_cards(result, language), *_verdicts(result, language)]
    parts = (("domain", result.domain), ("general", result.general), ("probes", result.probes))
    for part, metrics in parts:
        if not metrics:
            continue
        blocks.append(Heading(say(part, language)))
        if part != "general":
            blocks.append(Paragraph(say(f"{part}_about", language, kit=kit.name)))
        blocks.append(_table(result, metrics, language))
        if plot := _plot(result, metrics, part, language):
            blocks.append(plot)
    blocks += [Heading(say("models", language)), _models(result, language)]
    blocks += _said(result, language)
    if result.notes:
        blocks += [Heading(say("notes", language)), Bullets(result.notes)]
    return blocks


def _cards(result: KitResult, language: Language) -> Cards:
    first, base = result.tuned[0], result.base
    items = []
    asked = (("card_choice", result.domain), ("card_bits", (BITS,)), ("card_probes", result.probes))
    for key, metrics in asked:
        name = next((metric for metric in metrics if metric in first.scored), None)
        if name is not None:
            before = say("from", language, before=_figure(base.scored[name]))
            items.append((_figure(first.scored[name]), say(key, language), before))
    kind = "adapters" if first.adapters else "whole"
    items.append((_size(first.weights), say(kind, language, base=_size(base.weights)), ""))
    if first.seconds is not None:
        words = say("card_time", language, steps=first.steps)
        items.append((f"{first.seconds / 60:.1f} min", words, ""))
    return Cards(tuple(items))


def _verdicts(result: KitResult, language: Language) -> list[Verdict]:
    verdicts = []
    name = f"{result.kit.name}_choice"
    before, after = result.base.scored[name], result.tuned[0].scored[name]
    difference = result.differences[result.tuned[0].name][name]
    apart = (after.measure.low or 0) > (before.measure.high or 1)
    verdicts.append(Verdict(apart, say(
        "gain_yes" if apart else "gain_no", language, before=_with_interval(before),
        after=_with_interval(after), value=f"{difference.value:+.1%}", low=f"{difference.low:+.1%}",
        high=f"{difference.high:+.1%}", p=f"{difference.p:.2g}",
    )))  # fmt: skip
    for one in result.tuned:
        if BITS not in one.scored:
            continue
        change = one.scored[BITS].measure.value / result.base.scored[BITS].measure.value - 1
        good = change < FORGETTING_LIMIT
        replay = ""
        if one.replay is not None:
            replay = say("replayed" if one.replay else "alone", language, share=f"{one.replay:.0%}")
        words = say("forgot_yes" if good else "forgot_no", language, change=f"{change:+.2%}",
                    replay=replay)  # fmt: skip
        verdicts.append(Verdict(good, f"{one.name}: {words}"))
    return verdicts


def _table(result: KitResult, metrics: Sequence[str], language: Language) -> Table:
    header = [say("measure", language), say("n", language), say("chance", language), BASE]
    for one in result.tuned:
        header += [one.name, say("difference", language)]
    rows: list[tuple[str, ...]] = []
    for name in metrics:
        base = result.base.scored.get(name)
        if base is None:
            continue
        rows.append(_row(result, name, name, base))
        for group in base.measure.groups if len(base.measure.groups) > 1 else ():
            if name in (*result.probes, result.domain[0]):
                rows.append(_group_row(result, name, group))
        if any(one.scored[name].clean is not None for one in (result.base, *result.tuned)):
            rows.append(_clean_row(result, name))
    return Table(tuple(header), tuple(rows), frozenset(range(1, len(header))))


def _row(result: KitResult, name: str, title: str, base: Scored) -> tuple[str, ...]:
    measure = base.measure
    chance = "" if measure.chance is None else f"{measure.chance:.0%}"
    cells = [f"`{title}`", f"{measure.n:,}", chance, _with_interval(base)]
    for one in result.tuned:
        difference = result.differences[one.name][name]
        sign = "+.1%" if base.metric.percent else "+.3f"
        span = f"[{difference.low:{sign}}, {difference.high:{sign}}]"
        cells += [_with_interval(one.scored[name]), f"{difference.value:{sign}} {span}"]
    return tuple(cells)


def _group_row(result: KitResult, name: str, group: str) -> tuple[str, ...]:
    own = [one.scored[name].measure.groups[group] for one in (result.base, *result.tuned)]
    cells = [f"— {group}", f"{own[0].n:,}", "", f"{own[0].value:.1%}"]
    for measure in own[1:]:
        cells += [f"{measure.value:.1%}", f"{measure.value - own[0].value:+.1%}"]
    return tuple(cells)


def _clean_row(result: KitResult, name: str) -> tuple[str, ...]:
    models = (result.base, *result.tuned)
    own = [one.scored[name].clean or one.scored[name].measure for one in models]
    percent = result.base.scored[name].metric.percent
    shown = [f"{m.value:.1%}" if percent else f"{m.value:.3f}" for m in own]
    cells = ["— clean", f"{own[-1].n:,}", "", shown[0]]
    for text in shown[1:]:
        cells += [text, ""]
    return tuple(cells)


def _plot(
    result: KitResult, metrics: Sequence[str], part: str, language: Language
) -> Figure | None:
    models = (result.base, *result.tuned)
    rows = [
        Interval(label=f"{name} · {one.name}", value=measure.value, low=measure.low,
                 high=measure.high, chance=measure.chance, colour=min(at, 3))
        for name in metrics
        if name in result.base.scored and result.base.scored[name].metric.percent
        for at, one in enumerate(models)
        for measure in (one.scored[name].measure,)
    ]  # fmt: skip
    if not rows:
        return None
    legend = tuple((one.name, min(at, 3)) for at, one in enumerate(models))
    title = say(part, language)
    plot = IntervalPlot(title, tuple(rows), legend=legend, chance_label=say("chance", language))
    return Figure(part, (plot,), title)


def _models(result: KitResult, language: Language) -> Table:
    header = ["", *(say(key, language) for key in ("weights", "parameters", "time", "replay"))]
    rows = []
    for one in (result.base, *result.tuned):
        minutes = "" if one.seconds is None else f"{one.seconds / 60:.1f} min, {one.steps} steps"
        replay = "" if one.replay is None else f"{one.replay:.0%}"
        rows.append((one.name, _size(one.weights), f"{one.parameters:,}", minutes, replay))
    return Table(tuple(header), tuple(rows), frozenset({1, 2, 3, 4}))


def _said(result: KitResult, language: Language) -> list[Block]:
    blocks: list[Block] = []
    asked = {item.id: item.text for item in ProbeTask(kit=result.kit).items()}
    for name in result.probes:
        models: list[Tuned] = [result.base, *result.tuned]
        answers = [{o.item: o for o in one.scored[name].outcomes} for one in models]
        rows = []
        for item in answers[0]:
            own = [outcomes[item] for outcomes in answers]
            marks = ["✓ " if outcome.value else "✗ " for outcome in own]
            texts = [quoted(outcome.output[:160]) for outcome in own]
            rows.append(
                (asked[item], *(mark + text for mark, text in zip(marks, texts, strict=True)))
            )
        header = (say("question", language), *(one.name for one in models))
        title = f"{say('said', language)}: {name}"
        blocks.append(Folded(title, (Table(header, tuple(rows)),)))
    return blocks


def _figure(scored: Scored) -> str:
    value = scored.measure.value
    return f"{value:.1%}" if scored.metric.percent else f"{value:.3f}"


def _with_interval(scored: Scored) -> str:
    measure = scored.measure
    if measure.low is None or measure.high is None:
        return _figure(scored)
    if scored.metric.percent:
        return f"{measure.value:.1%} ({measure.low:.1%}–{measure.high:.1%})"
    return f"{measure.value:.3f} ({measure.low:.3f}–{measure.high:.3f})"


def _size(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size / 1e3:.1f} kB"
