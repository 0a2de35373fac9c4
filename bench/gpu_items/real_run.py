"""Item 4: a real run: pretraining, SFT and DPO of `64m` in the minutes there are.

It is `minimind speedrun` on the data that `prepare` packed, with the package's tokenizer. What
comes back: the report, curves, scores and samples, and the weights in 4 bits, in parts.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.console import Console

from gpu_items.common import Context, Item, installed
from gpu_items.prepare import unpack

PART_BYTES = 15_000_000


def run(context: Context) -> Item:
    """Run every stage; the minutes are those that the item has left."""
    if context.data is None:
        context.left_out.append("the run: --data FOLDER of `gpu.py prepare`")
        return Item(rows=[])
    if not installed("zstandard"):
        context.left_out.append("the run: zstandard is missing; carry its wheel")
        return Item(rows=[])
    from minimind.quickstart.config import LONG_SHARE, SHARE, QuickstartConfig
    from minimind.quickstart.stages import Quickstart

    work = Path(tempfile.mkdtemp(prefix="minimind-run-"))
    data = unpack(context.data, work)
    config = QuickstartConfig(
        out=work / "run",
        minutes=max(1.0, (context.until - time.perf_counter()) / 60 - 0.7),
        model=context.choose("64m", "nano"),
        layers=("speedrun",) if context.device == "cuda" else (),
        tokenizer="default",
        vocab_size=12_000,
        shares=context.choose(LONG_SHARE, SHARE),
        data=data,
        steps=context.choose(None, 20),
        language="en",
    )
    done = Quickstart(config, Console(width=110)).run()
    keep(config.out, context.out / "run")
    rows = read_rows(config.out)
    if done and context.has(20, "4-bit weights"):
        pack_weights(config.out / "dpo", context.out)
    shutil.rmtree(work)
    return Item(rows=rows, figures={"finished": done})


def keep(run: Path, out: Path) -> None:
    """Copy what is read afterwards: settings, curves, scores, samples, and the report."""
    from minimind.report.files import write_report

    write_report(run)
    out.mkdir(parents=True, exist_ok=True)
    for path in sorted(run.rglob("*")):
        small = path.suffix in {".json", ".jsonl", ".toml", ".txt", ".md", ".html"}
        wanted = small and "data" not in path.relative_to(run).parts[:1]
        if wanted and "checkpoints" not in path.parts and path.stat().st_size < 8_000_000:
            name = "-".join(path.relative_to(run).parts)
            shutil.copyfile(path, out / name)
    shutil.make_archive(str(out), "gztar", out)  # few files come back
    shutil.rmtree(out)


def read_rows(run: Path) -> list[dict[str, Any]]:
    """Return what was done and measured, a line a stage."""
    from minimind.eval.results import Evaluation, Stages

    stages = Stages.load(run / "stages.json")
    evaluation = Evaluation.load(run / "eval.json") if (run / "eval.json").exists() else None
    rows = []
    for record in stages.stages:
        row: dict[str, Any] = {"stage": record.name, "seconds": record.seconds}
        row |= {"tokens": record.tokens or None, "steps": record.steps or None}
        for name in ("bits_per_byte", "answer_loss", "preference_accuracy"):
            measure = evaluation.get(record.name, name) if evaluation else None
            if measure is not None:
                low, high = measure.interval or (measure.value, measure.value)
                row[name] = f"{measure.value:.3f} ({low:.3f}-{high:.3f})"
        rows.append(row)
    return rows


def pack_weights(run: Path, out: Path) -> None:
    """Write the checkpoint in 4 bits as an archive in parts of 15 MB."""
    from minimind import checkpoint
    from minimind.model.quantize import quantize_model

    with tempfile.TemporaryDirectory() as folder:
        model, tokenizer = checkpoint.load(run)
        quantize_model(model.cpu(), "int4")
        checkpoint.save(Path(folder) / "weights", model=model, tokenizer=tokenizer)
        packed = Path(shutil.make_archive(f"{folder}/weights", "gztar", f"{folder}/weights"))
        content = packed.read_bytes()
    for number, begin in enumerate(range(0, len(content), PART_BYTES)):
        (out / f"weights.tar.gz.{number}").write_bytes(content[begin : begin + PART_BYTES])
