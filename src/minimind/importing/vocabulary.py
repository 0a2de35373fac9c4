"""The tokenizer of a foreign model, with the ids whose roles have to be found out."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from minimind.errors import DataError, TokenizerError
from minimind.tokenizer import SPECIAL_TOKENS, Tokenizer
from minimind.tokenizer.foreign import ForeignTokenizer
from minimind.tokenizer.roles import find_roles, read_backend


def make_tokenizer(
    tokenizer_json: str,
    *,
    config: Mapping[str, Any],
    template: str | None,
    eos_ids: Sequence[int],
    origin: str,
) -> Tokenizer:
    """Return the tokenizer of a foreign model; ours if it is ours (an export that comes back).

    Args:
        tokenizer_json: content of tokenizer.json.
        config: content of tokenizer_config.json.
        template: its chat template.
        eos_ids: those that the model's files name.
        origin: what errors call it.

    Raises:
        TokenizerError: it can't be read.
    """
    backend, _ = read_backend(tokenizer_json, origin=origin)
    if tuple(map(backend.id_to_token, range(len(SPECIAL_TOKENS)))) == SPECIAL_TOKENS:
        return Tokenizer(tokenizer_json, origin=origin)
    roles = find_roles(tokenizer_json, config=config, eos_ids=eos_ids, origin=origin)
    tokenizer = ForeignTokenizer(
        tokenizer_json, config=config, roles=roles, template=template, origin=origin
    )
    end = turn_end_id(tokenizer)
    if end is None or end in roles.stop_ids:
        return tokenizer
    return ForeignTokenizer(
        tokenizer_json,
        config=config,
        roles=dataclasses.replace(roles, stop_ids=(*roles.stop_ids, end)),
        template=template,
        origin=origin,
    )


def turn_end_id(tokenizer: ForeignTokenizer) -> int | None:
    """Return the control token that ends an answer in the chat template; None without one.

    A template that can't render one question and one answer has no such token either: `render`
    will say why when it is asked.
    """
    if not tokenizer.has_chat_template:
        return None
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    try:
        rendered = tokenizer.render(turns)
    except DataError:
        return None
    learnt = [i for i, learn in zip(rendered.ids, rendered.mask, strict=True) if learn]
    return learnt[-1] if learnt and learnt[-1] in tokenizer.control_ids else None


def read_text(path: Path, *, hint: str = "") -> str:
    """Read a file of text.

    Raises:
        TokenizerError: it is missing or not UTF-8; with `hint`, what to do.
    """
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise TokenizerError(f"{path}: {error}" + (f"; {hint}" if hint else "")) from error
