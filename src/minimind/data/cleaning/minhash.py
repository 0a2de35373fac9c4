"""Signatures of documents, written a shard at a time, and the merge that finds duplicates.

A shard's signatures are three plain arrays on disk, so that any number of processes or machines
can write them; the merge reads one band of all shards at once (8 bytes a document), and looks
closely only at documents that share a band with another.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from minimind.data.cleaning import characters as ch
from minimind.data.cleaning.config import Duplicates
from minimind.data.cleaning.page import Page, ngrams
from minimind.data.cleaning.shards import writing
from minimind.errors import require

_SEED = 42
_CROWD = 64
"""A bucket's kept documents that a new one is compared with at most."""
_DOCUMENTS, _HASHES = 256, 1 << 20
"""So many documents are signed at once, fewer of long ones: their hashes wait in memory, 8 MB."""


def digest(page: Page) -> tuple[int, int]:
    """Return 128 bits of the text without its white space."""
    visible = (page.kinds != ch.SPACE) & (page.kinds != ch.NEWLINE)
    data = hashlib.blake2b(page.codes[visible].tobytes(), digest_size=16).digest()
    return int.from_bytes(data[:8], "little"), int.from_bytes(data[8:], "little")


def signatures(shingles: Sequence[np.ndarray], config: Duplicates) -> np.ndarray:
    """Return MinHash signatures of sets of 64-bit hashes: (documents, permutations) uint32.

    Raises:
        MissingExtraError: rensa is not installed.
    """
    rensa = require("rensa", extra="clean")
    if not shingles:
        return np.zeros((0, config.permutations), np.uint32)
    flat = np.concatenate(shingles)
    offsets = np.cumsum([0, *map(len, shingles)]).tolist()
    matrix = rensa.RMinHash.digest_matrix_from_flat_token_hashes(
        flat, offsets, config.permutations, _SEED
    )
    return np.array(matrix.to_rows(), np.uint32).reshape(len(shingles), config.permutations)


def band_keys(found: np.ndarray, bands: int) -> np.ndarray:
    """Return the key of each band of each signature: (bands, documents) uint64."""
    documents, permutations = found.shape
    rows = permutations // bands
    parts = found.reshape(documents, bands, rows).astype(np.uint64)
    keys = np.zeros((documents, bands), np.uint64)
    with np.errstate(over="ignore"):
        for row in range(rows):
            keys = (keys ^ parts[:, :, row]) * np.uint64(0x9E3779B97F4A7C15)
            keys ^= keys >> np.uint64(29)
    return np.ascontiguousarray(keys.T)


class Signer:
    """Collects the signatures of a shard's documents and writes them."""

    def __init__(self, config: Duplicates) -> None:
        self.config = config
        self._digests: list[tuple[int, int]] = []
        self._ids: list[str] = []
        self._found: list[np.ndarray] = []
        self._pending: list[np.ndarray] = []
        self._eligible: list[bool] = []
        self._waiting = 0

    def add(self, page: Page) -> None:
        """Sign one document."""
        self._digests.append(digest(page))
        self._ids.append(page.document.id.replace("\n", " "))
        near = self.config.near and len(page.content) >= self.config.minimum
        self._eligible.append(near)
        self._pending.append(
            np.unique(ngrams(page.content, self.config.n)) if near else np.zeros(1, np.uint64)
        )
        self._waiting += len(self._pending[-1])
        if len(self._pending) >= _DOCUMENTS or self._waiting >= _HASHES:
            self._sign()

    def _sign(self) -> None:
        if self.config.near:
            self._found.append(signatures(self._pending, self.config))
        self._pending, self._waiting = [], 0

    def write(self, stem: Path) -> None:
        """Write STEM.digests.npy, .ids.txt and, with near-duplicates, .signatures and .bands."""
        self._sign()
        _save(stem, "digests", np.array(self._digests, np.uint64).reshape(-1, 2))
        _save(stem, "eligible", np.array(self._eligible, bool))
        with writing(_part(stem, "ids", "txt")) as path:
            path.write_text("\n".join(self._ids), "utf-8", "replace")
        if self.config.near:
            found = np.concatenate(self._found) if self._found else signatures([], self.config)
            _save(stem, "signatures", found)
            _save(stem, "bands", band_keys(found, self.config.bands))


def _part(stem: Path, name: str, suffix: str = "npy") -> Path:
    return stem.with_name(f"{stem.name}.{name}.{suffix}")


def _save(stem: Path, name: str, array: np.ndarray) -> None:
    with writing(_part(stem, name)) as path, path.open("wb") as file:
        np.save(file, array)


@dataclass(frozen=True, slots=True)
class Duplicate:
    """A document that an earlier one makes superfluous: its row, of which, and how alike."""

    row: int
    of: str
    similarity: float
    exact: bool


def find_duplicates(stems: Sequence[Path], config: Duplicates) -> list[list[Duplicate]]:
    """Return the duplicates of each shard, by row.

    Documents are taken in the order of the shards. One that has the digest of a kept one, or that
    shares a band with a kept one and is similar enough, goes; so what is kept has no duplicates
    among itself, and a second run drops nothing.
    """
    loaded = [np.load(_part(stem, "digests")) for stem in stems]
    starts = np.cumsum([0, *map(len, loaded)])
    digests = np.concatenate(loaded) if loaded else np.zeros((0, 2), np.uint64)
    verdicts: dict[int, tuple[int, float, bool]] = {}
    if config.exact and len(digests):
        _, first, group = np.unique(digests, axis=0, return_index=True, return_inverse=True)
        original = first[group.reshape(-1)]
        for number in np.flatnonzero(original != np.arange(len(digests))).tolist():
            verdicts[number] = (int(original[number]), 1.0, True)
    if config.near and len(digests):
        _near(stems, starts, config, verdicts)
    ids = _Ids(stems, starts)
    shards: list[list[Duplicate]] = [[] for _ in stems]
    for number in sorted(verdicts):
        of, similarity, exact = verdicts[number]
        shard = int(np.searchsorted(starts, number, "right")) - 1
        row = number - int(starts[shard])
        shards[shard].append(Duplicate(row, ids.of(of), round(similarity, 3), exact))
    return shards


def _near(
    stems: Sequence[Path], starts: np.ndarray, config: Duplicates,
    verdicts: dict[int, tuple[int, float, bool]],
) -> None:  # fmt: skip
    bands = [np.load(_part(stem, "bands"), mmap_mode="r") for stem in stems]
    found = [np.load(_part(stem, "signatures"), mmap_mode="r") for stem in stems]
    live = np.concatenate([np.load(_part(stem, "eligible")) for stem in stems])
    live[list(verdicts)] = False
    shared: dict[int, list[tuple[int, int]]] = {}
    for band in range(config.bands):
        keys = np.concatenate([part[band] for part in bands])
        numbers = np.flatnonzero(live)
        order = numbers[np.argsort(keys[numbers], kind="stable")]
        same = np.concatenate(([False], keys[order][1:] == keys[order][:-1], [False]))
        for number in order[same[:-1] | same[1:]].tolist():
            shared.setdefault(number, []).append((band, int(keys[number])))
    buckets: dict[tuple[int, int], list[int]] = {}

    def signature(number: int) -> np.ndarray:
        shard = int(np.searchsorted(starts, number, "right")) - 1
        return np.asarray(found[shard][number - int(starts[shard])])

    for number in sorted(shared):
        rivals = sorted({r for key in shared[number] for r in buckets.get(key, ())})
        mine, best = signature(number), (0.0, -1)
        for rival in rivals:
            alike = float((mine == signature(rival)).mean())
            if alike >= config.threshold:
                best = (alike, rival)
                break
        if best[1] >= 0:
            verdicts[number] = (best[1], best[0], False)
            continue
        for key in shared[number]:
            bucket = buckets.setdefault(key, [])
            if len(bucket) < _CROWD:
                bucket.append(number)


class _Ids:
    """The names of documents by their number over all shards; read when they are asked for."""

    def __init__(self, stems: Sequence[Path], starts: np.ndarray) -> None:
        self._stems, self._starts = stems, starts
        self._loaded: dict[int, list[str]] = {}

    def of(self, number: int) -> str:
        shard = int(np.searchsorted(self._starts, number, "right")) - 1
        if shard not in self._loaded:
            path = _part(self._stems[shard], "ids", "txt")
            self._loaded[shard] = path.read_text("utf-8").split("\n")
        return self._loaded[shard][number - int(self._starts[shard])]
