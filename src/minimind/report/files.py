"""The report of a run: made by reading what the run left on disk, in the terminal and as files.

    runs/quickstart/  stages.json  eval.json  ledger.json (or data/ledger.json)
                      pretrain/metrics.jsonl  sft/metrics.jsonl  dpo/metrics.jsonl
    ->  report.md  report.zh-CN.md  report-curves.en.png  report-bits.en.png  ... .zh.png

A part that is missing is named at the end of the report; it is never an error.
The shapes of the JSON files are in `minimind.eval.results`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from minimind.errors import DataError, MissingExtraError
from minimind.eval.results import Evaluation, Measure, Sample, StageRecord, Stages
from minimind.eval.statistics import Language
from minimind.report.blocks import print_blocks, to_markdown
from minimind.report.plots import bits_bars, chinese_font, loss_curves
from minimind.report.sections import report_blocks
from minimind.report.writer import Run

__all__ = [
    "Evaluation",
    "Measure",
    "Run",
    "Sample",
    "StageRecord",
    "Stages",
    "print_report",
    "read_run",
    "write_report",
]

CURVES = ("pretrain", "sft", "dpo")
FILES: Mapping[Language, str] = {"en": "report.md", "zh": "report.zh-CN.md"}


def read_run(directory: Path) -> Run:
    """Read what a run left; what is absent or broken is noted in `missing`.

    Raises:
        DataError: there is no such folder.
    """
    if not directory.is_dir():
        raise DataError(f"{directory} is not a run: give the folder that a quickstart wrote")
    missing: list[tuple[str, Mapping[str, str]]] = []

    def note(path: Path, what: str, error: Exception | None = None, **about: str) -> None:
        if error is None:
            file = path.relative_to(directory).as_posix()
            missing.append(("missing_file", {"file": file, "what": what, **about}))
        else:
            missing.append(("broken_file", {"error": str(error), "what": what, **about}))

    stages, evaluation = Stages(), Evaluation()
    try:
        stages = Stages.load(directory / "stages.json")
        if not stages.stages:
            note(directory / "stages.json", "what_stages")
    except DataError as error:
        note(directory / "stages.json", "what_stages", error)
    try:
        evaluation = Evaluation.load(directory / "eval.json")
        if not evaluation.results:
            note(directory / "eval.json", "what_eval")
    except DataError as error:
        note(directory / "eval.json", "what_eval", error)
    curves = {}
    for stage in CURVES:
        path = directory / stage / "metrics.jsonl"
        lines = read_metrics(path) if path.exists() else []
        if lines:
            curves[stage] = lines
        else:
            note(path, "what_metrics", stage=stage)
    ledger = _read_ledger(directory)
    if not ledger:
        note(directory / "ledger.json", "what_ledger")
    return Run(
        directory=directory, stages=stages, evaluation=evaluation, curves=curves, ledger=ledger,
        missing=tuple(missing), context=_context(directory),
    )  # fmt: skip


def write_report(
    directory: Path, *, languages: Sequence[Language] = ("en", "zh"), font: str | None = None
) -> list[Path]:
    """Write report.md and report.zh-CN.md with their pictures; return the reports' paths.

    Args:
        directory: the run's folder.
        languages: which reports.
        font: family for Chinese on pictures; one that is installed is found unless given. Without
            any the labels are English.

    Raises:
        DataError: there is no such folder.
    """
    run = read_run(directory)
    paths = []
    for language in languages:
        images: dict[str, str] = {}
        about = run
        try:
            images = _draw(run, language=language, font=font)
        except MissingExtraError as error:
            note = ("missing_plots", {"error": str(error)})
            about = replace(run, missing=(*run.missing, note))
        path = directory / FILES[language]
        blocks = report_blocks(about, language=language, images=images)
        path.write_text(to_markdown(blocks), encoding="utf-8")
        paths.append(path)
    return paths


def print_report(run: Run, console: Console, *, language: Language = "en") -> None:
    """Show the report in a terminal."""
    print_blocks(console, report_blocks(run, language=language, images={}))


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a metrics.jsonl; one that a killed run left in half is left out.

    The reader in `minimind.train` does the same but imports torch, which a report doesn't need.
    """
    lines = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            value = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(value, dict) and "step" in value:
            lines.append(value)
    return lines


def _draw(run: Run, *, language: Language, font: str | None) -> dict[str, str]:
    font = font or (chinese_font() if language == "zh" else None)
    images = {}
    if run.curves:
        path = run.directory / f"report-curves.{language}.png"
        images["curves"] = loss_curves(run.curves, path, language=language, font=font).name
    path = run.directory / f"report-bits.{language}.png"
    if bits_bars(run.evaluation, path, language=language, font=font):
        images["bits"] = path.name
    return images


def _read_ledger(directory: Path) -> list[Mapping[str, Any]]:
    """Return the ledger's rows: of the run, or of the data set inside it."""
    for path in (directory / "ledger.json", directory / "data" / "ledger.json"):
        try:
            rows = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, json.JSONDecodeError):
            continue
        if isinstance(rows, dict):
            rows = rows.get("sources", [])
        return [row for row in rows if isinstance(row, dict)]
    return []


def _context(directory: Path) -> int:
    """Return the context of the newest checkpoint, or 0."""
    for config in sorted(directory.glob("*/checkpoints/*/config.json"), reverse=True):
        try:
            return int(json.loads(config.read_text(encoding="utf-8"))["max_position_embeddings"])
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return 0
