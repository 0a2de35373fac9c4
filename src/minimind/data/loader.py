"""From data files to micro-batches: streamed, tokenised on the fly, packed, and resumable exactly.

A loader reads ahead in a thread. Each step that it hands out carries the position behind it, so
`state_dict()` is the position after the last step that was *taken*, whatever was read ahead.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import torch

from minimind.config import DataConfig
from minimind.data.batch import Batch
from minimind.data.cache import TokenCache, token_cache
from minimind.data.encoding import Encoder, PendingChunk
from minimind.data.files import mixture
from minimind.data.items import Item
from minimind.data.packing import collate, collate_pairs
from minimind.data.position import check_position, what_makes_rows
from minimind.data.rejects import Rejects, nothing_usable
from minimind.data.stream import MixedStream
from minimind.data.windows import Selection, Split
from minimind.data.workers import Workers
from minimind.errors import ConfigError
from minimind.tokenizer import Tokenizer

CHUNK_ROWS = 256
"""Rows tokenised at once: enough for `encode_batch` to use its threads."""

STEPS_AHEAD = 3
ESTIMATE_BYTES = 2 << 20
"""`rows_per_epoch` is exact up to this many bytes of data, and extrapolated from them beyond."""

STATE_VERSION = 1
PATIENCE_SECONDS = 5.0
SILENT_SECONDS = 30.0
"""Waiting longer for a step is told on the log, and again after every doubling."""

_LOG = logging.getLogger("minimind.data")


@dataclass(frozen=True, slots=True)
class _Step:
    """One optimizer step's batches and the position behind it; or what went wrong."""

    batches: list[Batch]
    state: dict[str, Any]
    error: BaseException | None = None


@dataclass(frozen=True, slots=True)
class _Chunk:
    """Rows that are being encoded, where the stream stood before them, passes done with them."""

    state: dict[str, Any]
    pending: PendingChunk
    passes: int
    last: bool


class Loader:
    """Yields `list[Batch]`: this rank's micro-batches of one optimizer step.

    The rows of a step are the same for any number of ranks and any micro-batch size: rank r takes
    the r-th slice. A pass limit ends the iteration; its last step may be smaller. For
    `kind="preference"` a row is a pair, so a micro-batch has twice `micro_batch_rows` sequences.

    Attributes:
        counts: documents, tokens, cut (longer than a row), rejected; after the last step taken.
        rejects: what could not be used.
        wait_seconds: how long steps have been waited for, in all.
    """

    def __init__(
        self, config: DataConfig, tokenizer: Tokenizer, *, batch_rows: int, micro_batch_rows: int,
        seed: int, rank: int = 0, world_size: int = 1, rejects: Path | None = None,
        split: Literal["train", "validation"] = "train",
    ) -> None:  # fmt: skip
        _check(config, batch_rows, micro_batch_rows, world_size)
        self.config, self.tokenizer = config, tokenizer
        self.batch_rows, self.micro_batch_rows = batch_rows, micro_batch_rows
        self.seed, self.rank, self.world_size = seed, rank, world_size
        self.split: Literal["train", "validation"] = split
        self.rejects = Rejects(rejects if rank == 0 else None)
        self.counts: Counter[str] = Counter()
        self.wait_seconds = 0.0
        self._mixture = mixture(config, split)
        self._state: dict[str, Any] | None = None
        self._rows_per_epoch: int | None = None
        self._identity = what_makes_rows(config, self._mixture, tokenizer, split=split, seed=seed)

    def __iter__(self) -> Iterator[list[Batch]]:
        """Yield steps from the position on, reading ahead in a thread."""
        steps: queue.Queue[_Step | None] = queue.Queue(STEPS_AHEAD)
        stop = threading.Event()
        thread = threading.Thread(target=self._read_ahead, args=(steps, stop), daemon=True)
        thread.start()
        try:
            while (step := self._awaited(steps)) is not None:
                if step.error is not None:
                    raise step.error
                self._state = step.state
                self.counts = Counter(step.state["counts"])
                yield step.batches
        finally:
            stop.set()
            thread.join(PATIENCE_SECONDS)  # one that a silent source holds ends with the process

    def _awaited(self, steps: queue.Queue[_Step | None]) -> _Step | None:
        """Return the next step, counting the wait, and saying so when it is long."""
        started, patience = time.perf_counter(), SILENT_SECONDS
        try:
            while True:
                try:
                    return steps.get(timeout=patience)
                except queue.Empty:
                    waited = time.perf_counter() - started
                    _LOG.warning("waiting for data since %.0f s: %s", waited,
                                 ", ".join(map(str, self._mixture.origins[:3])))  # fmt: skip
                    patience = waited
        finally:
            self.wait_seconds += time.perf_counter() - started

    def state_dict(self) -> dict[str, Any]:
        """Return the position after the last step taken: builtins and small tensors only."""
        if self._state is None:
            self._state = self._initial_state()
        return self._state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go to a position; the next iteration continues from it.

        Raises:
            DataError: the data, the tokenizer or the way rows are made is not that of the state.
        """
        check_position(state, version=STATE_VERSION, identity=self._identity)
        self._state, self.counts = state, Counter(state["counts"])

    def rows_per_epoch(self) -> int:
        """Return the rows of one pass: exact for small data, else extrapolated from 2 MB of it.

        Raises:
            ConfigError: nobody says how large a hub data set is.
        """
        if self._rows_per_epoch is None:
            encoder = self._encoder(Rejects())
            stream = self._stream(self.rejects, epochs=1)
            iterator, rows, read, whole = iter(stream), 0, 0, False
            while read < ESTIMATE_BYTES and not whole:
                chunk = list(islice(iterator, CHUNK_ROWS))
                for item in encoder.finish(encoder.start(chunk)):
                    encoder.add(item)
                rows += len(encoder.take(sys.maxsize))
                read += sum(drawn.size for drawn in chunk)
                whole = len(chunk) < CHUNK_ROWS
            if whole:
                encoder.flush()
                rows += len(encoder.take(sys.maxsize))
            elif not stream.sizes_known:
                raise ConfigError(
                    "how long an epoch is can't be told: nobody says how large "
                    f"{', '.join(map(str, self._mixture.origins))} is. Set --train.tokens or "
                    "--train.steps instead of train.epochs"
                )
            else:
                rows = round(rows * stream.expected_bytes / read)
            self._rows_per_epoch = rows
        return self._rows_per_epoch

    def _read_ahead(self, steps: queue.Queue[_Step | None], stop: threading.Event) -> None:
        def put(step: _Step | None) -> None:
            while not stop.is_set():
                try:
                    steps.put(step, timeout=0.1)
                    return
                except queue.Full:
                    continue

        try:
            for step in self._steps():
                put(step)
                if stop.is_set():
                    return
            put(None)
        except BaseException as error:
            put(_Step([], {}, error))

    def _steps(self) -> Iterator[_Step]:
        """Yield every step from the position on.

        A position is where the stream stood before the current chunk, how many of the chunk's
        rows were used, and what the packer holds: reading the chunk again gives the rest.
        """
        state = self.state_dict()
        counts, used = Counter(state["counts"]), state["used"]
        cache = token_cache(self.config, self.tokenizer, self.split, rank=self.rank)
        stream = self._stream(self.rejects, epochs=self.config.epochs_limit, cache=cache)
        stream.load_state_dict(state["stream"])
        with contextlib.ExitStack() as closing:
            workers = None
            if cache is not None:
                closing.callback(cache.close)
            if self.config.num_workers:
                workers = Workers(self.config.num_workers, self.config, self.tokenizer)
                closing.callback(workers.close)
            encoder = self._encoder(self.rejects, workers)
            encoder.packer_load(state["packer"])

            def complete(chunk_state: dict[str, Any], used: int) -> Iterator[_Step]:
                while encoder.ready(self.batch_rows):
                    rows = encoder.take(self.batch_rows)
                    yield self._step(rows, chunk_state, used, encoder, counts)

            for chunk in self._chunks(stream, encoder):
                yield from complete(chunk.state, used)
                for number, item in enumerate(encoder.finish(chunk.pending)):
                    if number >= used:
                        _count(counts, item, whole=encoder.add(item))
                        yield from complete(chunk.state, number + 1)
                used = 0
                if not counts["documents"] and (chunk.last or chunk.passes):
                    raise nothing_usable(self._mixture.origins, self.config.kind, self.rejects)
            encoder.flush()
            while rows := encoder.take(self.batch_rows):
                yield self._step(rows, stream.state_dict(), 0, encoder, counts)

    def _chunks(self, stream: MixedStream, encoder: Encoder) -> Iterator[_Chunk]:
        """Yield chunks in order while the next ones are encoded.

        How far ahead changes nothing: a chunk is what follows its state in the stream.
        """
        ahead: deque[_Chunk] = deque()
        iterator, last = iter(stream), False
        while ahead or not last:
            while not last and len(ahead) <= 2 * self.config.num_workers:
                before = stream.state_dict()
                rows = list(islice(iterator, CHUNK_ROWS))
                last = len(rows) < CHUNK_ROWS
                ahead.append(_Chunk(before, encoder.start(rows), stream.passes, last))
            yield ahead.popleft()

    def _step(
        self, rows: list[Any], stream_state: dict[str, Any], used: int, encoder: Encoder,
        counts: Counter[str],
    ) -> _Step:  # fmt: skip
        state = {
            "version": STATE_VERSION, "identity": self._identity, "stream": stream_state,
            "used": used, "packer": encoder.packer_state(), "counts": dict(counts),
        }  # fmt: skip
        return _Step(self._batches(rows), state)

    def _batches(self, rows: list[Any]) -> list[Batch]:
        share = -(-len(rows) // self.world_size)
        mine = rows[self.rank * share : (self.rank + 1) * share]
        micro = [
            mine[start : start + self.micro_batch_rows]
            for start in range(0, len(mine), self.micro_batch_rows)
        ]
        if self.config.kind == "preference":
            pad = self.tokenizer.pad_id
            batches = [
                collate_pairs(
                    [s for pair in part for s in pair],
                    pad_id=pad,
                    length=self.config.sequence_length,
                )
                for part in micro
            ]
        else:
            masked = self.config.document_mask and self.config.pack
            batches = [collate(part, document_mask=masked) for part in micro]
        return [_pinned(batch) for batch in batches] if torch.cuda.is_available() else batches

    def _stream(
        self, rejects: Rejects, *, epochs: int | None, cache: TokenCache | None = None
    ) -> MixedStream:
        share = 0.0 if self.config.validation is not None else self.config.validation_share
        split: Split = self.split
        if self.config.validation is not None:
            split = "all"
        mixed = self._mixture
        if epochs == 1 != self.config.epochs_limit:
            mixed = replace(mixed, epochs=(1,) * len(mixed.origins), stages=())
        return MixedStream(
            mixed,
            Selection(self.config.kind, split, share),
            seed=self.seed,
            window_mb=self.config.shuffle_mb,
            rejects=rejects,
            cache=cache,
        )

    def _encoder(self, rejects: Rejects, workers: Workers | None = None) -> Encoder:
        return Encoder(self.config, self.tokenizer, rejects, workers)

    def _initial_state(self) -> dict[str, Any]:
        rejects = Rejects()
        return {
            "version": STATE_VERSION, "identity": self._identity,
            "stream": self._stream(rejects, epochs=None).state_dict(), "used": 0,
            "packer": self._encoder(rejects).packer_state(), "counts": {},
        }  # fmt: skip


def make_loader(
    config: DataConfig, tokenizer: Tokenizer, *, batch_rows: int, micro_batch_rows: int, seed: int,
    rank: int = 0, world_size: int = 1, rejects: Path | None = None,
    split: Literal["train", "validation"] = "train",
) -> Loader:  # fmt: skip
    """Return the loader of a run's data.

    Args:
        config: files, kind and shape of rows.
        tokenizer: gives the ids.
        batch_rows: rows (pairs for preference) of a step, over all ranks.
        micro_batch_rows: rows of one forward and backward.
        seed: order of the rows.
        rank: which slice of every step.
        world_size: number of slices; must divide `batch_rows`.
        rejects: JSONL file for rows that can't be used; None only counts them.
        split: side of the held-out split.

    Raises:
        ConfigError: numbers that contradict each other.
        DataError: a data file is missing.
    """
    return Loader(
        config, tokenizer, batch_rows=batch_rows, micro_batch_rows=micro_batch_rows, seed=seed,
        rank=rank, world_size=world_size, rejects=rejects, split=split,
    )  # fmt: skip


def _count(counts: Counter[str], item: Item, *, whole: bool) -> None:
    counts["documents"] += item.documents
    counts["tokens"] += item.tokens
    counts["cut"] += not whole
    counts["rejects"] += item.documents == 0


def _check(config: DataConfig, batch_rows: int, micro_batch_rows: int, world_size: int) -> None:
    for name, value in (("data.sequence_length", config.sequence_length - 1),
                        ("train.batch_rows", batch_rows),
                        ("train.micro_batch_rows", micro_batch_rows)):  # fmt: skip
        if value < 1:
            least = 2 if name == "data.sequence_length" else 1
            raise ConfigError(f"{name} must be at least {least}")
    if batch_rows % world_size:
        raise ConfigError(
            f"train.batch_rows = {batch_rows} must be a multiple of the {world_size} processes"
        )
    if config.num_workers < 0:
        raise ConfigError(f"data.num_workers = {config.num_workers}: must not be negative")
    if not 0 <= config.validation_share < 1:
        raise ConfigError(f"data.validation_share = {config.validation_share}: from 0 to below 1")


def _pinned(batch: Batch) -> Batch:
    def pin(tensor: torch.Tensor | None) -> torch.Tensor | None:
        return None if tensor is None else tensor.pin_memory()

    return Batch(
        input_ids=batch.input_ids.pin_memory(), labels=batch.labels.pin_memory(),
        position_ids=pin(batch.position_ids), document_ids=pin(batch.document_ids),
    )  # fmt: skip
