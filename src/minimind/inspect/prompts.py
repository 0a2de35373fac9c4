"""From a text or messages, and what the model adds to them, to the tokens that are inspected."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from minimind.errors import DataError
from minimind.inference.api import prompt_ids
from minimind.inference.engine import Engine
from minimind.inference.sampling import SamplingParams
from minimind.inspect.reading import Reading, read_ids
from minimind.model import CausalLM
from minimind.tokenizer import Message, Tokenizer
from minimind.tokenizer.messages import check_messages

Prompt = str | Sequence[Message]

GREEDY = SamplingParams(temperature=0, repetition_penalty=1, max_new_tokens=64)


def read(
    model: CausalLM,
    tokenizer: Tokenizer,
    prompt: Prompt,
    *,
    name: str = "model",
    generate: int = 0,
    params: SamplingParams = GREEDY,
    layers: Sequence[int] | None = None,
    heads: Sequence[int] | None = None,
) -> Reading:
    """Read a text or a conversation, and what the model goes on with.

    Args:
        model: from `minimind.load`.
        tokenizer: from `minimind.load`.
        prompt: a text, or messages; without an answer at their end the prompt for one is read.
        name: what the model is called.
        generate: let the model add at most so many tokens before the whole is read.
        params: how those are chosen; the likeliest each time.
        layers: whose attention is kept, from 0; None: all.
        heads: whose attention is kept, from 0; None: all.

    Raises:
        ConfigError: a layer, head or sampling parameter out of range.
        DataError: the prompt is empty, or with what is to be generated longer than the context.
    """
    ids, pieces = encode(tokenizer, prompt)
    check_length(model, ids, prompt=prompt, generate=generate)
    added: list[int] = []
    if generate:
        if _answered(prompt):
            raise DataError(
                "--generate: the last message is an answer already; end with a user's message, "
                "or leave --generate out to read the conversation as it is"
            )
        params = replace(params, max_new_tokens=generate)
        if not params.stop_ids:
            params = replace(params, stop_ids=tuple(tokenizer.stop_ids))
        added = Engine(model).generate([ids], params)[0]
        text = tokenizer.decode(added, skip_special_tokens=True)
        if isinstance(prompt, str):
            pieces = [pieces[0] + text]
        elif text.strip():
            pieces = [*pieces, text.strip()]
    return read_ids(
        model, tokenizer, ids=[*ids, *added], pieces=pieces, name=name, generated=len(ids),
        layers=layers, heads=heads,
    )  # fmt: skip


def encode(tokenizer: Tokenizer, prompt: Prompt) -> tuple[list[int], list[str]]:
    """Return the token ids of a prompt, and the texts in it (see `Reading.pieces`).

    Raises:
        DataError: there is nothing in it.
    """
    if isinstance(prompt, str):
        if not prompt:
            raise DataError("--text is empty: give at least one character")
        return prompt_ids(tokenizer, prompt), [prompt]
    check_messages(prompt)
    contents = [message.get("content") for message in prompt]
    pieces = [text.strip() for text in contents if isinstance(text, str) and text.strip()]
    if not pieces:
        raise DataError("the messages are empty: give at least one character")
    return tokenizer.render(list(prompt), add_generation_prompt=not _answered(prompt)).ids, pieces


def check_length(model: CausalLM, ids: Sequence[int], *, prompt: Prompt, generate: int) -> None:
    """Refuse what doesn't fit the context, saying by how much.

    Raises:
        DataError: too long, or `generate` is negative.
    """
    if generate < 0:
        raise DataError(f"--generate {generate}: must be 0 (nothing) or more")
    context, T = model.config.max_position_embeddings, len(ids)
    over = T + generate - context
    if over <= 0:
        return
    if over <= generate:
        raise DataError(
            f"the text has {T:,} tokens, and --generate {generate} makes {over:,} more than the "
            f"model's context ({context:,}): use --generate {context - T}, or a shorter text"
        )
    length = len(prompt) if isinstance(prompt, str) else sum(map(_characters, prompt))
    cut = -(-length * over // T)
    raise DataError(
        f"the text has {T:,} tokens, {over:,} more than the model's context ({context:,}): "
        f"take about {cut:,} of its {length:,} characters away, or inspect it in parts"
    )


def _answered(prompt: Prompt) -> bool:
    return not isinstance(prompt, str) and prompt[-1]["role"] == "assistant"


def _characters(message: Message) -> int:
    return len(str(message.get("content") or ""))
