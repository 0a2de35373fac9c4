"""Rows that begin alike, as a tree: what they share is read once.

The five worked examples of a subject precede each of its questions, and a question precedes each
of its answers. `grow` turns rows of token ids into a forest whose edges are stretches of tokens;
`eval.scoring_tree` walks it with a KV cache. A branch that would save little is left out, because
every level of the tree is a forward pass of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

SHORTEST_EDGE = 8
"""A shared stretch below this many tokens is read again rather than cached."""
LEAST_SAVED = 32
"""... and so is one whose sharing saves fewer tokens than this over all its branches."""

Wanted = tuple[int, int, int]
"""(position in the row, token that should follow it, number of the pair that asks)."""


@dataclass(slots=True)
class Node:
    """A stretch of tokens that its children continue.

    Attributes:
        start: how many tokens of the row come before it.
        ids: (T,) int32, its tokens.
        wants: what is asked about positions inside it.
        children: what follows.
        row: the row of the cache that holds its parent's tokens, set while walking.
    """

    start: int
    ids: np.ndarray
    wants: list[Wanted] = field(default_factory=list)
    children: list[Node] = field(default_factory=list)
    row: int = 0

    @property
    def end(self) -> int:
        """Return the position after its last token."""
        return self.start + len(self.ids)

    @property
    def depth(self) -> int:
        """Return the length of the longest row through it."""
        return max((child.depth for child in self.children), default=self.end)


def grow(
    pairs: Sequence[tuple[Sequence[int], Sequence[int]]], numbers: Sequence[int], *, share: bool
) -> list[Node]:
    """Return the forest of (context, continuation) pairs.

    A row is the context and all but the last token of the continuation; equal rows are one.

    Args:
        pairs: token ids, neither part empty.
        numbers: what each pair is called in `Node.wants`.
        share: join rows that begin alike; False: equal rows only.
    """
    wants: dict[bytes, list[Wanted]] = {}
    rows: dict[bytes, np.ndarray] = {}
    for (context, continuation), number in zip(pairs, numbers, strict=True):
        row = np.array([*context, *continuation[:-1]], dtype=">i4")
        key = row.tobytes()
        rows[key] = row
        first = len(context) - 1
        wants.setdefault(key, []).extend(
            (first + i, token, number) for i, token in enumerate(continuation)
        )
    keys = sorted(rows)  # big-endian bytes of ids sort as the ids do
    ordered = [rows[key].astype(np.int32) for key in keys]
    asked = [wants[key] for key in keys]
    if not share:
        return [Node(0, row, list(want)) for row, want in zip(ordered, asked, strict=True)]
    return _grow(ordered, asked, 0, len(ordered), 0)


def _grow(
    rows: list[np.ndarray], wants: list[list[Wanted]], low: int, high: int, start: int
) -> list[Node]:
    """Return the nodes of sorted rows `low` to `high`, which agree in their first `start` ids."""
    if high - low == 1:
        return [Node(start, rows[low][start:], wants[low])]
    end = _agree(rows[low], rows[high - 1])
    children: list[Node] = []
    asked: list[Wanted] = []
    begin = low
    if len(rows[low]) == end:  # sorted first: a row that others continue
        asked = wants[low]
        begin += 1
    while begin < high:
        after = begin + 1
        while after < high and rows[after][end] == rows[begin][end]:
            after += 1
        children += _grow(rows, wants, begin, after, end)
        begin = after
    edge = rows[low][start:end]
    saved = (len(children) - 1) * len(edge)
    if asked or (len(edge) >= SHORTEST_EDGE and saved >= LEAST_SAVED):
        node = Node(start, edge, asked, children)
        for child in children:
            _lift_wants(node, child)
        return [node]
    for child in children:
        child.start, child.ids = start, np.concatenate([edge, child.ids])
    return children


def _lift_wants(node: Node, child: Node) -> None:
    """Move what a child asks about the positions of `node` up to it.

    With answers that begin alike, the first scored positions lie in what they share.
    """
    node.wants += [want for want in child.wants if want[0] < node.end]
    child.wants = [want for want in child.wants if want[0] >= node.end]


def _agree(a: np.ndarray, b: np.ndarray) -> int:
    """Return in how many first ids two rows agree."""
    length = min(len(a), len(b))
    different = np.flatnonzero(a[:length] != b[:length])
    return int(different[0]) if len(different) else length
