"""Decoding with a KV cache, in small steps: `prefill`, then `sample` and `decode_one` in turn.

The engine knows token ids, not text. Axes: B rows, T positions, D hidden, V vocabulary, N picked
positions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from minimind.errors import DataError
from minimind.inference.sampling import SamplingParams, sample
from minimind.model import CausalLM, KVCache

FinishReason = Literal["stop", "length", "context"]
PACK_BELOW = 0.75
"""Finished rows leave the batch when at most this share of it is still going: leaving copies the
cache, so it has to pay for itself."""


@dataclass(frozen=True, slots=True)
class Completion:
    """What was generated for one prompt.

    Attributes:
        ids: the new tokens, without the stop token.
        finish_reason: `stop` a stop token came, `length` max_new_tokens were made,
            `context` the model's context is full.
    """

    ids: list[int]
    finish_reason: FinishReason


@contextmanager
def evaluating(model: CausalLM) -> Iterator[None]:
    """Switch to eval mode and back: a model may be sampled from in the midst of training."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


def pad_right(rows: Sequence[Sequence[int]], device: torch.device) -> Tensor:
    """Return (B, T) int64 ids, short rows padded with 0 at the end (never attended to)."""
    width = max(map(len, rows))
    return torch.tensor([[*row, *[0] * (width - len(row))] for row in rows], device=device)


# no_grad rather than inference_mode: tables that the model builds on first use (rotary angles)
# would become inference tensors, and training after sampling would fail on them.
@torch.no_grad()
def prefill(model: CausalLM, cache: KVCache, rows: Sequence[Sequence[int]]) -> Tensor:
    """Read `rows` behind what the cache holds; return (B, V) logits after each row's last token.

    Ragged rows are padded on the right and read at once; the cache skips the padding.
    """
    ids_BT = pad_right(rows, cache.device)
    counts_B = torch.tensor([len(row) for row in rows])
    logits_B1V = model(ids_BT, cache=cache, token_counts=counts_B, logits="last").logits
    return logits_B1V[:, -1]


@torch.no_grad()
def decode_one(model: CausalLM, cache: KVCache, ids_B: Tensor) -> Tensor:
    """Read one token a row; return (B, V) logits of the next."""
    return model(ids_B[:, None], cache=cache, logits="last").logits[:, -1]


def seen_tokens(
    rows: Sequence[Sequence[int]], params: SamplingParams, *, like: Tensor
) -> Tensor | None:
    """Return (B, V) bool, the tokens of each row that the repetition penalty applies to.

    Stop tokens are spared: the end of every earlier turn would make the end of this one less
    likely. None when the penalty is off.
    """
    if params.repetition_penalty == 1:
        return None
    seen_BV = torch.zeros_like(like, dtype=torch.bool)
    for seen_V, row in zip(seen_BV, rows, strict=True):
        seen_V[torch.tensor(list(row), device=like.device)] = True
    seen_BV[:, list(params.stop_ids)] = False
    return seen_BV


def new_cache(model: CausalLM, *, batch_size: int, max_length: int) -> KVCache:
    """Return an empty cache for `batch_size` rows of at most `max_length` tokens."""
    weight = model.output_weight
    return KVCache(
        model.config,
        batch_size=batch_size,
        max_length=max_length,
        dtype=weight.dtype,
        device=weight.device,
    )


def check_prompt(model: CausalLM, prompt: Sequence[int]) -> None:
    """Refuse a prompt that can't be read.

    Raises:
        DataError: it is empty, longer than the context, or has ids beyond the vocabulary.
    """
    context, vocab_size = model.config.max_position_embeddings, model.config.vocab_size
    if not prompt:
        raise DataError("the prompt is empty: give at least one token")
    if len(prompt) > context:
        raise DataError(
            f"the prompt has {len(prompt):,} tokens, the model's context "
            f"(max_position_embeddings) is {context:,}: shorten the prompt"
        )
    if not 0 <= min(prompt) <= max(prompt) < vocab_size:
        raise DataError(
            f"the prompt has token ids from {min(prompt)} to {max(prompt)}, the model's vocabulary "
            f"is 0 to {vocab_size - 1}: use the tokenizer that it was trained with"
        )


def decode_batch(
    model: CausalLM,
    prompts: Sequence[Sequence[int]],
    params: SamplingParams,
    *,
    generators: Sequence[torch.Generator],
) -> Iterator[tuple[int, Completion]]:
    """Decode prompts side by side; yield (row, completion) as rows finish.

    A finished row is fed on with the others, unheeded, until a quarter of the batch has finished:
    then the rest is packed together.
    """
    context = model.config.max_position_embeddings
    yield from ((r, Completion([], "context")) for r, p in enumerate(prompts) if len(p) >= context)
    slots = [row for row, prompt in enumerate(prompts) if len(prompt) < context]
    if not slots:
        return
    answers: list[list[int]] = [[] for _ in prompts]
    read = [prompts[row] for row in slots]
    longest = min(max(map(len, read)) + params.max_new_tokens, context)
    cache = new_cache(model, batch_size=len(read), max_length=longest)
    logits_BV = prefill(model, cache, read)
    seen_BV = seen_tokens(read, params, like=logits_BV)
    finished: set[int] = set()
    while True:
        ids_B = sample(
            logits_BV, params, generators=[generators[r] for r in slots], seen_BV=seen_BV
        )
        must_leave = False
        for row, token in zip(slots, ids_B.tolist(), strict=True):
            if row in finished:
                continue
            answer = answers[row]
            if token not in params.stop_ids:
                answer.append(token)
            reason = finish_reason(token, len(answer), len(prompts[row]), params, context)
            if reason:
                finished.add(row)
                must_leave |= reason == "context"  # its cache has no room for another token
                yield row, Completion(answer, reason)
        going = [slot for slot, row in enumerate(slots) if row not in finished]
        if not going:
            return
        if seen_BV is not None:
            seen_BV.scatter_(1, ids_B[:, None], value=True)
        if must_leave or len(going) <= PACK_BELOW * len(slots):
            slots = [slots[slot] for slot in going]
            cache.select(going)
            ids_B = ids_B[going]
            seen_BV = seen_BV[going] if seen_BV is not None else None
        logits_BV = decode_one(model, cache, ids_B)


def finish_reason(
    token: int, made: int, prompt: int, params: SamplingParams, context: int
) -> FinishReason | None:
    """Say why an answer of `made` tokens to a prompt of `prompt` ends at `token`, or None."""
    if token in params.stop_ids:
        return "stop"
    if made >= params.max_new_tokens:
        return "length"
    return "context" if prompt + made >= context else None
