"""A cleaning run from start to end: plan, three passes, two merges, report and ledger."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from minimind.data.cleaning.common_lines import merge_lines
from minimind.data.cleaning.config import CleanConfig
from minimind.data.cleaning.decontaminate import build_index
from minimind.data.cleaning.executors import run_all
from minimind.data.cleaning.minhash import Duplicate, find_duplicates
from minimind.data.cleaning.shards import Shard, plan, write_json, writing
from minimind.data.cleaning.stages import PASSES, WORK, Paths
from minimind.data.cleaning.tally import Tally, total
from minimind.data.ledger import LedgerEntry, write_ledger
from minimind.errors import DataError
from minimind.settings import dump_run_config

REPORT, SETTINGS = "report.json", "clean.toml"
OnProgress = Callable[[str, int, int], None]
"""Called with the pass, how many shards are done, and how many there are."""


def clean_corpus(
    config: CleanConfig, *, on_progress: OnProgress = lambda name, done, count: None
) -> dict[str, Any]:
    """Clean a corpus and return its report; finished shards of an interrupted run are skipped.

    Leaves in `config.out`: data/*.jsonl.zst, rejects/ (each with rule, reason and spans), edits/,
    report.json, ledger.json and clean.toml (the settings in full).

    Raises:
        DataError: nothing to read, `out` holds a run of other settings, a worker was killed.
        MissingExtraError: a rule needs a package that isn't there.
    """
    paths, shards = Paths(config.out), plan(config.input)
    _claim(paths, shards, config)
    if (paths.out / REPORT).is_file():
        return json.loads((paths.out / REPORT).read_text("utf-8"))
    if config.rules.decontaminate.on and config.rules.decontaminate.against:
        build_index(config.rules.decontaminate.against, config.rules.decontaminate.n)
    for number, name in enumerate(PASSES, start=1):
        _run(number, name, paths, shards, config, on_progress)
        if number == 1:
            _merge_exact(paths, shards, config)
        elif number == 2:
            _write_verdicts(2, paths, shards, find_duplicates(
                [paths.stem(2, shard) for shard in shards], config.duplicates))  # fmt: skip
    report = _report(paths, shards, config)
    write_ledger(paths.out, _ledger(paths, shards))
    write_json(paths.out / REPORT, report)
    for part in ("1", "2"):
        shutil.rmtree(paths.out / WORK / part, ignore_errors=True)
    for folder in ("data", "rejects", "edits"):
        for left in (paths.out / folder).glob(".*"):  # what a kill left half written
            left.unlink()
    return report


def _run(
    number: int, name: str, paths: Paths, shards: Sequence[Shard], config: CleanConfig,
    on_progress: OnProgress,
) -> None:  # fmt: skip
    waiting = [shard for shard in shards if not paths.tally(number, shard).is_file()]
    done = len(shards) - len(waiting)
    on_progress(name, done, len(shards))

    def on_shard(shard: Shard) -> None:
        nonlocal done
        done += 1
        on_progress(name, done, len(shards))

    run_all(number, waiting, config, on_shard=on_shard)


def _merge_exact(paths: Paths, shards: Sequence[Shard], config: CleanConfig) -> None:
    exact = dataclasses.replace(config.duplicates, near=False)
    found = find_duplicates([paths.stem(1, shard) for shard in shards], exact)
    _write_verdicts(1, paths, shards, found)
    if paths.common.is_file():
        return
    hashes, first = np.zeros(0, np.uint64), np.zeros(0, np.int64)
    if config.lines.on:
        files = [paths.work(1, shard, ".lines.npz") for shard in shards]
        gone = [{duplicate.row for duplicate in part} for part in found]
        hashes, first = merge_lines(files, gone, config.lines)
    with writing(paths.common) as temporary, temporary.open("wb") as file:
        np.savez(file, hashes=hashes, first=first)


def _write_verdicts(
    number: int, paths: Paths, shards: Sequence[Shard], found: list[list[Duplicate]]
) -> None:
    for shard, duplicates in zip(shards, found, strict=True):
        rows = [dataclasses.asdict(duplicate) for duplicate in duplicates]
        write_json(paths.verdict(number, shard), rows)


def _claim(paths: Paths, shards: Sequence[Shard], config: CleanConfig) -> None:
    """Make the folder this run's, or find that it is.

    Raises:
        DataError: it holds another run, or input files have changed since it began.
    """
    settings = dump_run_config(dataclasses.replace(config, out=".", executor="local", workers=None))
    files = {shard.path: Path(shard.path).stat() for shard in shards}
    state = {path: [stat.st_size, stat.st_mtime_ns] for path, stat in files.items()}
    key = hashlib.blake2b(json.dumps([settings, state]).encode(), digest_size=16).hexdigest()
    marker = paths.out / WORK / "run.json"
    if marker.is_file():
        if json.loads(marker.read_text("utf-8"))["key"] != key:
            raise DataError(
                f"{paths.out} holds a cleaning run of other settings, or the input has changed "
                "since. Choose another --out, or delete the folder"
            )
        return
    if paths.out.is_dir() and any(paths.out.iterdir()):
        raise DataError(f"{paths.out} has other files in it. Choose an empty or new --out")
    write_json(marker, {"key": key})
    (paths.out / SETTINGS).write_text(settings, "utf-8")


def _tallies(number: int, paths: Paths, shards: Sequence[Shard]) -> list[Tally]:
    files = (paths.tally(number, shard) for shard in shards)
    return [Tally.from_json(json.loads(path.read_text("utf-8"))) for path in files]


def _report(paths: Paths, shards: Sequence[Shard], config: CleanConfig) -> dict[str, Any]:
    whole = total(t for number in (1, 2, 3) for t in _tallies(number, paths, shards))
    order = [name for name, _ in config.rules.active()]
    order += ["common_lines", "duplicate", "near_duplicate"]
    return {
        "shards": len(shards), "rules": order, **whole.to_json(),
        "documents_out": sum(counts[0] for counts in whole.kept.values()),
        "bytes_out": sum(counts[1] for counts in whole.kept.values()),
        "hanzi_out": sum(counts[2] for counts in whole.kept.values()),
    }  # fmt: skip


def _ledger(paths: Paths, shards: Sequence[Shard]) -> list[LedgerEntry]:
    """Return one entry a shard, source and licence; sha256 is that of the file that was read."""
    sums: dict[str, str] = {}
    entries = []
    for shard, tally in zip(shards, _tallies(3, paths, shards), strict=True):
        if shard.path not in sums:
            with Path(shard.path).open("rb") as file:
                sums[shard.path] = hashlib.file_digest(file, "sha256").hexdigest()
        for name, (documents, size, hanzi) in sorted(tally.kept.items()):
            source, _, licence = name.partition(" | ")
            entries.append(LedgerEntry(
                source=source, package=Path(shard.path).name, version="",
                sha256=sums[shard.path], licence=licence, upstream="",
                file=str(paths.data(shard).relative_to(paths.out)), kind="pretrain",
                documents=documents, bytes=size, hanzi=hanzi, templated=False,
            ))  # fmt: skip
    return entries
