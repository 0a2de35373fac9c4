"""Token shards: what a pass over the data encoded, kept for the next pass and the next run.

A shard is one window of one origin: its rows in the order of the file, so that a later epoch, which
shuffles them otherwise, finds them all. It is written while the window is trained on, under a
temporary name, and renamed when the last row is in it: a shard that is there is whole. The folder
that it lies in is the hash of all that makes the tokens: tokenizer, kind, packing, split.
Batches are the same bit for bit with the cache and without.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from minimind.config import DataConfig
from minimind.data.fetch import cache_dir
from minimind.data.items import Item
from minimind.data.reader import Origin, text_bytes
from minimind.tokenizer import Tokenizer

VERSION = 1
AUTO_BYTES = 8 << 20
"""`auto` keeps tokens of origins from here on: smaller ones are encoded in a second or two."""

KEEP_FREE_BYTES = 2 << 30
STALE_SECONDS = 86_400
_NONE = np.empty(0, np.int32)


@dataclass(frozen=True, slots=True)
class Noted:
    """One rejection of a window, told again when its shard is used: nothing is lost silently."""

    line: int
    reason: str
    raw: str


@dataclass(frozen=True, kw_only=True)
class WindowFacts:
    """What a reader knows of a window beside its tokens.

    Attributes:
        lines: (R,) number of each row's line.
        sizes: (R,) bytes of each row's line.
        after: offset, line and token of the place where the next window begins.
        ended: the origin ends with this window.
        held_back: rows on the other side of the held-out split.
    """

    lines: Sequence[int]
    sizes: Sequence[int]
    after: tuple[int, int, dict[str, Any] | None]
    ended: bool
    held_back: int


class TokenCache:
    """Shards of one way to make tokens.

    Args:
        folder: where; made when the first shard is written.
        limit_bytes: the least recently used shards are deleted above it.
        writable: False only reads (one process of a machine writes).
    """

    def __init__(
        self, folder: Path, config: DataConfig, tokenizer: Tokenizer, split: str, *,
        limit_bytes: int, writable: bool,
    ) -> None:  # fmt: skip
        self.root, self.limit_bytes, self.writable = folder, limit_bytes, writable
        self.auto = config.cache == "auto"
        is_text = config.kind == "text"
        share = 0.0 if config.validation is not None else config.validation_share
        makes = [
            VERSION, tokenizer.fingerprint(), config.kind, config.pack if is_text else None,
            None if is_text else config.sequence_length, split, share,
        ]  # fmt: skip
        key = hashlib.sha256(json.dumps(makes).encode()).hexdigest()[:20]
        self.folder = folder / key
        self.dtype = np.dtype(np.uint16 if tokenizer.vocab_size <= 1 << 16 else np.int32)
        self._used = _prune(folder, limit_bytes) if writable else 0
        self._open: list[ShardWriter] = []

    def close(self) -> None:
        """Drop the shards that are not whole yet."""
        for shard in self._open:
            shard.drop()
        self._open = []

    def takes(self, origin: Origin) -> bool:
        """Tell whether tokens of this origin are kept."""
        if not self.auto or not isinstance(origin, Path):
            return True
        return text_bytes(origin) >= AUTO_BYTES

    def path(self, origin: Origin, offset: int, window_bytes: int) -> Path:
        """Return where the shard of a window is, or would be."""
        place = f"{_identity(origin)}:{offset}:{window_bytes}"
        return self.folder / hashlib.sha256(place.encode()).hexdigest()[:24]

    def read(self, path: Path) -> ReadShard | None:
        """Return a whole shard, or None; a damaged one is deleted."""
        try:
            return ReadShard(path, self.dtype)
        except (OSError, ValueError, KeyError, EOFError):
            shutil.rmtree(path, ignore_errors=True)  # not there, or damaged
            return None

    def writer(self, path: Path, facts: WindowFacts) -> ShardWriter | None:
        """Return what collects a window's items; None if there is no room or it isn't ours."""
        if not self.writable or not facts.lines:
            return None
        expected = sum(facts.sizes)  # tokens take about half of that
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            free = shutil.disk_usage(self.folder).free
            if self._used + expected > self.limit_bytes or free < expected + KEEP_FREE_BYTES:
                return None
            self._used += expected // 2
            self._open = [one for one in self._open if not one.is_closed]
            self._open.append(ShardWriter(path, facts, self.dtype))
            return self._open[-1]
        except OSError:
            self.writable = False  # a cache that can't be written costs time, never the run
            return None


def token_cache(
    config: DataConfig, tokenizer: Tokenizer, split: str, *, rank: int
) -> TokenCache | None:
    """Return the cache that `data.cache` asks for, or None for `off`."""
    if config.cache == "off":
        return None
    folder = cache_dir() / "tokens" if config.cache == "auto" else Path(config.cache).expanduser()
    local_rank = int(os.environ.get("LOCAL_RANK", rank))
    return TokenCache(folder, config, tokenizer, split, writable=local_rank == 0,
                      limit_bytes=int(config.cache_gb * 1e9))  # fmt: skip


def _identity(origin: Origin) -> str:
    if not isinstance(origin, Path):
        return origin.identity
    status = origin.stat()
    return f"{origin.resolve()}:{status.st_size}:{status.st_mtime_ns}"


def _prune(root: Path, limit: int) -> int:
    """Delete what crashed runs left, and above `limit` the least recently used; return the rest."""
    shards = []
    now = time.time()
    for shard in root.glob("*/*"):
        with contextlib.suppress(OSError):
            used = shard.stat().st_mtime
            if shard.name.startswith(".") and now - used > STALE_SECONDS:
                shutil.rmtree(shard, ignore_errors=True)
            else:
                shards.append((used, sum(f.stat().st_size for f in shard.iterdir()), shard))
    total = sum(size for _, size, _ in shards)
    for _, size, shard in sorted(shards):
        if total <= limit:
            break
        shutil.rmtree(shard, ignore_errors=True)
        total -= size
    return total


class ReadShard:
    """A window's items by their number in the file's order.

    Attributes:
        facts: what the reader knew of the window.
        noted: its rejections.
    """

    def __init__(self, path: Path, dtype: np.dtype[Any]) -> None:
        facts = json.loads((path / "facts.json").read_text(encoding="utf-8"))
        data = path / "data.bin"
        if data.stat().st_size != facts["bytes"] or _checksum(data) != facts["crc32"]:
            raise ValueError(f"{data} is damaged")
        index = np.load(path / "index.npz")
        self._starts, self._sizes = index["starts"], index["sizes"]
        self._masked, self._dtype = facts["masked"], dtype
        self._data = np.memmap(data, np.uint8, "r") if facts["bytes"] else np.empty(0, np.uint8)
        self.noted = [Noted(*note) for note in facts["noted"]]
        self.facts = WindowFacts(
            lines=index["lines"].tolist(), sizes=index["bytes"].tolist(),
            after=tuple(facts["after"]), ended=facts["ended"], held_back=facts["held_back"],
        )  # fmt: skip
        with contextlib.suppress(OSError):
            os.utime(path)  # the least recently used go first

    def item(self, number: int) -> Item:
        """Return one item, equal to what encoding gives."""
        at = int(self._starts[number])
        first, second = (int(size) for size in self._sizes[number])
        ids = self._take(at, (first + second) * self._dtype.itemsize).view(self._dtype)
        ids = ids.astype(np.int32)
        if not first:
            return Item(_NONE)
        if not self._masked:
            return Item(ids)
        at += (first + second) * self._dtype.itemsize
        mask = self._take(at, first + second).astype(np.bool_)
        if not second:
            return Item(ids, mask)
        return Item(_NONE, pair=((ids[:first], mask[:first]), (ids[first:], mask[first:])))

    def _take(self, at: int, size: int) -> np.ndarray:
        return np.array(self._data[at : at + size])


class ShardWriter:
    """Collects a window's items in any order and makes the shard when the last one is in."""

    def __init__(self, path: Path, facts: WindowFacts, dtype: np.dtype[Any]) -> None:
        self.path, self.facts, self._dtype = path, facts, dtype
        self.noted: list[Noted] = []
        rows = len(facts.lines)
        self._starts, self._sizes = np.full(rows, -1, np.int64), np.zeros((rows, 2), np.int64)
        self._left, self._at, self._crc, self._masked = rows, 0, 0, False
        self._folder = Path(tempfile.mkdtemp(prefix=".part-", dir=path.parent))
        self._file: IO[bytes] | None = (self._folder / "data.bin").open("wb")

    @property
    def is_closed(self) -> bool:
        """Tell whether the shard is made, or given up."""
        return self._file is None

    def put(self, number: int, item: Item) -> None:
        """Take the item of one row."""
        if self._file is None or self._starts[number] >= 0:
            return
        content = self._content(number, item)
        self._starts[number] = self._at
        if item.reason:
            self.noted.append(Noted(self.facts.lines[number], item.reason, ""))
        try:
            self._file.write(content)
        except OSError:  # a full disk: the run goes on without this shard
            self.drop()
            return
        self._crc = zlib.crc32(content, self._crc)
        self._at += len(content)
        self._left -= 1
        if self._left == 0:
            self._close()

    def _content(self, number: int, item: Item) -> bytes:
        if item.pair is not None:
            (chosen, first), (rejected, second) = item.pair
            ids, mask = np.concatenate([chosen, rejected]), np.concatenate([first, second])
            self._sizes[number] = len(chosen), len(rejected)
        else:
            ids, mask = item.ids, item.mask
            self._sizes[number] = len(ids), 0
        content = ids.astype(self._dtype).tobytes()
        if mask is not None:
            self._masked = True
            content += mask.astype(np.uint8).tobytes()
        return content

    def _close(self) -> None:
        """Write the rest, make it durable, and give the shard its name."""
        assert self._file is not None
        try:
            _durable(self._file)
            with (self._folder / "index.npz").open("wb") as file:
                np.savez(
                    file,
                    starts=self._starts,
                    sizes=self._sizes,
                    lines=np.array(self.facts.lines),
                    bytes=np.array(self.facts.sizes),
                )
                _durable(file)  # fmt: skip
            facts = {
                "bytes": self._at, "crc32": self._crc, "masked": self._masked,
                "after": self.facts.after, "ended": self.facts.ended,
                "held_back": self.facts.held_back,
                "noted": [(note.line, note.reason, note.raw) for note in self.noted],
            }  # fmt: skip
            with (self._folder / "facts.json").open("wb") as file:
                file.write(json.dumps(facts).encode())
                _durable(file)
            self._folder.rename(self.path)
            self._file = None
        except OSError:  # another run was first, or the disk is full
            self.drop()

    def drop(self) -> None:
        """Give up: the window will be encoded again next time."""
        if self._file is None:
            return
        with contextlib.suppress(OSError):
            self._file.close()
        self._file = None
        shutil.rmtree(self._folder, ignore_errors=True)


def _durable(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())
    file.close()


def _checksum(path: Path) -> int:
    crc = 0
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            crc = zlib.crc32(block, crc)
    return crc
