"""The three passes over a shard. Each reads files, writes files, and leaves its tally last.

    1 rules        rows -> cleaned documents, rejects, log of edits, digests, hashes of lines
    2 lines        without lines that many documents share -> documents, signatures
    3 duplicates   without duplicates -> the clean shard

Between them two merges look at all shards together (`run.py`). A pass whose tally is there is done.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from io import TextIOBase
from pathlib import Path

import numpy as np

from minimind.data.cleaning.chain import Outcome, check, clean
from minimind.data.cleaning.common_lines import long_lines, without_common, write_lines
from minimind.data.cleaning.config import CleanConfig, Duplicates
from minimind.data.cleaning.minhash import Signer
from minimind.data.cleaning.page import Change, Drop, Page
from minimind.data.cleaning.shards import (
    Reading,
    Shard,
    document_of,
    jsonl_writer,
    read_shard,
    row_of,
    write_json,
    write_row,
)  # fmt: skip
from minimind.data.cleaning.tally import Tally, change_row
from minimind.data.document import Document

WORK = ".work"
PASSES = ("rules", "lines", "duplicates")


class Paths:
    """Where everything of a run lies."""

    def __init__(self, out: str | Path) -> None:
        self.out = Path(out)

    def work(self, number: int, shard: Shard, suffix: str) -> Path:
        """Return a file of a pass that goes when the run is done."""
        return self.out / WORK / str(number) / f"{shard.name}{suffix}"

    def stem(self, number: int, shard: Shard) -> Path:
        """Return the beginning of the names of a shard's signatures."""
        return self.out / WORK / str(number) / shard.name

    def tally(self, number: int, shard: Shard) -> Path:
        """Return the file that says that a pass is done."""
        return self.out / WORK / "done" / f"{shard.name}.{number}.json"

    def data(self, shard: Shard) -> Path:
        """Return the clean shard."""
        return self.out / "data" / f"{shard.name}.jsonl.zst"

    def rejects(self, shard: Shard, name: str) -> Path:
        """Return what a pass dropped."""
        return self.out / "rejects" / f"{shard.name}.{name}.jsonl.zst"

    def unusable(self, shard: Shard) -> Path:
        """Return the rows that held no text."""
        return self.out / "rejects" / f"{shard.name}.unusable.jsonl"

    def edits(self, shard: Shard, name: str) -> Path:
        """Return the log of what a pass changed."""
        return self.out / "edits" / f"{shard.name}.{name}.jsonl.zst"

    @property
    def common(self) -> Path:
        """Return the lines that many documents share."""
        return self.out / WORK / "common-lines.npz"

    def verdict(self, number: int, shard: Shard) -> Path:
        """Return the duplicates of a shard after a pass."""
        return self.out / WORK / str(number) / f"{shard.name}.duplicates.json"


class _Sinks:
    """The files that a pass writes, and its tally."""

    def __init__(self, kept: TextIOBase, rejects: TextIOBase, edits: TextIOBase) -> None:
        self.kept, self.rejects, self.edits, self.tally = kept, rejects, edits, Tally()

    def drop(self, rule: str, drop: Drop, document: Document) -> None:
        self.tally.drop(rule, drop, document)
        found = {"rule": rule, "reason": drop.reason, "spans": drop.spans}
        write_row(self.rejects, row_of(document, found.items()))

    def log(self, outcome: Outcome) -> None:
        self.tally.change(outcome.counts)
        for rule, change in outcome.changes:
            write_row(self.edits, change_row(outcome.page.document.id, rule, change))


@contextmanager
def _sinks(paths: Paths, shard: Shard, number: int, kept: Path) -> Iterator[_Sinks]:
    name = PASSES[number - 1]
    with ExitStack() as stack:
        files = (kept, paths.rejects(shard, name), paths.edits(shard, name))
        yield _Sinks(*(stack.enter_context(jsonl_writer(path)) for path in files))


def run_pass(number: int, shard: Shard, config: CleanConfig) -> None:
    """Do a pass on a shard, unless it is done."""
    paths = Paths(config.out)
    if not paths.tally(number, shard).is_file():
        tally = (_rules, _lines, _duplicates)[number - 1](paths, shard, config)
        write_json(paths.tally(number, shard), tally.to_json())


def _rules(paths: Paths, shard: Shard, config: CleanConfig) -> Tally:
    reading = Reading(shard, config.input.text, paths.unusable(shard))
    signer, hashes = Signer(_exact_only(config)), []
    with _sinks(paths, shard, 1, paths.work(1, shard, ".jsonl.zst")) as sinks:
        tally = sinks.tally
        for document in reading:
            tally.text_bytes += len(document.text.encode("utf-8", "surrogatepass"))
            outcome = clean(document, config.rules)
            sinks.log(outcome)
            if outcome.drop is not None:
                sinks.drop(outcome.rule, outcome.drop, outcome.page.document)
                continue
            write_row(sinks.kept, row_of(outcome.page.document))
            signer.add(outcome.page)
            if config.lines.on:
                hashes.append(long_lines(outcome.page, config.lines.minimum))
    tally.documents, tally.bytes_in = reading.documents, reading.bytes
    tally.unusable, tally.rescued = reading.rejects.counts, tally.rescued
    tally.rescued.update(reading.rejects.codecs)
    signer.write(paths.stem(1, shard))
    write_lines(paths.work(1, shard, ".lines.npz"), hashes)
    return tally


def _exact_only(config: CleanConfig) -> Duplicates:
    return replace(config.duplicates, near=False)


def _lines(paths: Paths, shard: Shard, config: CleanConfig) -> Tally:
    with np.load(paths.common) as file:
        common, first = file["hashes"], file["first"]
    repeated = _verdicts(paths.verdict(1, shard))
    signer = Signer(config.duplicates)
    with _sinks(paths, shard, 2, paths.work(2, shard, ".jsonl.zst")) as sinks:
        for row, value in enumerate(read_shard(paths.work(1, shard, ".jsonl.zst"))):
            document = document_of(value)
            if row in repeated:
                sinks.drop(*_duplicate(repeated[row]), document)
                continue
            page = _without_lines(sinks, document, (shard.number << 40) | row, config,
                                  common, first)  # fmt: skip
            if page is not None:
                write_row(sinks.kept, row_of(page.document))
                signer.add(page)
    signer.write(paths.stem(2, shard))
    return sinks.tally


def _without_lines(
    sinks: _Sinks, document: Document, place: int, config: CleanConfig,
    common: np.ndarray, first: np.ndarray,
) -> Page | None:  # fmt: skip
    page = Page(document)
    if not len(common):
        return page
    text, removed = without_common(page, place, common, first)
    if not removed:
        return page
    outcome = Outcome(page.with_text(text))
    if spaced := config.rules.spacing.edit(outcome.page):
        outcome.page = outcome.page.with_text(spaced.text)
    outcome.counts["common_lines", "common_lines"] = len(removed)
    outcome.changes = [("common_lines", Change("common_lines", line, "")) for line in removed]
    sinks.log(outcome)
    check(outcome, config.rules)
    if not outcome.drop and not outcome.page.text.strip():
        outcome.rule, outcome.drop = "common_lines", Drop("nothing but lines of other documents")
    if outcome.drop is not None:
        reason = f"{outcome.drop.reason} (after {len(removed)} common lines went)"
        sinks.drop(outcome.rule, Drop(reason, outcome.drop.spans), outcome.page.document)
        return None
    return outcome.page


def _duplicates(paths: Paths, shard: Shard, config: CleanConfig) -> Tally:
    repeated = _verdicts(paths.verdict(2, shard))
    with _sinks(paths, shard, 3, paths.data(shard)) as sinks:
        for row, value in enumerate(read_shard(paths.work(2, shard, ".jsonl.zst"))):
            document = document_of(value)
            if row in repeated:
                sinks.drop(*_duplicate(repeated[row]), document)
                continue
            sinks.tally.keep(document)
            write_row(sinks.kept, value)
    return sinks.tally


def _verdicts(path: Path) -> dict[int, dict[str, object]]:
    return {found["row"]: found for found in json.loads(path.read_text("utf-8"))}


def _duplicate(found: dict[str, object]) -> tuple[str, Drop]:
    if found["exact"]:
        return "duplicate", Drop(f"the same text as {found['of']}")
    return "near_duplicate", Drop(f"{found['similarity']:.0%} like {found['of']} (MinHash)")
