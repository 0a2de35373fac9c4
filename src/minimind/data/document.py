"""A document, and how it is assigned to training or held-out."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field


@dataclass(slots=True)
class Document:
    """One text with where it came from.

    Attributes:
        text: the text; for a row that isn't plain text, its canonical JSON.
        id: unique within its source, for example `laws.jsonl:17`.
        meta: source, licence and what the reader knew.
    """

    text: str
    id: str
    meta: dict[str, str] = field(default_factory=dict)


Step = Callable[[Iterable[Document]], Iterable[Document]]
"""A pipeline is a list of these."""


def is_held_out(text: str, share: float) -> bool:
    """Tell whether a document belongs to the held-out share.

    By the hash of its text, never by position: adding, removing or reordering documents moves none
    from one side to the other, and equal texts are always on the same side.
    """
    # JSON may carry half a surrogate pair; it must not end a run.
    data = text.strip().encode("utf-8", "surrogatepass")
    digest = hashlib.blake2b(data, digest_size=8).digest()
    return int.from_bytes(digest, "big") < share * 2**64
