"""Item 4: a real run: pretraining, SFT and DPO of `64m` in the minutes there are.

It is `minimind speedrun` on the data that `prepare` packed, with the package's tokenizer. What
comes back: the report, curves, scores and samples, how often the text was read (tokens trained,
tokens that there are, passes), and the weights in 4 bits, in parts. A run that the clock ends
before its last stage leaves its curves and its newest weights.
"""

from __future__ import annotations

import functools
import shutil
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from gpu_items.common import Context, compile_error, installed
from gpu_items.prepare import unpack

PART_BYTES = 15_000_000
RESERVE = 45.0
"""Seconds for what follows the run: the report, copies, the weights in 4 bits."""


def run(context: Context) -> None:
    """Run every stage; the minutes are those that the item has left."""
    if context.data is None:
        context.left_out.append("the run: --data FOLDER of `gpu.py prepare`")
        return
    from minimind.quickstart.config import QuickstartConfig, speedrun_shares
    from minimind.quickstart.stages import Quickstart

    work = Path(tempfile.mkdtemp(prefix="minimind-run-"))
    layers = [str(path) for path in settings(context, work)]
    data = unpack(context.data, work)
    minutes = max(1.0, (context.left - RESERVE) / 60)
    config = QuickstartConfig(
        out=work / "run",
        minutes=minutes,
        model=context.choose("64m", "nano"),
        layers=tuple(layers),
        tokenizer="default",
        vocab_size=12_000,
        shares=speedrun_shares(minutes),
        data=data,
        steps=context.choose(None, 20),
        language="en",
    )
    once, left = threading.Lock(), []

    def leave() -> None:
        with once:  # the clock waits for what the run's end has begun
            if not left:
                left.append(True)
                keep(context, config.out)

    context.when_cut.append(leave)
    try:
        context.figures["finished"] = Quickstart(config, Console(width=110)).run()
    # A stage that breaks must not take the stages before it along.
    except Exception as error:
        context.broke("the run", error)
    leave()
    context.when_cut.remove(leave)
    shutil.rmtree(work)


def settings(context: Context, work: Path) -> list[Path | str]:
    """Return the presets that pretraining is laid with, and note what is not as usual."""
    layers: list[Path | str] = ["speedrun"]
    if context.device != "cuda":  # its processes that encode rows, not its long steps
        workers = work / "workers.toml"
        workers.write_text("[data]\nnum_workers = 1\n", encoding="utf-8")
        layers = [workers]
    refusal = compile_error(context.device)
    if refusal is not None:
        context.left_out.append(f"compiled steps, the run is eager: {refusal}")
        eager = work / "eager.toml"
        eager.write_text("[train]\ncompile = false\n", encoding="utf-8")
        layers.append(eager)
    if not installed("zstandard"):
        from minimind.quickstart import evaluation

        context.left_out.append("zstd as a baseline (zstandard is not installed)")
        evaluation.start_compressors = functools.partial(
            evaluation.start_compressors, names=("xz",)
        )
    return layers


def keep(context: Context, run: Path) -> None:
    """Bring what there is of a run, whole or not: its table, its files, its newest weights."""
    for what, work in (
        ("the table", lambda: read_rows(context, run)),
        ("the files", lambda: copy_files(context, run)),
        ("4-bit weights", lambda: pack_weights(context, run)),
    ):
        try:
            work()
        # Each is worth having without the others.
        except Exception as error:
            context.broke(what, error)


def copy_files(context: Context, run: Path) -> None:
    """Pack what is read afterwards: settings, curves, scores, samples, and the report."""
    from minimind.report.files import write_report

    try:
        write_report(run)
    # Of a run that was cut there may be too little for one.
    except Exception as error:
        context.broke("the report", error)
    out = context.out / "run"
    out.mkdir(parents=True, exist_ok=True)
    for path in sorted(run.rglob("*")):
        small = path.suffix in {".json", ".jsonl", ".toml", ".txt", ".md", ".html"}
        wanted = small and "data" not in path.relative_to(run).parts[:1]
        if wanted and "checkpoints" not in path.parts and path.stat().st_size < 8_000_000:
            name = "-".join(path.relative_to(run).parts)
            shutil.copyfile(path, out / name)
    shutil.make_archive(str(out), "gztar", out)  # few files come back
    shutil.rmtree(out)


def read_rows(context: Context, run: Path) -> None:
    """Add what was planned, done and measured, a line a stage."""
    from minimind.eval.results import MANY_PASSES, Evaluation, Stages, read_json

    stages = Stages.load(run / "stages.json")
    evaluation = Evaluation.load(run / "eval.json") if (run / "eval.json").exists() else None
    plan = run / "plan.json"
    planned = read_json(plan).get("seconds", {}) if plan.exists() else {}
    for record in stages.stages:
        row: dict[str, Any] = {
            "stage": record.name, "planned s": planned.get(record.name), "seconds": record.seconds,
            "tokens": record.tokens or None, "steps": record.steps or None,
            **read_of(record.read),
        }  # fmt: skip
        for name in ("bits_per_byte", "answer_loss", "preference_accuracy"):
            measure = evaluation.get(record.name, name) if evaluation else None
            if measure is not None:
                low, high = measure.interval or (measure.value, measure.value)
                row[name] = f"{measure.value:.3f} ({low:.3f}-{high:.3f})"
        if (row.get("passes") or 0) > MANY_PASSES:
            context.remarks.append(
                f"{record.name}: {row['passes']:,.1f} passes over the same text; beyond about "
                f"{MANY_PASSES:g} each further one teaches less than fresh text would: a bigger "
                "share of the corpus (`prepare --megabytes`), or fewer minutes"
            )
        context.add(row)


def read_of(read: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return how many tokens there were to read, and the passes over them, of a stage's parts."""
    if not read:
        return {}
    known = [part for part in read if part["passes"] is not None]
    ways = {part["how"] for part in read}
    return {
        "unique tokens": sum(part["unique tokens"] for part in known) or None,
        "passes": max((part["passes"] for part in known), default=None),
        "these are": ", ".join(sorted(ways)),
    }


def pack_weights(context: Context, run: Path) -> None:
    """Write the newest stage's checkpoint in 4 bits as an archive in parts of 15 MB."""
    from minimind import checkpoint
    from minimind.model.quantize import quantize_model

    stages = [run / name for name in ("dpo", "sft", "pretrain")]
    newest = next((stage for stage in stages if checkpoint.list_checkpoints(stage)), None)
    if newest is None:
        context.left_out.append("weights: no stage has saved any")
        return
    context.figures["weights_of"] = newest.name
    with tempfile.TemporaryDirectory() as folder:
        model, tokenizer = checkpoint.load(newest)
        quantize_model(model.cpu(), "int4")
        checkpoint.save(Path(folder) / "weights", model=model, tokenizer=tokenizer)
        packed = Path(shutil.make_archive(f"{folder}/weights", "gztar", f"{folder}/weights"))
        content = packed.read_bytes()
    for number, begin in enumerate(range(0, len(content), PART_BYTES)):
        part = context.out / f"weights.tar.gz.{number}"
        part.write_bytes(content[begin : begin + PART_BYTES])
