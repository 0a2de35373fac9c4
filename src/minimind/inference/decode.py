"""Decoding with a KV cache in small steps: `prefill`, then `Sampler.choose`, `decode_one` in turn.

Token ids only, no text. Axes: B rows, T positions, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from minimind.errors import DataError, RunError
from minimind.inference.backend import TokenEvent
from minimind.inference.sampling import SamplingParams
from minimind.inference.scored import ScoredModel
from minimind.model import CausalLM, KVCache
from minimind.vision.ids import is_image_id

FinishReason = Literal["stop", "length", "context"]


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
def evaluating(model: ScoredModel) -> Iterator[None]:
    """Switch to eval mode and back: a model may be sampled from in the midst of training."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


def pad_right(rows: Sequence[Sequence[int]], device: torch.device, *, padding: int = 0) -> Tensor:
    """Return (B, T) int64, short rows padded at the end (never attended to)."""
    width = max(map(len, rows))
    padded = [[*row, *[padding] * (width - len(row))] for row in rows]
    return torch.tensor(padded, dtype=torch.int64, device=device)


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
    if model.compiled_step is not None and model.compiled_step.takes(cache):
        return model.compiled_step(cache, ids_B)
    return model(ids_B[:, None], cache=cache, logits="last").logits[:, -1]


def compile_decoding(model: CausalLM) -> None:
    """Compile the step of a single row now (`model.compiled`) instead of at its first token.

    On CUDA the first of its graphs is recorded (`model.graphs`); others follow as they are needed.

    Args:
        model: in eval mode.
    """
    model.set_compiled_decoding()
    cache = new_cache(model, batch_size=1, max_length=model.config.max_position_embeddings)
    decode_one(model, cache, torch.zeros(1, dtype=torch.int64, device=cache.device))


def new_cache(model: CausalLM, *, batch_size: int, max_length: int) -> KVCache:
    """Return an empty cache for `batch_size` rows of at most `max_length` tokens."""
    if model.compiled_step is not None:
        max_length = model.compiled_step.cache_length(max_length, batch_size=batch_size)
    weight = model.model.norm.weight  # never rounded: a quantised embedding would be undone here
    return KVCache(
        model.config,
        batch_size=batch_size,
        max_length=max_length,
        dtype=weight.dtype,
        device=weight.device,
    )


def check_prompt(model: CausalLM, prompt: Sequence[int]) -> None:
    """Refuse a prompt that the model can't read (see `check_ids`)."""
    config = model.config
    check_ids(prompt, context=config.max_position_embeddings, vocab_size=config.vocab_size)


def check_ids(prompt: Sequence[int], *, context: int, vocab_size: int) -> None:
    """Refuse a prompt that can't be read.

    Raises:
        DataError: it is empty, longer than the context, or has ids beyond the vocabulary.
    """
    if not prompt:
        raise DataError("the prompt is empty: give at least one token")
    if len(prompt) > context:
        raise DataError(
            f"the prompt has {len(prompt):,} tokens, the model's context "
            f"(max_position_embeddings) is {context:,}: shorten the prompt"
        )
    words = [token for token in prompt if not is_image_id(token)]
    if words and not 0 <= min(words) <= max(words) < vocab_size:
        raise DataError(
            f"the prompt has token ids from {min(words)} to {max(words)}, the model's vocabulary "
            f"is 0 to {vocab_size - 1}: use the tokenizer that it was trained with"
        )


def finish_reason(
    token: int, made: int, prompt: int, params: SamplingParams, context: int
) -> FinishReason | None:
    """Say why an answer of `made` tokens to a prompt of `prompt` ends at `token`, or None."""
    if token in params.stop_ids:
        return "stop"
    if made >= params.max_new_tokens:
        return "length"
    return "context" if prompt + made >= context else None


def reason_of(event: TokenEvent) -> FinishReason | None:
    """Return why an answer on the caller's own thread is over, or None.

    Raises:
        RunError: it failed.
    """
    if event.end == "error":
        raise RunError(event.error or "generating failed")
    return event.end if event.end in ("stop", "length", "context") else None
