"""What quantisation costs and saves: size, bits per byte, speed, each beside the plain weights.

The cost is paired: every document is read by the plain and by the quantised model, and whole
documents are drawn with replacement for the interval of the change. Drawn apart, the documents'
own differences would hide costs of a tenth of a percent.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from minimind import checkpoint
from minimind.data.document import Document
from minimind.errors import CheckpointError, DataError
from minimind.eval.bits_per_byte import utf8, windows, with_text
from minimind.eval.held_out import split_text
from minimind.eval.scoring import label_log_probs
from minimind.eval.statistics import bootstrap_ratio
from minimind.inference.engine import Engine
from minimind.inference.sampling import SamplingParams
from minimind.model import CausalLM
from minimind.model.quantize import weight_bytes
from minimind.settings import load_run_config
from minimind.tokenizer import Tokenizer

PROMPT, NEW, ROUNDS = 16, 64, 3
"""Tokens read and made for the speed, and how often; the median counts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """Tokens made a second by one request, greedy.

    Attributes:
        eager: without compilation.
        compiled: with `--compile` of chat, generate and serve; None: not asked for, or not to be
            had (bitsandbytes).
    """

    eager: float
    compiled: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """One row of the table.

    Attributes:
        name: `fp32`, `bf16` or a method.
        path: the directory that was written; the original's for the plain weights.
        disk_bytes: the weights' file; None for plain weights in another dtype than they were saved.
        memory_bytes: weights in memory.
        bits_per_byte: on held-out text; None: not measured.
        change: bits per byte against the first row, -1 to 1; None for that row.
        change_low: lower end of its 95 % interval.
        change_high: upper end.
        speed: None: not measured.
    """

    name: str
    path: str
    disk_bytes: int | None
    memory_bytes: int
    bits_per_byte: float | None = None
    change: float | None = None
    change_low: float | None = None
    change_high: float | None = None
    speed: Speed | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the figures, builtins only."""
        return asdict(self)


def measure(
    name: str,
    path: Path,
    model: CausalLM,
    *,
    disk_bytes: int | None,
    bits: Sequence[float] | None = None,
    plain_bits: Sequence[float] | None = None,
    documents: Sequence[Document] = (),
    speed: Speed | None = None,
) -> Cost:
    """Make a row of the table.

    Args:
        name: of the row.
        path: of its directory.
        model: as it was loaded.
        disk_bytes: of its weights' file.
        bits: that the model needs for each document.
        plain_bits: that the plain model needs for each; None for the plain model itself.
        documents: what they were measured on.
        speed: of decoding.
    """
    row = {
        "name": name, "path": str(path), "disk_bytes": disk_bytes,
        "memory_bytes": weight_bytes(model), "speed": speed,
    }  # fmt: skip
    if bits is not None:
        row["bits_per_byte"] = sum(bits) / sum(len(utf8(d.text)) for d in documents)
    if bits is not None and plain_bits is not None:
        low, high = bootstrap_ratio(bits, plain_bits)
        row["change"] = sum(bits) / sum(plain_bits) - 1
        row["change_low"], row["change_high"] = low - 1, high - 1
    return Cost(**row)


def document_bits(
    model: CausalLM, tokenizer: Tokenizer, documents: Sequence[Document]
) -> list[float]:
    """Return the bits that the model needs for each document and its end.

    Windows are those of `eval.bits_per_byte`: the sum over documents is its numerator.
    """
    context = model.config.max_position_embeddings
    rows, owners = windows(
        tokenizer.encode_batch([document.text for document in documents]),
        start=tokenizer.document_start_id, endoftext=tokenizer.endoftext_id, context=context,
        stride=max(1, context // 2),
    )  # fmt: skip
    bits = [0.0] * len(documents)
    for owner, scores_T in zip(owners, label_log_probs(model, rows), strict=True):
        bits[owner] -= float(scores_T.astype("float64").sum()) / math.log(2)
    return bits


def decoding_speed(model: CausalLM, *, compiled: bool = False) -> Speed:
    """Time one request of `PROMPT` + `NEW` tokens, `ROUNDS` times after one to warm up.

    Args:
        model: any, on its device.
        compiled: also time compiled decoding, where the method has it (20 s to compile).
    """
    eager = _tokens_per_second(model)
    quantization = model.quantization
    if not compiled or (quantization is not None and quantization.method.startswith("bnb")):
        return Speed(eager=eager)
    model.set_compiled_decoding()
    try:
        return Speed(eager=eager, compiled=_tokens_per_second(model))
    finally:
        model.set_compiled_decoding(on=False)


def _tokens_per_second(model: CausalLM) -> float:
    context = model.config.max_position_embeddings
    prompt = torch.randint(
        model.config.vocab_size, (min(PROMPT, context - 1),), generator=torch.Generator()
    ).tolist()
    count = min(NEW, context - len(prompt))
    params = SamplingParams(temperature=0, repetition_penalty=1.0, max_new_tokens=count)
    engine, rates = Engine(model), []
    for _ in range(ROUNDS + 1):
        begin = time.perf_counter()
        made = sum(1 for _ in engine.stream(prompt, params))
        rates.append(made / (time.perf_counter() - begin))
    return statistics.median(rates[1:])


def held_out_text(directory: Path, *, text: str | None = None) -> list[Document]:
    """Return documents to measure on: of a file, or what the checkpoint's run held out.

    A chat or preference run is followed to the text run that it started from.

    Args:
        directory: a checkpoint directory.
        text: path or glob of JSONL or .txt (a document a line); all of it is measured on. None:
            the run's.

    Raises:
        DataError: there is none; says what to give instead.
    """
    if text is not None:
        return with_text(split_text([text], share=1.0).held_out)
    advice = "give --text FILE with text that the model was not trained on, or --no-measure"
    seen: set[Path] = set()
    while directory not in seen:
        seen.add(directory)
        if not (directory / "run.toml").exists():
            raise DataError(f"{directory} has no run.toml that names its data: {advice}")
        run = load_run_config([str(directory / "run.toml")])
        if run.data.kind == "text":
            try:
                if run.data.validation is not None:
                    return with_text(split_text(run.data.validation, share=1.0).held_out)
                split = split_text(run.data.train, share=run.data.validation_share)
                return with_text(split.held_out)
            except DataError as error:
                raise DataError(f"no held-out text of the run: {error}; {advice}") from error
        if run.init.checkpoint is None:
            break
        try:
            directory = checkpoint.resolve(run.init.checkpoint)
        except CheckpointError as error:
            raise DataError(f"the text run that this one began with: {error} {advice}") from error
    raise DataError(f"{directory} was not trained on plain text: {advice}")
