"""ONNX: a checkpoint as onnxruntime, transformers.js in a browser and onnxruntime-genai read it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import torch

from minimind.errors import ConfigError, ExportError, did_you_mean, require
from minimind.export.common import (
    Check,
    Progress,
    Summary,
    no_progress,
    require_all,
    size_of,
    whole_or_nothing,
)
from minimind.export.loading import read_source, refuse_eyes
from minimind.export.onnx_files import FILES, write_files
from minimind.export.onnx_graph import OPSET, check_exportable, onnx_model
from minimind.export.onnx_quantize import quantize
from minimind.export.onnx_verify import verify_file
from minimind.model import CausalLM
from minimind.tokenizer import Tokenizer

OnnxDtype = Literal["fp32", "fp16", "int8"]

_LARGEST = 2**31 - 1
"""Bytes of a protobuf message, and so of an .onnx file without a second one beside it."""


def export_onnx(
    path: str | Path,
    out: str | Path,
    *,
    dtypes: Sequence[str] = ("fp32",),
    verify: bool = True,
    force: bool = False,
    progress: Progress = no_progress,
) -> Summary:
    """Write a checkpoint as a directory with one .onnx file for each dtype.

    Args:
        path: a checkpoint directory, a run directory (its newest), or `RUN:best`.
        out: the directory to make.
        dtypes: any of `fp32`, `fp16` (weights and cache; logits stay fp32) and `int8` (weights;
            activations are rounded while running).
        verify: run every file in onnxruntime beside our model, on the same tokens.
        force: replace an earlier export.
        progress: told what is being done.

    Raises:
        CheckpointError: there is no checkpoint, or it is damaged.
        ConfigError: an unknown dtype, or a model that the graph can't express.
        ExportError: `out` is there already or can't be written, or the model is too large.
        VerificationError: a file is further from the checkpoint than its tolerance.
        MissingExtraError: onnx, onnxscript or onnxruntime is missing.
    """
    _check_dtypes(dtypes)
    for module in ("onnx", "onnxscript", "onnxruntime"):
        require(module, extra="onnx")
    dtypes = tuple(dict.fromkeys(dtypes))
    target, steps = Path(out), _Steps(progress, total=2 + len(dtypes) * (2 if verify else 1))
    with whole_or_nothing(target, force=force) as directory:
        steps.begin("read the checkpoint")
        source = read_source(path)
        refuse_eyes(source, format="ONNX")
        model, tokenizer = source.model, source.tokenizer
        check_exportable(model)
        _check_size(model, dtypes)
        (directory / "onnx").mkdir(parents=True)
        tensors, parameters = _write_graphs(model, directory / "onnx", dtypes, steps)
        write_files(directory, config=model.config, tokenizer=tokenizer, dtypes=dtypes)
        checks: list[Check] = []
        if verify:
            checks = _verify(model, tokenizer, directory / "onnx", dtypes, steps)
            require_all(checks, target=target)
        steps.begin("put it in place")
        files = sorted(p for p in directory.rglob("*") if p.is_file())
        names = tuple(f"{p.relative_to(directory)} ({p.stat().st_size:,} bytes)" for p in files)
        size = size_of(directory)
    return Summary(
        path=str(target),
        format="onnx",
        dtype=" ".join(dtypes),
        tensors=tensors,
        parameters=parameters,
        bytes=size,
        files=names,
        checks=tuple(checks),
        notes=(f"opset {OPSET}; cache in and out, any batch, any length up to the context",),
    )


def _check_dtypes(dtypes: Sequence[str]) -> None:
    known = get_args(OnnxDtype)
    if not dtypes:
        raise ConfigError(f"--dtype: give one or more of {', '.join(known)}")
    for dtype in dtypes:
        if dtype not in known:
            raise ConfigError(
                f"--dtype {dtype}: an ONNX export has {', '.join(known)}."
                f"{did_you_mean(dtype, known)}"
            )


class _Steps:
    """Counts what is done for a `Progress`."""

    def __init__(self, progress: Progress, *, total: int) -> None:
        self._progress, self._total, self._done = progress, total, 0

    def begin(self, what: str) -> None:
        self._progress(what, self._done, self._total)
        self._done += 1


def _check_size(model: CausalLM, dtypes: Sequence[str]) -> None:
    # int8 is made from the fp32 graph, so it has that one's limit.
    width = 2 if set(dtypes) == {"fp16"} else 4
    size = width * sum(weight.numel() for weight in model.parameters())
    if size > _LARGEST:
        raise ExportError(
            f"the model has {size / 2**30:.1f} GiB of weights at {8 * width} bits, but an .onnx "
            "file holds at most 2 GiB"
            + ("; --dtype fp16 alone needs half" if width == 4 else "")
            + ". Export it with `minimind export gguf` or `minimind export hf`"
        )


def _write_graphs(
    model: CausalLM, folder: Path, dtypes: Sequence[str], steps: _Steps
) -> tuple[int, int]:
    """Write each file; return tensors and numbers of the first."""
    onnx = require("onnx", extra="onnx")
    full: Any = None
    counts = []
    for dtype in dtypes:
        steps.begin(f"write {FILES[dtype]}")
        if dtype == "fp16":
            proto = onnx_model(model, dtype=torch.float16)
        else:
            full = onnx_model(model) if full is None else full
            proto = full if dtype == "fp32" else quantize(full)
        onnx.checker.check_model(proto, full_check=True)
        onnx.save(proto, folder / FILES[dtype])
        tensors = proto.graph.initializer
        counts.append((len(tensors), sum(math.prod(tensor.dims) for tensor in tensors)))
    return counts[0]


def _verify(
    model: CausalLM, tokenizer: Tokenizer, folder: Path, dtypes: Sequence[str], steps: _Steps
) -> list[Check]:
    checks: list[Check] = []
    for dtype in dtypes:
        steps.begin(f"run {FILES[dtype]} in onnxruntime")
        checks += verify_file(folder / FILES[dtype], dtype=dtype, model=model, tokenizer=tokenizer)
    return checks
