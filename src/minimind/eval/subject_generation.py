"""Answers to many prompts for evaluation: side by side, with stop texts, without a server."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch

from minimind.eval.tasks.base import Generation, Progress, no_progress
from minimind.eval.transformers_lm import TransformersLM
from minimind.inference import SamplingParams
from minimind.inference.batch import Batch
from minimind.inference.decode import evaluating, reason_of
from minimind.inference.rows import TorchRows
from minimind.inference.slots import Request
from minimind.model import CausalLM
from minimind.tokenizer import Tokenizer


@dataclass(frozen=True, kw_only=True)
class Decoding:
    """A `Generation`, and what a caller that counts in tokens may add.

    Attributes:
        generation: how tokens are chosen, and stop texts.
        stop_ids: tokens that end an answer; None: the tokenizer's own.
        rows: answers side by side.
    """

    generation: Generation
    stop_ids: tuple[int, ...] | None = None
    rows: int = 64

    @classmethod
    def of(cls, generation: Generation, *, rows: int) -> Self:
        """Return the decoding of a generation with the tokenizer's own ends."""
        return cls(generation=generation, rows=rows)

    def params(self, tokenizer: Tokenizer, *, number: int, max_new_tokens: int) -> SamplingParams:
        """Return the engine's parameters of prompt `number`."""
        asked = self.generation
        return SamplingParams(
            temperature=asked.temperature,
            top_p=asked.top_p,
            repetition_penalty=asked.repetition_penalty,
            max_new_tokens=max_new_tokens,
            seed=asked.seed + number,
            stop_ids=tuple(tokenizer.stop_ids) if self.stop_ids is None else self.stop_ids,
        )


@dataclass(frozen=True, slots=True)
class Completed:
    """One answer: its text up to a stop text, how many tokens were made, and why it ended."""

    text: str
    tokens: int
    finished: str


def decode_all(
    model: CausalLM | TransformersLM,
    tokenizer: Tokenizer,
    prompts: Sequence[Sequence[int]],
    decoding: Decoding,
    *,
    progress: Progress = no_progress,
) -> list[Completed]:
    """Answer every prompt; ids that leave no room get an empty answer that ended by "context".

    Raises:
        RunError: the logits of one of ours are not finite.
    """
    if isinstance(model, TransformersLM):
        return [
            _by_transformers(model, tokenizer, prompt, decoding, number, progress)
            for number, prompt in enumerate(prompts)
        ]
    with evaluating(model):
        return _side_by_side(model, tokenizer, prompts, decoding, progress)


def _side_by_side(
    model: CausalLM,
    tokenizer: Tokenizer,
    prompts: Sequence[Sequence[int]],
    decoding: Decoding,
    progress: Progress,
) -> list[Completed]:
    context = model.config.max_position_embeddings
    results = [Completed("", 0, "context")] * len(prompts)
    waiting = deque(number for number, prompt in enumerate(prompts) if len(prompt) < context)
    progress(len(prompts) - len(waiting))
    if not waiting:
        return results
    wanted = decoding.generation.max_new_tokens
    longest = min(max(len(prompts[number]) for number in waiting) + wanted, context)
    batch = Batch(TorchRows(model, count=min(decoding.rows, len(waiting)), max_length=longest))
    numbers: dict[Request, int] = {}
    stop = decoding.generation.stop
    while waiting or batch.busy:
        while waiting and batch.slots.idle:
            number = waiting.popleft()
            params = decoding.params(tokenizer, number=number, max_new_tokens=wanted)
            request = Request(list(prompts[number]), params)
            numbers[request] = number
            batch.add(request)
        for request, event in batch.step():
            reason = reason_of(event)
            if reason is None and stop and _stopped(tokenizer, request.answer, stop):
                batch.remove(request)
                reason = "stop"
            if reason is not None:
                results[numbers.pop(request)] = _completed(tokenizer, request.answer, reason, stop)
                progress(1)
    return results


def _stopped(tokenizer: Tokenizer, answer: Sequence[int], stop: Sequence[str]) -> bool:
    """Tell whether a stop text is complete; only its end can have come with the last token."""
    longest = max(len(text.encode("utf-8")) for text in stop)
    tail = tokenizer.decode(answer[-longest - 1 :])  # a token has at least one byte
    return any(text in tail for text in stop if text)


def _completed(
    tokenizer: Tokenizer, ids: Sequence[int], reason: str, stop: Sequence[str]
) -> Completed:
    text = tokenizer.decode(ids, skip_special_tokens=True)
    ends = [text.index(mark) for mark in stop if mark and mark in text]
    return Completed(text[: min(ends)], len(ids), "stop") if ends else (
        Completed(text, len(ids), reason)
    )  # fmt: skip


def _by_transformers(
    model: TransformersLM,
    tokenizer: Tokenizer,
    prompt: Sequence[int],
    decoding: Decoding,
    number: int,
    progress: Progress,
) -> Completed:
    """Answer one prompt by transformers' own `generate`."""
    room = model.config.max_position_embeddings - len(prompt)
    wanted = min(decoding.generation.max_new_tokens, room)
    progress(1)
    if wanted < 1:
        return Completed("", 0, "context")
    params = decoding.params(tokenizer, number=number, max_new_tokens=wanted)
    choosing: dict[str, Any] = {"do_sample": False}
    if params.temperature > 0:
        torch.manual_seed(params.seed or 0)
        choosing = {"do_sample": True, "temperature": params.temperature, "top_p": params.top_p}
    ids_1T = torch.tensor([list(prompt)], device=model.output_weight.device)
    made_1T = model.wrapped.generate(
        ids_1T, attention_mask=torch.ones_like(ids_1T), max_new_tokens=wanted,
        repetition_penalty=params.repetition_penalty, pad_token_id=tokenizer.pad_id,
        eos_token_id=list(params.stop_ids), **choosing,
    )  # fmt: skip
    answer = made_1T[0, len(prompt) :].tolist()
    ended = bool(answer) and answer[-1] in params.stop_ids
    reason = "stop" if ended else "context" if len(answer) == room else "length"
    return _completed(tokenizer, answer[:-1] if ended else answer, reason, decoding.generation.stop)
