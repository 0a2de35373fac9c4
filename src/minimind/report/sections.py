"""What the report says: each section turns a `Run` into blocks; a section without data is empty."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from minimind.eval.results import Measure, StageRecord
from minimind.eval.statistics import Language, against_chance
from minimind.report import record, training
from minimind.report.blocks import Block, Bullets, Figure, Heading, Paragraph, Table, quoted
from minimind.report.charts import BarPlot
from minimind.report.passes import passes
from minimind.report.scores import scores
from minimind.report.wording import (
    ABILITIES,
    DETAILS,
    FIGURES,
    STAGE_LINES,
)
from minimind.report.writer import Run, Writer, interval

TRAINED = ("start", "pretrain", "sft", "dpo")
BASELINES = ("unigram", "zstd", "xz")
COMPRESSORS = ("zstd", "xz")
DETAILS_SHOWN = 4


def introduction(run: Run, say: Writer) -> list[Block]:
    """Title, and the run in one sentence."""
    stages = run.stages
    name = run.directory.resolve().name
    if run.kind != "quickstart":
        title = say("run_title" if run.kind == "run" else "runs_title", name=name)
        where = quoted(str(run.directory))
        return [Heading(title, level=1), Paragraph(say("run_intro", directory=where))]
    size = (
        say("parameters", million=stages.parameters / 1e6, wan=stages.parameters / 1e4)
        if stages.parameters
        else say("parameters_unknown")
    )
    machine = (
        say("machine", preset=stages.preset, seed=stages.seed, torch=stages.torch)
        if stages.preset
        else ""
    )
    sentence = say(
        "intro", parameters=size, device=stages.device or say("device_unknown"), machine=machine,
        time=say.duration(stages.seconds),
    )  # fmt: skip
    title = Heading(say("title"), level=1)
    return [title, Paragraph(sentence)] if stages.stages else [title]


def stage_table(run: Run, say: Writer) -> list[Block]:
    """One row a stage."""
    if not run.stages.stages:
        return []
    header = tuple(say(key) for key in ("stage", "did", "time", "tokens", "figure", "before_after"))
    rows = [
        (
            say.stage(done.name),
            _did(done, say),
            say.duration(done.seconds),
            f"{done.tokens:,}" if done.tokens else "",
            FIGURES[say.language].get(done.figure, done.figure),
            _before_after(done),
        )
        for done in record.in_order(run)
    ]
    total = sum(done.tokens for done in run.stages.stages)
    rows.append((say("total"), "", say.duration(run.stages.seconds), f"{total:,}", "", ""))
    return [Heading(say("stages")), Table(header, tuple(rows), frozenset({2, 3, 5}))]


def _did(record: StageRecord, say: Writer) -> str:
    """Return what a stage did, with its most telling figures on a second line."""
    line = record.summary or STAGE_LINES[say.language].get(record.name, "")
    names = DETAILS[say.language]
    figures = " · ".join(
        f"{names.get(name, name)} {value:,}" if not isinstance(value, str) else f"{name} {value}"
        for name, value in list(record.details.items())[:DETAILS_SHOWN]
    )
    return f"{line}\n{figures}" if line and figures else line or figures


def _before_after(record: StageRecord) -> str:
    before = "" if record.before is None else f"{record.before:.3f} → "
    return "" if record.after is None else f"{before}{record.after:.3f}"


def bits(run: Run, say: Writer) -> list[Block]:
    """Bits per byte beside the baselines, in words, as a picture and by source."""
    stages = [s for s in TRAINED[1:] if run.evaluation.get(s, "bits_per_byte")]
    others = [
        subject
        for subject in run.evaluation.results
        if subject not in (*TRAINED, *BASELINES) and run.evaluation.get(subject, "bits_per_byte")
    ]
    measured = [*stages, *others]
    if not measured:
        return []
    subject = measured[0]
    whole = run.evaluation.results[subject]["bits_per_byte"]
    key = "bpb_text" if subject == "pretrain" else "bpb_text_of"
    sentences = [
        say(key, value=whole.value, interval=interval(whole), n=whole.n, name=say.stage(subject))
    ]
    sentences += _against_baselines(run, say, whole)
    blocks: list[Block] = [Heading(say("bpb")), Paragraph(say.paragraph(sentences))]
    blocks.append(Figure("bits", (_bits_plot(run, say, subject),), say("bpb_caption")))
    blocks.append(_bits_table(run, say, subject))
    if any(run.evaluation.get(name, "bits_per_byte") for name in COMPRESSORS):
        blocks.append(Paragraph(say("bpb_fair")))
    if len(measured) > 1:
        parts = [
            f"{say.stage(s)} {run.evaluation.results[s]['bits_per_byte'].value:.3f}"
            for s in measured
        ]
        blocks.append(Paragraph(say("bpb_stages", list=say.listed(parts))))
    return blocks


def _bits_plot(run: Run, say: Writer, subject: str) -> BarPlot:
    names = [n for n in (subject, *BASELINES) if run.evaluation.get(n, "bits_per_byte")]
    measures = {name: run.evaluation.results[name]["bits_per_byte"] for name in names}
    groups = measures[subject].groups
    sources = sorted(groups, key=lambda source: -groups[source].n)
    colours = {subject: 0, "unigram": 5, "zstd": 1, "xz": 2}

    def heights(measure: Measure) -> tuple[float | None, ...]:
        parts = (measure.groups.get(source) for source in sources)
        return (measure.value, *(None if part is None else part.value for part in parts))

    return BarPlot(
        say("bpb_lower"), (say("all"), *sources),
        tuple(
            (say("model") if name == subject else say(name), heights(measures[name]), colours[name])
            for name in names
        ),
    )  # fmt: skip


def _against_baselines(run: Run, say: Writer, whole: Measure) -> list[str]:
    sentences = []
    if unigram := run.evaluation.get("unigram", "bits_per_byte"):
        percent = 100 * (1 - whole.value / unigram.value)
        key = "bpb_unigram" if percent > 0 else "bpb_unigram_worse"
        sentences.append(say(key, value=unigram.value, percent=percent))
    found = {
        name: measure
        for name in COMPRESSORS
        if (measure := run.evaluation.get(name, "bits_per_byte"))
    }
    if found:
        name = min(found, key=lambda name: found[name].value)
        percent = 100 * (1 - whole.value / found[name].value)
        key = "bpb_better" if percent > 0 else "bpb_worse"
        sentences.append(say(key, name=say(name), value=found[name].value, percent=abs(percent)))
    return sentences


def _bits_table(run: Run, say: Writer, subject: str) -> Table:
    names = [n for n in (subject, *BASELINES) if run.evaluation.get(n, "bits_per_byte")]
    measures = {name: run.evaluation.results[name]["bits_per_byte"] for name in names}
    header = (say("source"), say("documents"), say("model"), *(say(name) for name in names[1:]))
    whole = measures[subject]

    def row(title: str, n: int, of: Callable[[Measure], Measure | None]) -> tuple[str, ...]:
        found = [of(measures[name]) for name in names]
        return (title, f"{n:,}", *("" if m is None else f"{m.value:.3f}" for m in found))

    rows = [row(say("all"), whole.n, lambda measure: measure)]
    for source in sorted(whole.groups, key=lambda source: -whole.groups[source].n):
        rows.append(
            row(source, whole.groups[source].n, lambda measure, s=source: measure.groups.get(s))
        )
    return Table(header, tuple(rows), frozenset(range(1, len(header))))


def answers(run: Run, say: Writer) -> list[Block]:
    """The loss on answers before and after SFT."""
    before = run.evaluation.get("pretrain", "answer_loss")
    after = run.evaluation.get("sft", "answer_loss")
    if before is None or after is None:
        return []
    text = say(
        "sft_text", n=after.n, before=before.value, after=after.value, interval=interval(after),
        p_before=math.exp(min(before.value, 50)), p_after=math.exp(min(after.value, 50)),
    )  # fmt: skip
    return [Heading(say("sft")), Paragraph(text)]


def preferences(run: Run, say: Writer) -> list[Block]:
    """DPO's loss, preference accuracy, and problems solved."""
    measures = run.evaluation.results.get("dpo", {})
    points = []
    if loss := measures.get("dpo_loss"):
        start = run.evaluation.get("sft", "dpo_loss")
        before = start.value if start else math.log(2)
        points.append(say("dpo_loss", n=loss.n, before=before, after=loss.value))
    if accuracy := measures.get("preference_accuracy"):
        words = against_chance(accuracy, language=say.language)
        points.append(
            say("dpo_accuracy", value=accuracy.value, interval=interval(accuracy, form=".0%"),
                chance=words)
        )  # fmt: skip
    if raw := measures.get("preference_accuracy_raw"):
        before = raw.details.get("reference")
        points.append(
            say("dpo_raw", value=raw.value, interval=interval(raw, form=".0%"),
                before="–" if before is None else f"{before:.0%}")
        )  # fmt: skip
    if margin := measures.get("preference_margin"):
        points.append(say("dpo_margin", value=margin.value, interval=interval(margin)))
    solved = [
        f"{say.stage(stage)} **{m.value:.1%}** ({interval(m, form='.1%')}, n = {m.n})"
        for stage in TRAINED
        if (m := run.evaluation.get(stage, "solved_share"))
    ]
    if solved:
        points.append(say("solved", list=say.listed(solved)))
    return [Heading(say("dpo")), Bullets(tuple(points))] if points else []


def samples(run: Run, say: Writer) -> list[Block]:
    """What each stage's model says to the same prompts."""
    prompts = list(dict.fromkeys(sample.prompt for sample in run.evaluation.samples))
    if not prompts:
        return []
    order = {stage: number for number, stage in enumerate(TRAINED)}
    blocks: list[Block] = [Heading(say("samples"))]
    for prompt in prompts:
        said = [sample for sample in run.evaluation.samples if sample.prompt == prompt]
        said.sort(key=lambda sample: order.get(sample.stage, len(order)))
        rows = tuple((say.stage(s.stage), quoted(s.text.strip()) or say("empty")) for s in said)
        blocks.append(Paragraph(f"**{say('prompt', prompt=quoted(prompt))}**"))
        blocks.append(Table((say("after"), say("output")), rows))
    return blocks


def abilities(run: Run, say: Writer) -> list[Block]:
    """What such a model can and can't do."""
    context = f"{run.context:,}" if run.context else "512"
    points = tuple(point.format(context=context) for point in ABILITIES[say.language])
    return [Heading(say("can")), Bullets(points)]


def sources(run: Run, say: Writer) -> list[Block]:
    """The data ledger with licences."""
    files = [block for t in run.trainings.values() for block in record.data_files(t, say)]
    if not run.ledger:
        return [Heading(say("data")), *files] if files else []
    header = tuple(
        say(key)
        for key in ("source", "package", "licence", "use", "rows", "megabytes", "templated")
    )
    rows = []
    for entry in run.ledger:
        package = f"{entry.get('package', '')} {entry.get('version', '')}".strip()
        rows.append((
            str(entry.get("source", "")), package, str(entry.get("licence", "")),
            say.stage(str(entry.get("kind", ""))), f"{int(entry.get('documents', 0)):,}",
            f"{float(entry.get('bytes', 0)) / 1e6:.2f}",
            say("yes") if entry.get("templated") else say("no"),
        ))  # fmt: skip
    table = Table(header, tuple(rows), frozenset({4, 5}))
    return [Heading(say("data")), Paragraph(say("data_text")), table, *files]


def missing(run: Run, say: Writer) -> list[Block]:
    """What the report would have had, and why it isn't there."""
    notes = [say(key, **_said(about, say)) for key, about in run.missing]
    quickstart = run.kind == "quickstart"
    wanted = (
        {}
        if not quickstart
        else {
            "what_bpb": any(run.evaluation.get(s, "bits_per_byte") for s in TRAINED[1:]),
            "what_baselines": any(run.evaluation.get(b, "bits_per_byte") for b in BASELINES),
            "what_sft": bool(answers(run, say)),
            "what_dpo": run.evaluation.get("dpo", "preference_accuracy") is not None,
            "what_samples": bool(run.evaluation.samples),
        }
    )
    notes += [say("missing_measure", what=say(key)) for key, there in wanted.items() if not there]
    return [Heading(say("missing")), Bullets(tuple(notes))] if notes else []


def _said(about: Mapping[str, str], say: Writer) -> dict[str, str]:
    """Put what a note is about into words."""
    said = dict(about)
    if "stage" in said:
        said["stage"] = say.stage(said["stage"])
    if "what" in said:
        said["what"] = say(said["what"], **said)
    return said


def report_blocks(run: Run, *, language: Language) -> list[Block]:
    """Return the whole report.

    Args:
        run: from `read_run`.
        language: of every sentence.
    """
    say = Writer(language)
    return [
        *introduction(run, say),
        *training.cards(run, say),
        *training.path(run, say),
        *stage_table(run, say),
        *passes(run, say),
        *training.curves(run, say),
        *bits(run, say),
        *answers(run, say),
        *preferences(run, say),
        *scores(run, say),
        *samples(run, say),
        *record.along(run, say),
        *(abilities(run, say) if run.kind == "quickstart" else []),
        *sources(run, say),
        *record.cost(run, say),
        *record.settings(run, say),
        *record.commands(run, say),
        *missing(run, say),
    ]
