"""Memory over a long stream: `python bench/stream.py FILE... --gb 5`.

The texts of FILE (JSONL) are packed into zstd frames that are repeated until the stream has so many
GB of JSON, which takes a few hundred MB of disk. The loader reads it once; resident memory is noted
on the way. `--read-only` draws rows in the shuffled order without encoding them.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import zstandard

from minimind.config import DataConfig
from minimind.data import make_loader
from minimind.data.files import mixture
from minimind.data.reader import expand_paths, read_rows
from minimind.data.rejects import Rejects
from minimind.data.stream import MixedStream
from minimind.data.windows import Selection
from minimind.tokenizer import Tokenizer

FRAME_MB = 24


def main() -> None:
    """Make the stream, read it, print memory as it goes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="+")
    parser.add_argument("--gb", type=float, default=5.0)
    parser.add_argument("--shuffle-mb", type=int, default=64)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--read-only", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "long.jsonl.zst"
        made = make_stream(path, args.files, gigabytes=args.gb)
        print(f"{made / 1e9:.2f} GB of JSON in {path.stat().st_size / 1e6:.0f} MB of zstd")
        config = DataConfig(
            train=(str(path),), shuffle_mb=args.shuffle_mb, epochs_limit=1, cache="off",
            num_workers=args.workers,
        )  # fmt: skip
        started, noted, next_at = time.perf_counter(), [], 0.0
        steps = drawn_bytes(config) if args.read_only else loaded_bytes(config)
        for size in steps:
            if size >= next_at:
                noted.append(resident_mb())
                seconds = time.perf_counter() - started
                print(
                    f"{size / 1e9:6.2f} GB {seconds:7.0f} s  resident {noted[-1]:7.1f} MB",
                    flush=True,
                )
                next_at += args.gb * 1e9 / 20
        settled = noted[2:]
        print(f"after the first tenth: {min(settled):.0f} to {max(settled):.0f} MB")


def make_stream(path: Path, files: list[str], *, gigabytes: float) -> int:
    """Write repeated frames of the files' texts; return the bytes of JSON."""
    lines: list[bytes] = []
    size = 0
    for file in expand_paths(files):
        for _, _, row in read_rows(file, "text", rejects=Rejects()):
            if size < FRAME_MB << 20:
                lines.append(
                    (json.dumps({"text": row.held_out_key}, ensure_ascii=False) + "\n").encode()
                )
                size += len(lines[-1])
    frame = zstandard.ZstdCompressor(3).compress(b"".join(lines))
    repeats = round(gigabytes * 1e9 / size)
    with path.open("wb") as stream:
        for _ in range(repeats):
            stream.write(frame)
    return repeats * size


def loaded_bytes(config: DataConfig) -> Iterator[float]:
    """Yield the bytes of rows behind each step."""
    loader = make_loader(config, Tokenizer.load(), batch_rows=256, micro_batch_rows=16, seed=0)
    for _ in loader:
        yield loader.state_dict()["stream"]["drawn"]


def drawn_bytes(config: DataConfig) -> Iterator[float]:
    """Yield the bytes drawn, every thousand rows."""
    stream = MixedStream(
        mixture(config, "train"), Selection("text", "train", config.validation_share),
        seed=0, window_mb=config.shuffle_mb, rejects=Rejects(),
    )  # fmt: skip
    for number, _ in enumerate(stream):
        if number % 1_000 == 0:
            yield stream.drawn


def resident_mb() -> float:
    """Return this process's resident memory (Linux)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


if __name__ == "__main__":
    main()
