"""Lines that many documents have in common, found over all shards."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from minimind.data.cleaning.config import Lines
from minimind.data.cleaning.page import Page
from minimind.data.cleaning.shards import writing

_PARTS = 16
"""The hashes are merged a sixteenth at a time: memory for that much of the corpus's lines."""


def line_hashes(page: Page) -> np.ndarray:
    """Return a 64-bit hash of every line, empty ones too: (lines,) uint64.

    The sum over a line of each character times a hash of its place in the line.
    """
    codes = page.codes.astype(np.uint64)
    ends = np.flatnonzero(page.codes == 0x0A)
    starts = np.concatenate(([0], ends + 1))
    lengths = np.diff(np.concatenate((starts, [len(codes) + 1]))) - 1
    with np.errstate(over="ignore"):
        place = np.arange(len(codes), dtype=np.uint64)
        place -= np.repeat(starts.astype(np.uint64), lengths + 1)[: len(codes)]
        mixed = (place + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        mixed = (mixed ^ (mixed >> np.uint64(31))) * np.uint64(0xBF58476D1CE4E5B9)
        values = (codes + np.uint64(0x1234567)) * np.uint64(0xD6E8FEB86659FD93)
        values = (values ^ (values >> np.uint64(32))) * (mixed | np.uint64(1))
        values[ends] = 0
        total = np.concatenate(([np.uint64(0)], np.cumsum(values, dtype=np.uint64)))
        sums = total[starts + lengths] - total[starts]
    return sums ^ (sums >> np.uint64(29))


def long_lines(page: Page, minimum: int) -> np.ndarray:
    """Return the different hashes of the lines of at least `minimum` letters and digits."""
    if len(page.text) < minimum:
        return np.zeros(0, np.uint64)
    ends = np.flatnonzero(page.codes == 0x0A)
    counted = np.concatenate(([0], np.cumsum(page.is_content)))
    starts = np.concatenate(([0], ends + 1))
    stops = np.concatenate((ends, [len(page.codes)]))
    long = counted[stops] - counted[starts] >= minimum
    return np.unique(line_hashes(page)[long]) if long.any() else np.zeros(0, np.uint64)


def write_lines(path: Path, hashes: Sequence[np.ndarray]) -> None:
    """Write the hashes of a shard's documents, in order."""
    rows = np.repeat(np.arange(len(hashes), dtype=np.int64), [len(found) for found in hashes])
    flat = np.concatenate([np.zeros(0, np.uint64), *hashes])
    with writing(path) as temporary, temporary.open("wb") as file:
        np.savez(file, hashes=flat, rows=rows)


def merge_lines(
    paths: Sequence[Path], skipped: Sequence[set[int]], config: Lines
) -> tuple[np.ndarray, np.ndarray]:
    """Return (hashes, first): the lines of many documents, sorted, and who keeps each.

    Args:
        paths: what `write_lines` wrote, in the order of the shards.
        skipped: rows of each shard that are gone already.
        config: from how many documents on a line is common.

    `first` is shard << 40 | row.
    """
    common, owners = [], []
    for part in range(_PARTS):
        parts, places = [], []
        for shard, path in enumerate(paths):
            with np.load(path) as file:
                hashes, rows = file["hashes"], file["rows"]
            mine = (hashes >> np.uint64(60)) == np.uint64(part)
            if skipped[shard]:
                mine &= ~np.isin(rows, list(skipped[shard]))
            parts.append(hashes[mine])
            places.append(rows[mine] | (shard << 40))
        flat, where = np.concatenate(parts), np.concatenate(places)
        found, index, counts = np.unique(flat, return_index=True, return_counts=True)
        many = counts >= config.documents
        common.append(found[many])
        owners.append(where[index[many]])  # places ascend: the first index is the first document
    return np.concatenate(common), np.concatenate(owners)


def without_common(
    page: Page, place: int, common: np.ndarray, first: np.ndarray
) -> tuple[str, list[str]]:
    """Return the text without the common lines that other documents keep, and those lines."""
    hashes = line_hashes(page)
    at = np.minimum(np.searchsorted(common, hashes), max(len(common) - 1, 0))
    gone = (common[at] == hashes) & (first[at] != place) if len(common) else np.zeros(0, bool)
    if not gone.any():
        return page.text, []
    lines = page.text.split("\n")
    removed = [line for line, is_gone in zip(lines, gone, strict=True) if is_gone]
    kept = [line for line, is_gone in zip(lines, gone, strict=True) if not is_gone]
    return "\n".join(kept), removed
