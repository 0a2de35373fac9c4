"""Which tokens of a foreign vocabulary open and end a text, end a generation, fill rows."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import tokenizers

from minimind.errors import TokenizerError

_END_NAMES = ("<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>")
"""How the families that can be imported spell the end of a document."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Roles:
    """Which ids have a role; what minimind_tokenizer.json says.

    Attributes:
        bos_id: put before every text by the tokenizer's own rules; None: nothing is.
        document_start_id: opens a document in training and evaluation.
        document_end_id: ends one.
        stop_ids: end a generation; the first is the tokenizer's own end of text.
        pad_id: fills rows.
    """

    bos_id: int | None
    document_start_id: int
    document_end_id: int
    stop_ids: tuple[int, ...]
    pad_id: int


def read_backend(text: str, *, origin: str) -> tuple[tokenizers.Tokenizer, dict[str, Any]]:
    """Return the tokenizer of a tokenizer.json, and the content of the file.

    Raises:
        TokenizerError: it can't be read.
    """
    try:
        content = json.loads(text)
        # Files that were saved while cutting or padding would cut and pad here too.
        content |= {"truncation": None, "padding": None}
        content.setdefault("added_tokens", [])
        return tokenizers.Tokenizer.from_str(json.dumps(content)), content
    except Exception as error:  # tokenizers raises bare Exception
        raise TokenizerError(f"{origin}: not a readable tokenizer.json ({error})") from error


def find_roles(
    tokenizer_json: str,
    *,
    config: Mapping[str, Any],
    eos_ids: Sequence[int] = (),
    turn_end_id: int | None = None,
    origin: str = "tokenizer.json",
) -> Roles:
    """Find out which ids have which role.

    Args:
        tokenizer_json: content of tokenizer.json.
        config: content of tokenizer_config.json.
        eos_ids: those that generation_config.json or config.json name.
        turn_end_id: ends an answer in the chat template.
        origin: what errors call it.

    Raises:
        TokenizerError: nothing says how a text ends.
    """
    backend, _ = read_backend(tokenizer_json, origin=origin)
    named = named_tokens(config)

    def id_of(name: str | None) -> int | None:
        return None if name is None else backend.token_to_id(name)

    opening = backend.encode("", add_special_tokens=True).ids
    if opening and opening[-1] == id_of(named.get("eos_token")):
        opening = opening[:-1]  # a tokenizer that also closes what it encodes
    bos = opening[0] if opening else None
    if bos is None and config.get("add_bos_token"):
        bos = id_of(named.get("bos_token"))
    eos = id_of(named.get("eos_token"))
    ends = [i for i in (*map(id_of, _END_NAMES), eos, *eos_ids) if i is not None]
    if not ends:
        raise TokenizerError(
            f"{origin}: nothing says which token ends a text (no eos_token, no eos_token_id)"
        )
    stops = [i for i in (eos, turn_end_id, *eos_ids, ends[0]) if i is not None]
    pad = id_of(named.get("pad_token"))
    return Roles(
        bos_id=bos,
        document_start_id=ends[0] if bos is None else bos,
        document_end_id=ends[0],
        stop_ids=tuple(dict.fromkeys(stops)),
        pad_id=ends[0] if pad is None else pad,
    )


def named_tokens(config: Mapping[str, Any]) -> dict[str, str]:
    """Return bos_token, eos_token and so on of a tokenizer_config.json as plain strings."""
    names = ("bos_token", "eos_token", "unk_token", "pad_token")
    values = {name: config.get(name) for name in names}
    plain = {name: v.get("content") if isinstance(v, dict) else v for name, v in values.items()}
    return {name: value for name, value in plain.items() if isinstance(value, str)}
