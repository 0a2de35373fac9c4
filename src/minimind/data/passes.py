"""How often a stage reads its text: the rows of one pass, beside the rows that its steps take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from minimind.config import DataConfig
from minimind.data.files import data_files
from minimind.data.hub import HubData
from minimind.data.loader import ESTIMATE_BYTES, make_loader
from minimind.data.reader import Origin, read_rows, text_bytes
from minimind.data.rejects import Rejects
from minimind.data.windows import Selection
from minimind.tokenizer import Tokenizer

TOKENS_PER_BYTE = 0.3
"""Of Chinese rows, for data of the hub whose card says its size (docs/data.md)."""

How = Literal["counted", "estimated", "unknown"]


@dataclass(frozen=True, kw_only=True)
class Part:
    """One path of a stage's data.

    Attributes:
        what: the path.
        share: of all that the stage reads.
        tokens: of one pass, in rows as they are trained on (a chat's padding included); None where
            nobody says.
        how: `counted` by encoding all of it, `estimated` from 2 MB or from its size, `unknown`.
    """

    what: str
    share: float
    tokens: int | None
    how: How

    def read(self, tokens: int) -> dict[str, Any]:
        """Return what a stage of so many tokens reads of it, for plan.json and stages.json.

        `passes` is how often it is read; None where its size is unknown.
        """
        passes = None if not self.tokens else round(tokens * self.share / self.tokens, 2)
        return {"what": self.what, "share": round(self.share, 4), "unique tokens": self.tokens,
                "how": self.how, "passes": passes}  # fmt: skip


def parts_of(data: DataConfig, tokenizer: Tokenizer) -> list[Part]:
    """Measure one pass over each path of `data.train`.

    Args:
        data: of kind `text` or `chat`; its held-out share is left out of the passes.
        tokenizer: makes the rows.

    Raises:
        DataError: a path has no file, or nothing in it can be used.
    """
    sizes = [
        _one_pass(replace(data, train=(path,), weights=None), tokenizer) for path in data.train
    ]
    weights = data.weights or _by_tokens([tokens for tokens, _ in sizes])
    return [
        Part(what=path, share=weight / sum(weights), tokens=tokens, how=how)
        for path, weight, (tokens, how) in zip(data.train, weights, sizes, strict=True)
    ]


def _by_tokens(tokens: Sequence[int | None]) -> list[float]:
    """Return shares by size: without weights all paths end a pass together."""
    known = [float(count or 0) for count in tokens]
    return known if all(known) else [1.0] * len(known)  # unknown beside others needs weights


def _one_pass(data: DataConfig, tokenizer: Tokenizer) -> tuple[int | None, How]:
    origins = [origin for origin, _ in data_files(data, "train")]
    size = sum(text_bytes(origin) for origin in origins)
    if any(isinstance(origin, HubData) and not origin.is_local for origin in origins):
        # Streaming a window of it only to count would be minutes of a slow network.
        return (round(size * TOKENS_PER_BYTE), "estimated") if size else (None, "unknown")
    local = replace(data, num_workers=0, cache="off")
    loader = make_loader(local, tokenizer, batch_rows=1, micro_batch_rows=1, seed=0)
    tokens = loader.rows_per_epoch() * data.sequence_length
    expected = left = size * (1 - data.validation_share)
    if data.kind == "chat":  # questions repeat, so their hash may hold out another share than asked
        selection = Selection("chat", "train", data.validation_share)
        left = sum(_bytes_of(origin, selection) for origin in origins)
    if left <= ESTIMATE_BYTES:
        return tokens, "counted"
    return round(tokens * left / expected), "estimated"


def _bytes_of(origin: Origin, selection: Selection) -> int:
    rows = read_rows(origin, selection.kind, rejects=Rejects())
    return sum(size for _, size, row in rows if selection.wants(row))
