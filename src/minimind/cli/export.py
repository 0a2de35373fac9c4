"""`minimind export hf | gguf | onnx CHECKPOINT OUT`: the model as other programs read it."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro
from rich.console import Console

from minimind.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from minimind.export.common import Progress, Summary

HELP = """\
usage: minimind export hf | gguf | onnx CHECKPOINT OUT [...]

  hf    a directory for transformers, vLLM and peft
  gguf  a file for llama.cpp and Ollama, with a Modelfile
  onnx  a directory for onnxruntime and transformers.js

CHECKPOINT is a checkpoint directory, a run directory (its newest), or RUN:best. Each export is run
by the program it is for and compared with the checkpoint before it is kept.

minimind export gguf --help shows the options of one.
"""


@dataclass(frozen=True, kw_only=True)
class HfArgs:
    """Write a Hugging Face directory: weights, config, tokenizer, chat template, model card.

    Attributes:
        checkpoint: a checkpoint directory, a run directory (its newest), or RUN:best.
        out: the directory to make.
        dtype: of the weights.
        adapter: of a LoRA run: merge into the weights, or keep as a PEFT directory.
        base: with --adapter keep: what the adapter calls its base model, as a path or hub name.
        name: what the card calls the model. Default: the run's name.
        license: of the weights, as an SPDX identifier (apache-2.0), for the card.
        verify: load the result in transformers and compare; delete it when it differs.
        force: replace an export that is there.
        json: print the summary as JSON.
    """

    checkpoint: tyro.conf.Positional[str]
    out: tyro.conf.Positional[Path]
    dtype: Literal["bf16", "fp16", "fp32"] = "bf16"
    adapter: Literal["merge", "keep"] = "merge"
    base: str | None = None
    name: str | None = None
    license: str | None = None
    verify: bool = True
    force: bool = False
    json: bool = False


@dataclass(frozen=True, kw_only=True)
class GgufArgs:
    """Write a GGUF file for llama.cpp and Ollama, and an Ollama Modelfile beside it.

    Attributes:
        checkpoint: a checkpoint directory, a run directory (its newest), or RUN:best.
        out: the file to make, NAME.gguf.
        type: of the weights, from 32 to about 4.5 bits a number; docs/export.md has the cost.
        adapter: of a LoRA run: merge into the weights, or keep as a GGUF adapter (f32, f16, bf16).
        base: with --adapter keep: the GGUF of the base, for the Modelfile.
        name: what the model calls itself. Default: the run's name.
        license: of the weights, as an SPDX identifier (apache-2.0).
        verify: run the result in llama.cpp and compare; delete it when it differs.
        force: replace a file that is there.
        json: print the summary as JSON.
    """

    checkpoint: tyro.conf.Positional[str]
    out: tyro.conf.Positional[Path]
    type: Literal["f32", "f16", "bf16", "q8_0", "q6_k", "q5_k_m", "q4_k_m", "q4_0"] = "f16"
    adapter: Literal["merge", "keep"] = "merge"
    base: Path | None = None
    name: str | None = None
    license: str | None = None
    verify: bool = True
    force: bool = False
    json: bool = False


def main(argv: list[str]) -> int:
    """Run `minimind export`."""
    if not argv or argv[0] in {"-h", "--help"}:
        print(HELP)
        return 0
    kinds: dict[str, Callable[[list[str]], int]] = {"hf": _hf, "gguf": _gguf, "onnx": _onnx}
    if argv[0] not in kinds:
        raise UserError(
            f"there is no format {argv[0]!r}.{did_you_mean(argv[0], kinds)} "
            f"Formats: {', '.join(kinds)}"
        )
    return kinds[argv[0]](argv[1:])


def _hf(argv: list[str]) -> int:
    args = tyro.cli(HfArgs, args=argv, prog="minimind export hf")
    if args.base is not None and args.adapter == "merge":
        raise UserError("--base is for --adapter keep: a merged model has no base")
    from minimind.export.hf import export_hf

    with _progress() as progress:
        summary = export_hf(
            args.checkpoint, args.out, dtype=args.dtype, keep_adapter=args.adapter == "keep",
            base_name=args.base, name=args.name, licence=args.license, verify=args.verify,
            force=args.force, progress=progress,
        )  # fmt: skip
    show(summary, as_json=args.json)
    return 0


def _gguf(argv: list[str]) -> int:
    args = tyro.cli(GgufArgs, args=argv, prog="minimind export gguf")
    if args.base is not None and args.adapter == "merge":
        raise UserError("--base is for --adapter keep: a merged model has no base")
    with _progress() as progress:
        if args.adapter == "keep":
            from minimind.export.gguf_adapter import export_gguf_adapter

            summary = export_gguf_adapter(
                args.checkpoint, args.out, type=args.type, name=args.name, base=args.base,
                verify=args.verify, force=args.force, progress=progress,
            )  # fmt: skip
        else:
            from minimind.export.gguf import export_gguf

            summary = export_gguf(
                args.checkpoint, args.out, type=args.type, name=args.name, licence=args.license,
                verify=args.verify, force=args.force, progress=progress,
            )  # fmt: skip
    show(summary, as_json=args.json)
    return 0


def _onnx(argv: list[str]) -> int:
    return importlib.import_module("minimind.cli.export_onnx").main(argv) or 0


def show(summary: Summary, *, as_json: bool) -> None:
    """Print what an export made: for people, or as JSON."""
    console = Console(highlight=False, soft_wrap=True)
    if as_json:
        console.print_json(data=summary.to_json())
        return
    console.print(
        f"[bold]{summary.path}[/]  {summary.format} {summary.dtype}, "
        f"{summary.bytes / 1e6:,.2f} MB, {summary.tensors} tensors, "
        f"{summary.parameters / 1e6:,.2f}M parameters"
    )
    for check in summary.checks:
        console.print(f"  [green]ok[/] {check.name}: ", end="")
        console.print(check.detail, markup=False)
    if not summary.checks:
        console.print("  [yellow]not verified[/] (--no-verify)")
    for note in summary.notes:
        console.print(f"  {note}", style="dim", markup=False)
    console.print(f"  files: {', '.join(summary.files)}", style="dim", markup=False)


@contextmanager
def _progress() -> Iterator[Progress]:
    """Show one line on stderr that says what is being done; silent where nobody looks."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda _what, _done, _total: None
        return
    with console.status("reading") as status:
        yield lambda what, done, total: status.update(f"{what} {done}/{total}")
