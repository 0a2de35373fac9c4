"""A model with its tokenizer as the `Subject` that tasks ask: ours, or any of transformers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch

from minimind import checkpoint
from minimind.checkpoint.files import MANIFEST
from minimind.errors import CheckpointError, TokenizerError
from minimind.eval.scoring_tree import Pair, score_pairs
from minimind.eval.subject_generation import Completed, Decoding, decode_all
from minimind.eval.tasks.base import (
    Generated,
    Generation,
    Likelihood,
    Progress,
    Request,
    no_progress,
)
from minimind.eval.transformers_lm import TransformersLM, load_transformers
from minimind.inference.scoring import Precision
from minimind.model import CausalLM
from minimind.tokenizer import Message, Tokenizer
from minimind.tokenizer.foreign import ForeignTokenizer

_AFTER_LINE = re.compile(r"(?<=\n)(?=\S)")
"""Where a line begins: Qwen2's pre-tokenizer never joins what lies on its two sides."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """How a subject computes.

    Attributes:
        precision: of the forward pass.
        batch_tokens: slots of one forward pass.
        batch_rows: answers that are generated side by side.
    """

    precision: Precision = "fp32"
    batch_tokens: int = 8192
    batch_rows: int = 64


class ModelSubject:
    """A loaded model. See `tasks.base.Subject` for what its methods promise.

    Attributes:
        name: how tables call it.
        model: a `CausalLM` or a `TransformersLM`.
        tokenizer: its tokenizer.
        context_length: `max_position_embeddings`.
        has_chat_template: whether messages can be contexts.
        directory: where it was loaded from; None for one made in memory.
    """

    def __init__(
        self,
        name: str,
        model: CausalLM | TransformersLM,
        tokenizer: Tokenizer,
        *,
        options: Options | None = None,
        directory: Path | None = None,
    ) -> None:
        self.name = name
        self.directory = directory
        self.model = model
        self.tokenizer = tokenizer
        self.options = options or Options()
        self.context_length = model.config.max_position_embeddings
        foreign = isinstance(tokenizer, ForeignTokenizer)
        self.has_chat_template = tokenizer.has_chat_template if foreign else True
        self._encode = LineEncoder(tokenizer)

    @property
    def parameters(self) -> int:
        """Return how many weights it has."""
        return sum(weight.numel() for weight in self.model.parameters())

    def count_tokens(self, context: str | Sequence[Message], continuation: str = "") -> int:
        """Return the tokens of a context as it would be read, and of what follows it."""
        before, after = self._pair(context, continuation)
        return len(before) + len(after)

    def score(
        self, requests: Sequence[Request], *, progress: Progress = no_progress
    ) -> list[Likelihood]:
        """Return the likelihood of each continuation, in order."""
        whole = [self._pair(request.context, request.continuation) for request in requests]
        fitted = [_fit(pair, self.context_length) for pair in whole]
        scores = self.score_ids([pair for pair, _ in fitted], progress=progress)
        return [
            Likelihood(log_prob=log_prob, greedy=greedy, tokens=len(after), cut=cut)
            for (log_prob, greedy), ((_, after), cut) in zip(scores, fitted, strict=True)
        ]

    def score_ids(
        self, pairs: Sequence[Pair], *, progress: Progress = no_progress
    ) -> list[tuple[float, bool]]:
        """Return (nats, greedy) of pairs of token ids that fit; an empty continuation is sure."""
        asked = [i for i, (_, after) in enumerate(pairs) if after]
        scores = score_pairs(
            self.model, [pairs[i] for i in asked], precision=self.options.precision,
            batch_tokens=self.options.batch_tokens, progress=progress,
        )  # fmt: skip
        results = [(0.0, True)] * len(pairs)
        for i, score in zip(asked, scores, strict=True):
            results[i] = score
        return results

    def rolling(
        self, texts: Sequence[str], *, progress: Progress = no_progress
    ) -> list[Likelihood]:
        """Return the likelihood of each whole text; a window starts where the last one ended."""
        windows: list[Pair] = []
        owners: list[int] = []
        for number, text in enumerate(texts):
            ids = [self.tokenizer.document_start_id, *self.tokenizer.encode(text)]
            for begin in range(0, len(ids) - 1, self.context_length):
                windows.append(
                    (ids[begin : begin + 1], ids[begin + 1 : begin + 1 + self.context_length])
                )
                owners.append(number)
        scores = self.score_ids(windows)
        results = [Likelihood(log_prob=0.0, greedy=True, tokens=0)] * len(texts)
        for owner, (_, after), (log_prob, greedy) in zip(owners, windows, scores, strict=True):
            old = results[owner]
            results[owner] = Likelihood(
                log_prob=old.log_prob + log_prob,
                greedy=old.greedy and greedy,
                tokens=old.tokens + len(after),
            )
        progress(len(texts))
        return results

    def generate(
        self,
        prompts: Sequence[str | Sequence[Message]],
        generation: Generation,
        *,
        progress: Progress = no_progress,
    ) -> list[Generated]:
        """Return the answer to each prompt, in order."""
        ids = [self._pair(prompt, "")[0] for prompt in prompts]
        room = max(1, self.context_length - generation.max_new_tokens)
        cuts = [max(0, len(one) - room) for one in ids]
        completed = decode_all(
            self.model, self.tokenizer,
            [one[cut:] for one, cut in zip(ids, cuts, strict=True)],
            Decoding.of(generation, rows=self.options.batch_rows), progress=progress,
        )  # fmt: skip
        return [_generated(one, cut) for one, cut in zip(completed, cuts, strict=True)]

    def _pair(self, context: str | Sequence[Message], continuation: str) -> Pair:
        """Return the ids before and after the beginning of what is scored."""
        if not isinstance(context, str):
            self._check_template()
            before = self.tokenizer.render(list(context), add_generation_prompt=True).ids
            return before, self._encode(continuation)
        start = [self.tokenizer.document_start_id]
        if not continuation:
            return [*start, *self._encode(context)], []
        ids = self._encode(context + continuation)
        kept = _before(self.tokenizer, ids, context, continuation)
        return [*start, *ids[:kept]], ids[kept:]

    def _check_template(self) -> None:
        if not self.has_chat_template:
            raise TokenizerError(
                f"{self.name} has no chat template (a base model: it continues text): leave out "
                "--chat, or import it with `minimind import --chat-template FILE`"
            )


class LineEncoder:
    """Encodes text line by line and remembers the lines: few-shot examples come again and again.

    Only for our own tokenizer, whose pattern is known to break there; others encode as they do.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.encode = tokenizer.encode
        self.by_line = type(tokenizer) is Tokenizer
        self.line = lru_cache(maxsize=1 << 15)(lambda text: tuple(tokenizer.encode(text)))

    def __call__(self, text: str) -> list[int]:
        """Return the ids of a text."""
        if not self.by_line:
            return self.encode(text)
        return [token for line in _AFTER_LINE.split(text) for token in self.line(line)]


def load_subject(
    path: str | Path, *, name: str = "", device: str = "cpu", options: Options | None = None
) -> ModelSubject:
    """Load a checkpoint, a run, or any Hugging Face directory.

    What `checkpoint.load` takes is loaded by it (ours, imported, adapters, quantised); any other
    directory with a config.json by transformers.

    Args:
        path: a directory, or RUN:best.
        name: how tables call it; default: the last parts of the path.
        device: a torch device.
        options: how it computes.

    Raises:
        CheckpointError: it is neither; says why.
    """
    # Half-precision weights (an exported directory) would compute in half precision, whatever
    # `precision` says; autocast doesn't widen.
    full = (options or Options()).precision == "fp32"
    model, tokenizer = load_any(path, device=device, dtype=torch.float32 if full else None)
    return ModelSubject(
        name or short_name(path), model, tokenizer, options=options,
        directory=checkpoint.resolve(path),
    )  # fmt: skip


def load_any(
    path: str | Path, *, device: str = "cpu", dtype: torch.dtype | None = None
) -> tuple[CausalLM | TransformersLM, Tokenizer]:
    """Return the model and the tokenizer of a directory (see `load_subject`).

    Args:
        path: the directory.
        device: a torch device.
        dtype: of the weights; None keeps what was saved (transformers': fp32 either way).
    """
    directory = checkpoint.resolve(path)
    try:
        return checkpoint.load(directory, device=device, dtype=dtype)
    except (CheckpointError, TokenizerError) as ours:
        if (directory / MANIFEST).exists() or not (directory / "config.json").exists():
            raise
        try:
            model, tokenizer = load_transformers(directory)
        except (CheckpointError, TokenizerError) as theirs:
            raise CheckpointError(
                f"{directory} is no checkpoint of ours ({ours}), and transformers has no use for "
                f"it either ({theirs})"
            ) from theirs
        return model.to(device), tokenizer


def short_name(path: str | Path) -> str:
    """Return what tables call a checkpoint: `dpo`, `dpo/step-000200`."""
    parts = [part for part in Path(path).parts if part not in {"checkpoints", "."}]
    return "/".join(parts[-2:] if parts[-1].startswith("step-") else parts[-1:])


def _before(tokenizer: Tokenizer, ids: Sequence[int], context: str, continuation: str) -> int:
    """Return how many of the ids lie wholly in the context; a straddling one is scored."""
    after = len(continuation.encode("utf-8", "replace"))
    kept, rest = len(ids), 0
    while kept and rest < after:
        kept -= 1
        rest += len(tokenizer.token_bytes(ids[kept]))
    return kept


def _fit(pair: Pair, context_length: int) -> tuple[Pair, int]:
    """Cut the beginning of a pair that is longer than the context; say by how many tokens.

    The last token is only predicted, so one more than the context fits.
    """
    before, after = pair
    over = len(before) + len(after) - (context_length + 1)
    if over <= 0:
        return pair, 0
    if over < len(before):
        return (before[over:], after), over
    ids = [*before, *after][over:]
    return (ids[:1], ids[1:]), over


def _generated(completed: Completed, cut: int) -> Generated:
    return Generated(
        text=completed.text, tokens=completed.tokens, finished=completed.finished, cut=cut
    )
