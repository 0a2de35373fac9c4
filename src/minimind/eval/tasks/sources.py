"""What the tasks' items are made from: the catalogue's documents that training holds out.

A document is held out by the hash of its text, by the same function and at the share that training
uses by default (`data.validation_share` = 1 %; held-out sets are nested, so what is held out at
1 % is held out at any larger share as well). The items are therefore the same for every
checkpoint, and `minimind eval` can compare two of them question by question.

The hash of one document doesn't keep its facts out of another: an instruction made from the same
entry, a poem printed in two collections. So what else the project makes of the source (all other
documents, and the instruction rows that `minimind data build` writes) is returned as well, for the
tasks to leave out what occurs there. What other training data say is looked for by
`eval.contamination`, and doesn't change the items.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import NamedTuple

from minimind.config import DataConfig
from minimind.data.catalogue import select
from minimind.data.document import Document, is_held_out
from minimind.data.fetch import fetch
from minimind.data.instructions import RECIPES, Pair, sampled

HELD_OUT_SHARE: float = DataConfig.validation_share
QUESTIONS_SHARE = 0.1
"""Of instructions and problems, as the quickstart's SFT and `data.build` hold them out."""


class Sides(NamedTuple):
    """A source's documents (`meta["source"]` filled in), and the texts of those trained on."""

    held_out: tuple[Document, ...]
    trained: tuple[str, ...]


@functools.lru_cache
def archive(source: str) -> Path:
    """Return the path of a source's package, downloading it if it isn't in the cache.

    Raises:
        FetchError: it can't be had; the message says which file to put where.
    """
    return fetch(select([source])[0])


@functools.lru_cache
def documents(source: str) -> Sides:
    """Read a source and part it as training does, by the hash of each text."""
    held_out: list[Document] = []
    trained: list[str] = []
    for document in select([source])[0].read(archive(source)):
        if is_held_out(document.text, HELD_OUT_SHARE):
            meta = {**document.meta, "source": source}
            held_out.append(Document(document.text, document.id, meta))
        else:
            trained.append(document.text)
    return Sides(tuple(held_out), tuple(trained))


@functools.lru_cache
def instruction_rows(source: str) -> tuple[Pair, ...]:
    """Return the (question, answer) rows that a build makes of the source for SFT."""
    rows: list[Pair] = []
    for recipe in RECIPES:
        if recipe.source == source:
            rows += sampled(recipe.pairs(archive(source)), recipe.rows)
    return tuple(rows)


@functools.lru_cache(maxsize=4)
def trained_text(source: str) -> str:
    """Return all else that is made of the source: other documents, and every instruction row."""
    rows = (f"{question}\n{answer}" for question, answer in instruction_rows(source))
    return "\n".join([*documents(source).trained, *rows])
