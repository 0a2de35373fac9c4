"""Two calls for notebooks: `load` a checkpoint, `generate` text from it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from minimind import checkpoint
from minimind.inference.engine import Engine
from minimind.inference.sampling import SamplingParams
from minimind.model import CausalLM
from minimind.tokenizer import Message, Tokenizer


def load(
    path: str | Path, *, device: str = "cpu", dtype: torch.dtype | None = None
) -> tuple[CausalLM, Tokenizer]:
    """Load a checkpoint directory, the newest of a run directory, or `RUN:best`.

    Args:
        path: where it is.
        device: a torch device.
        dtype: of the weights; None keeps what was saved.

    Returns:
        The model in eval mode, and its tokenizer.

    Raises:
        CheckpointError: there is none, or it is damaged.
    """
    return checkpoint.load(path, device=device, dtype=dtype)


def prompt_ids(tokenizer: Tokenizer, prompt: str | Sequence[Message]) -> list[int]:
    """Return the ids that are continued: of plain text, or of messages up to the answer's start.

    Plain text begins a document, so it gets the mark that opens each one in training.
    """
    if isinstance(prompt, str):
        return [tokenizer.document_start_id, *tokenizer.encode(prompt)]
    return tokenizer.render(list(prompt), add_generation_prompt=True).ids


def text_pieces(tokenizer: Tokenizer, ids: Iterable[int]) -> Iterator[str]:
    """Yield the text of `ids` as it becomes certain, without control tokens or half characters."""
    decode = tokenizer.stream()
    for token in ids:
        if piece := "" if token in tokenizer.control_ids else decode(token):
            yield piece
    if rest := decode.flush():
        yield rest


def generate(
    model: CausalLM,
    tokenizer: Tokenizer,
    prompt: str | Sequence[Message],
    *,
    params: SamplingParams | None = None,
) -> str:
    """Continue a text, or answer messages.

    `generate(model, tokenizer, "从前")` continues the text as a pretrained model does;
    `generate(model, tokenizer, [{"role": "user", "content": "你好"}])` answers as in a chat.

    Args:
        model: from `load`.
        tokenizer: from `load`.
        prompt: text or messages.
        params: how tokens are chosen; its `stop_ids`, when empty, are the tokenizer's.

    Returns:
        The new text only.

    Raises:
        DataError: the prompt is empty or longer than the model's context.
    """
    params = params or SamplingParams()
    if not params.stop_ids:
        params = replace(params, stop_ids=tuple(tokenizer.stop_ids))
    ids = Engine(model).generate([prompt_ids(tokenizer, prompt)], params)[0]
    return tokenizer.decode(ids, skip_special_tokens=True)
