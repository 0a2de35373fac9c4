"""Log-likelihoods of many continuations, each shared beginning read once.

    pairs -> forest (`eval.prefixes`) -> forward passes level by level, each node's keys and values
    copied from its parent's row -> logits only where something is asked

Axes: B rows, T positions, N asked positions, n of a chunk, D hidden, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from minimind.eval.prefixes import Node, grow
from minimind.eval.tasks.base import Progress, no_progress
from minimind.inference.decode import evaluating, new_cache, pad_right
from minimind.inference.scored import ScoredModel
from minimind.inference.scoring import VOCABULARY_CHUNK, Precision, autocast
from minimind.model import CausalLM
from minimind.model.cache import KVCache

Pair = tuple[Sequence[int], Sequence[int]]
"""(context ids, continuation ids), neither empty."""

PAIRS_AT_ONCE = 4096
"""Pairs of one forest: bounds what the rows take, and gives a progress bar something to show."""
CACHE_BYTES = 256 * 2**20
"""Keys and values of one forward pass."""
PADDING = 64
"""Spare slots of a row, for the padding of short pieces behind long beginnings."""


@torch.no_grad()
def score_pairs(
    model: ScoredModel,
    pairs: Sequence[Pair],
    *,
    precision: Precision = "fp32",
    batch_tokens: int = 8192,
    progress: Progress = no_progress,
) -> list[tuple[float, bool]]:
    """Return (log p(continuation | context) in nats, whether greedy decoding gives it) of each.

    A model that isn't a `CausalLM` has no cache of ours: equal rows are read once, no more.

    Args:
        model: a `CausalLM`, or what stands for one (`TransformersLM`).
        pairs: each with at most the model's context and one more token in all.
        precision: of the forward pass.
        batch_tokens: slots in one forward pass, padding included.
        progress: told as pairs are done.
    """
    totals = np.zeros(len(pairs))
    greedy = np.ones(len(pairs), dtype=bool)
    with evaluating(model), autocast(model.output_weight.device, precision):
        walk = _Walk(model, batch_tokens, totals, greedy)
        for begin in range(0, len(pairs), PAIRS_AT_ONCE):
            part = pairs[begin : begin + PAIRS_AT_ONCE]
            numbers = range(begin, begin + len(part))
            forest = grow(part, numbers, share=isinstance(model, CausalLM))
            walk.remaining = _Countdown(len(part), forest, progress)
            walk.level(forest, None)
    return list(zip(totals.tolist(), greedy.tolist(), strict=True))


class _Countdown:
    """Turns finished leaves into finished pairs."""

    def __init__(self, pairs: int, forest: Sequence[Node], progress: Progress) -> None:
        self.pairs, self.shown, self.done = pairs, 0, 0
        self.leaves = sum(map(_leaves, forest))
        self.progress = progress

    def finish(self, leaves: int) -> None:
        """Show as many pairs as the leaves so far are worth."""
        self.done += leaves
        shown = self.pairs * self.done // self.leaves
        self.progress(shown - self.shown)
        self.shown = shown


def _leaves(node: Node) -> int:
    return sum(map(_leaves, node.children)) or 1


class _Walk:
    """Reads a forest and adds up what is asked."""

    def __init__(
        self, model: ScoredModel, batch_tokens: int, totals: np.ndarray, greedy: np.ndarray
    ) -> None:
        self.model = model
        self.batch_tokens = batch_tokens
        self.totals, self.greedy = totals, greedy
        self.device = model.output_weight.device
        self.remaining: _Countdown | None = None
        self.token_bytes = 0
        self.head: Callable[[Tensor], Tensor]
        if isinstance(model, CausalLM):
            self.head = model.head
            self.token_bytes = new_cache(model, batch_size=1, max_length=1).nbytes
        else:
            weight_VD = model.output_weight
            self.head = lambda hidden_nD: F.linear(hidden_nD, weight_VD)

    def level(self, nodes: Sequence[Node], parents: KVCache | None) -> None:
        """Read nodes whose parents' tokens are in the rows of `parents`, then what follows them."""
        plain = [node for node in nodes if parents is None and not node.children]
        for batch in _batches(plain, tokens=self.batch_tokens):
            ids_BT = pad_right([node.ids.tolist() for node in batch], self.device)
            self._score(batch, self.model(ids_BT, logits="none").hidden_BTD)
        others = [node for node in nodes if parents is not None or node.children]
        held = CACHE_BYTES // self.token_bytes if others else 0
        room = parents.max_length if parents is not None else None
        for batch in _batches(others, tokens=self.batch_tokens, held=held, room=room):
            self._read_cached(batch, parents)

    def _read_cached(self, batch: list[Node], parents: KVCache | None) -> None:
        assert isinstance(self.model, CausalLM)
        if parents is None:
            slots = max(node.depth for node in batch) + PADDING
            cache = new_cache(self.model, batch_size=len(batch), max_length=slots)
        else:
            cache = _copied(parents, [node.row for node in batch])
        ids_BT = pad_right([node.ids.tolist() for node in batch], self.device)
        counts_B = torch.tensor([len(node.ids) for node in batch])
        output = self.model(ids_BT, cache=cache, token_counts=counts_B, logits="none")
        self._score(batch, output.hidden_BTD)
        children = []
        for row, node in enumerate(batch):
            for child in node.children:
                child.row = row
                children.append(child)
        if children:
            self.level(children, cache)

    def _score(self, batch: list[Node], hidden_BTD: Tensor) -> None:
        """Add up the log-probabilities that the nodes of one forward pass ask for."""
        places: dict[tuple[int, int], int] = {}
        asked: list[tuple[int, int, int]] = []  # (place, token, pair)
        for row, node in enumerate(batch):
            for position, token, pair in node.wants:
                key = (row, position - node.start)
                asked.append((places.setdefault(key, len(places)), token, pair))
        if asked:
            at_N2 = torch.tensor(list(places), device=self.device)
            self._add(hidden_BTD[at_N2[:, 0], at_N2[:, 1]], np.array(asked))
        if self.remaining is not None:
            self.remaining.finish(sum(not node.children for node in batch))

    def _add(self, hidden_ND: Tensor, asked: np.ndarray) -> None:
        asked = asked[np.argsort(asked[:, 0], kind="stable")]
        for begin in range(0, len(hidden_ND), VOCABULARY_CHUNK):
            logits_nV = self.head(hidden_ND[begin : begin + VOCABULARY_CHUNK]).float()
            low, high = np.searchsorted(asked[:, 0], (begin, begin + len(logits_nV)))
            place, token, pair = asked[low:high].T
            place_m = torch.from_numpy(place - begin).to(self.device)
            token_m = torch.from_numpy(token.copy()).to(self.device)
            log_probs_m = logits_nV[place_m, token_m] - logits_nV.logsumexp(-1)[place_m]
            likeliest_m = logits_nV.argmax(-1)[place_m] == token_m
            np.add.at(self.totals, pair, log_probs_m.double().cpu().numpy())
            np.logical_and.at(self.greedy, pair, likeliest_m.cpu().numpy())


def _batches(
    nodes: Sequence[Node], *, tokens: int, held: int | None = None, room: int | None = None
) -> Iterator[list[Node]]:
    """Yield nodes of similar length.

    Args:
        nodes: any.
        tokens: slots read in one pass, padding included.
        held: slots of the caches of one pass.
        room: slots of one row, the padding behind the longest included.
    """
    members: list[Node] = []
    deepest = latest = 0
    for node in sorted(nodes, key=lambda node: -len(node.ids)):
        width = len(members[0].ids) if members else len(node.ids)
        deepest, latest = max(deepest, node.depth), max(latest, node.start)
        count = len(members) + 1
        full = count * width > tokens
        full = full or (held is not None and count * (room or deepest + PADDING) > held)
        full = full or (room is not None and latest + width > room)
        if members and full:
            yield members
            members, deepest, latest = [], node.depth, node.start
        members.append(node)
    if members:
        yield members


def _copied(cache: KVCache, rows: Sequence[int]) -> KVCache:
    """Return a cache of these rows (a row may come often); `cache` stays as it is."""
    return cache.view(0, cache.batch_size).select(rows)
