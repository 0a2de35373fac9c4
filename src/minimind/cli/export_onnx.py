"""`minimind export onnx CHECKPOINT OUT`: for onnxruntime, transformers.js and the browser."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import tyro
from rich.console import Console
from tyro.conf import Positional

if TYPE_CHECKING:
    from minimind.export.common import Summary


@dataclass(frozen=True, kw_only=True)
class Args:
    """Write a checkpoint as ONNX: a decoder with its key-value cache as inputs and outputs.

    OUT gets onnx/model.onnx (fp32), onnx/model_fp16.onnx, onnx/model_quantized.onnx (int8),
    whichever --dtype names, with the configuration and tokenizer beside the folder, as optimum,
    transformers.js and onnxruntime-genai look for them. examples/browser chats with the int8 file.

    Attributes:
        checkpoint: a checkpoint or run directory, or RUN:best. Adapters are merged.
        out: the directory to make.
        dtype: one or more of fp32, fp16 and int8; each is a file of its own.
        verify: run every file in onnxruntime and compare it with the checkpoint; an export that
            differs by more than its tolerance is deleted.
        force: replace an earlier export.
        json: print the summary as JSON.
    """

    checkpoint: Positional[str]
    out: Positional[Path]
    dtype: tuple[str, ...] = ("fp32",)
    verify: bool = True
    force: bool = False
    json: bool = False


def main(argv: list[str]) -> None:
    """Export, verify, and print the summary."""
    args = tyro.cli(Args, args=argv, prog="minimind export onnx")
    from minimind.export.onnx import export_onnx

    notes = Console(stderr=True, highlight=False)

    def progress(what: str, done: int, total: int) -> None:
        notes.print(f"[{done + 1}/{total}] {what}", style="dim", markup=False)

    summary = export_onnx(
        args.checkpoint,
        args.out,
        dtypes=args.dtype,
        verify=args.verify,
        force=args.force,
        progress=progress,
    )
    if args.json:
        print(json.dumps(summary.to_json(), ensure_ascii=False, indent=2))
        return
    Console(highlight=False).print(_lines(summary), soft_wrap=True, markup=False)


def _lines(summary: Summary) -> str:
    lines = [
        f"{summary.path}: {summary.dtype}, {summary.bytes / 1e6:,.1f} MB, "
        f"{summary.tensors} tensors, {summary.parameters:,} numbers",
        *(f"  {name}" for name in summary.files),
    ]
    for check in summary.checks:
        lines.append(f"  {'ok    ' if check.passed else 'FAILED'} {check.name}: {check.detail}")
    if not summary.checks:
        lines.append("  not verified (--no-verify)")
    lines += [f"  note: {note}" for note in summary.notes]
    return "\n".join(lines)
