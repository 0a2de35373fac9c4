"""Proof that an exported file computes what our model computes: both are run on the same tokens.

Each row is read whole, in pieces through the cache, and token by token; then all rows are read as
one batch, padded on the left as transformers.js pads them; then a prompt is continued greedily.

Axes: B batch, T query, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from minimind.errors import VerificationError
from minimind.export.common import Check
from minimind.export.onnx_session import Floats, OnnxSession
from minimind.model import CausalLM, KVCache
from minimind.tokenizer import Tokenizer

GREEDY_TOKENS = 64


@dataclass(frozen=True, kw_only=True)
class Tolerance:
    """How far a file may be from our model.

    Attributes:
        logits: largest difference of a logit; None: not held to one.
        relative: root mean square of the differences over that of our logits (each position's
            mean taken off).
        greedy: continuations must be the same, except where two logits of ours are nearer to each
            other than twice the largest difference.
    """

    logits: float | None
    relative: float
    greedy: bool


TOLERANCES = {
    "fp32": Tolerance(logits=1e-3, relative=1e-4, greedy=True),
    # Measured on a trained 4.7M model: 0.0005 and 0.044, bits per byte +0.00 % and +0.02 %.
    "fp16": Tolerance(logits=None, relative=0.01, greedy=False),
    "int8": Tolerance(logits=None, relative=0.15, greedy=False),
}


def verify_file(
    path: Path, *, dtype: str, model: CausalLM, tokenizer: Tokenizer, steps: int = GREEDY_TOKENS
) -> list[Check]:
    """Run a file beside our model and compare.

    Args:
        path: the .onnx file.
        dtype: `fp32`, `fp16` or `int8`: which tolerance it is held to.
        model: ours, fp32, adapters merged or not.
        tokenizer: makes the rows.
        steps: length of the greedy continuation (less where the context ends before).

    Returns:
        One check of the logits, one of the continuation.

    Raises:
        VerificationError: onnxruntime can't load or run the file.
    """
    session = OnnxSession(path, threads=torch.get_num_threads())
    rows = sample_rows(model, tokenizer)
    try:
        largest, relative, positions = _compare(session, model, rows)
        steps = min(steps, model.config.max_position_embeddings - len(rows[0]))
        same = _same_greedy(session, model, rows[0], steps=steps, slack=2 * max(largest.values()))
    except RuntimeError as error:  # the base of onnxruntime's own
        raise VerificationError(f"onnxruntime can't run {path.name}: {error}") from error
    limit = TOLERANCES[dtype]
    return [
        _logits_check(dtype, largest=largest, relative=relative, positions=positions, limit=limit),
        Check(
            name=f"{dtype} greedy continuation",
            passed=same == steps or not limit.greedy,
            detail=f"{same} of {steps} tokens as ours"
            + ("" if limit.greedy else " (not required of this dtype)"),
            figures={"same": same, "tokens": steps},
        ),
    ]


def _logits_check(
    dtype: str, *, largest: dict[str, float], relative: float, positions: int, limit: Tolerance
) -> Check:
    """Hold the differences to the limit; a NaN is past every one."""
    worst = max(largest.values())
    passed = relative <= limit.relative and (limit.logits is None or worst <= limit.logits)
    allowed = f"{limit.relative:g} relative"
    allowed += "" if limit.logits is None else f", {limit.logits:g} largest"
    return Check(
        name=f"{dtype} logits",
        passed=passed,
        detail=f"largest difference {worst:.2g}, relative {relative:.2g} (allowed: {allowed}); "
        f"{positions} positions, each read in {len(largest)} ways",
        figures={"largest": worst, "relative": relative, "positions": positions, **largest},
    )


def sample_rows(model: CausalLM, tokenizer: Tokenizer) -> list[list[int]]:
    """Return ragged rows: a chat prompt, Chinese and English text, and random ids past a window."""
    config = model.config
    context = config.max_position_embeddings
    longest = max(1, context - 8)
    draw = np.random.default_rng(0)
    random = draw.integers(
        0, config.vocab_size, size=min(longest, (config.sliding_window or 0) + 40)
    )
    question = [{"role": "user", "content": "你好！请用一句话介绍自己。"}]
    rows = [
        tokenizer.render(question, add_generation_prompt=True).ids[: max(1, context // 2)],
        [tokenizer.document_start_id, *tokenizer.encode("春眠不觉晓，处处闻啼鸟。")],
        [tokenizer.document_start_id, *tokenizer.encode("Once upon a time 😀")],
        [int(i) for i in random],
    ]
    return [row[:longest] for row in rows]


def _compare(
    session: OnnxSession, model: CausalLM, rows: Sequence[list[int]]
) -> tuple[dict[str, float], float, int]:
    """Return the largest difference by way of reading, the relative one, and the positions."""
    reference_NV = np.concatenate([_our_logits(model, row) for row in rows])
    theirs = {
        "whole": [_read(session, row, [len(row)]) for row in rows],
        "pieces": [_read(session, row, _pieces(len(row))) for row in rows],
        "steps": [_read(session, row, [1] * len(row)) for row in rows],
        "batch": _read_batch(session, rows),
    }
    differences = {way: np.concatenate(logits) - reference_NV for way, logits in theirs.items()}
    spread_NV = reference_NV - reference_NV.mean(-1, keepdims=True)
    mean_square = np.mean([np.square(delta).mean() for delta in differences.values()])
    return (
        {way: float(np.abs(delta).max()) for way, delta in differences.items()},
        float(np.sqrt(mean_square / max(np.square(spread_NV).mean(), 1e-12))),
        len(reference_NV),
    )


@torch.no_grad()
def _our_logits(model: CausalLM, row: Sequence[int]) -> Floats:
    logits = model(torch.tensor([row], device=model.output_weight.device)).logits
    return logits[0].float().cpu().numpy()


def _pieces(length: int) -> list[int]:
    """Return the lengths of growing pieces: 1, 2, 4, ... and what is left."""
    pieces: list[int] = []
    while sum(pieces) < length:
        pieces.append(min(2 ** len(pieces), length - sum(pieces)))
    return pieces


def _read(session: OnnxSession, row: Sequence[int], pieces: Sequence[int]) -> Floats:
    past, logits, start = session.empty(1), [], 0
    for length in pieces:
        ids_BT = np.array([row[start : start + length]], np.int64)
        logits_BTV, past = session.run(ids_BT, past)
        logits.append(logits_BTV[0])
        start += length
    return np.concatenate(logits)


def _read_batch(session: OnnxSession, rows: Sequence[Sequence[int]]) -> list[Floats]:
    """Read all rows at once, padded on the left; the last token in a call of its own."""
    T = max(map(len, rows))
    ids_BT, mask_BT = np.zeros((len(rows), T), np.int64), np.zeros((len(rows), T), np.int64)
    for b, row in enumerate(rows):
        ids_BT[b, T - len(row) :], mask_BT[b, T - len(row) :] = row, 1
    positions = (mask_BT.cumsum(1) - 1).clip(min=0)
    past, logits = session.empty(len(rows)), []
    for start, end in ((0, T - 1), (T - 1, T)) if T > 1 else ((0, T),):
        part, past = session.run(
            ids_BT[:, start:end], past,
            mask_BS=mask_BT[:, :end], positions=positions[:, start:end],
        )  # fmt: skip
        logits.append(part)
    whole_BTV = np.concatenate(logits, axis=1)
    return [whole_BTV[b, T - len(row) :] for b, row in enumerate(rows)]


def _same_greedy(
    session: OnnxSession, model: CausalLM, prompt: Sequence[int], *, steps: int, slack: float
) -> int:
    """Return how many greedy tokens agree; a tie within `slack` ends the comparison as agreed."""
    theirs = session.greedy(prompt, steps=steps)
    for agreed, (token, logits_V) in enumerate(
        zip(theirs, _our_steps(model, [*prompt, *theirs], len(prompt)), strict=True)
    ):
        if token != int(logits_V.argmax()):
            return steps if logits_V.max() - logits_V[token] <= slack else agreed
    return steps


@torch.no_grad()
def _our_steps(model: CausalLM, ids: Sequence[int], start: int) -> Iterator[Floats]:
    """Yield our logits before each token from `start` on, decoded through our own cache."""
    cache = KVCache(
        model.config, batch_size=1, max_length=len(ids),
        dtype=model.output_weight.dtype, device=model.output_weight.device,
    )  # fmt: skip
    pieces = [list(ids[:start]), *([token] for token in ids[start:-1])]
    for piece in pieces:
        piece_BT = torch.tensor([piece], device=model.output_weight.device)
        logits = model(piece_BT, cache=cache, logits="last").logits
        yield logits[0, -1].float().cpu().numpy()
