"""How fast data becomes batches: `python bench/data.py FILE...` (JSONL with text).

    tokenizers alone   encode_batch of the library that does the work, on the same texts
    our encoder        rows to items: the same ids, as arrays
    reader             lines to rows: parsing, splitting off the held-out share, shuffling
    loader             the whole way to packed batches, first pass
    loader, cached     the same from token shards: what a second epoch costs

All in one process, `--threads` for the Rust tokenizer. MB are UTF-8 text. The last lines work out
what a device needs: its tokens/s through the loader, in cores.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

CPU_64M = 748
"""Tokens/s that the 64m preset trains at on 2 CPU cores (docs/LOG.md)."""
GPU = 1_000_000


@dataclass(frozen=True)
class Rate:
    """One measurement: wall-clock and CPU seconds of this process for so much text."""

    name: str
    megabytes: float
    tokens: int
    seconds: float
    cpu_seconds: float

    @property
    def per_core(self) -> float:
        """Return MB for a CPU second."""
        return self.megabytes / self.cpu_seconds


def measured(name: str, work: Callable[[], tuple[int, int]]) -> Rate:
    """Time `work`, which returns bytes of text and tokens."""
    started, cpu = time.perf_counter(), time.process_time()
    size, tokens = work()
    return Rate(name, size / 1e6, tokens, time.perf_counter() - started, time.process_time() - cpu)


def main() -> None:
    """Measure, print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("files", nargs="+")
    parser.add_argument("--tokenizer", default="default")
    parser.add_argument("--mb", type=float, default=20.0, help="text read of the files")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    os.environ["RAYON_NUM_THREADS"] = str(args.threads)
    os.environ["TOKENIZERS_PARALLELISM"] = "true" if args.threads > 1 else "false"
    rates = list(measurements(args))
    if args.json:
        print(json.dumps([asdict(rate) for rate in rates]))
        return
    report(rates)


def measurements(args: argparse.Namespace) -> Iterator[Rate]:
    """Yield the rates, in the order of the module's description."""
    import minimind.data.loader  # noqa: F401 - torch takes a second to import, which is not loading
    from minimind.config import DataConfig
    from minimind.data.formats import TextRow
    from minimind.data.items import RowEncoder
    from minimind.data.reader import expand_paths, read_rows
    from minimind.data.rejects import Rejects
    from minimind.tokenizer import Tokenizer

    rows: list[TextRow] = []
    size = 0
    for path in expand_paths(args.files):
        for _, _, row in read_rows(path, "text", rejects=Rejects()):
            if size < args.mb * 1e6 and isinstance(row, TextRow):
                rows.append(row)
                size += len(row.text.encode())
    tokenizer = Tokenizer.load(args.tokenizer)
    texts = [row.text for row in rows]
    backend = tokenizer._backend  # the library itself, without a line of ours around it

    def alone() -> tuple[int, int]:
        tokens = 0
        for start in range(0, len(texts), 256):
            for one in backend.encode_batch_fast(
                texts[start : start + 256], add_special_tokens=False
            ):
                tokens += len(one.ids)
        return size, tokens

    encoder = RowEncoder(DataConfig(), tokenizer)

    def ours() -> tuple[int, int]:
        tokens = 0
        for start in range(0, len(rows), 256):
            tokens += sum(item.tokens for item in encoder.encode(rows[start : start + 256]))
        return size, tokens

    backend.encode_batch_fast(texts[:2_000], add_special_tokens=False)  # its word cache is warm
    yield measured("tokenizers alone", alone)
    yield measured("our encoder", ours)
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "bench.jsonl"
        with data.open("w", encoding="utf-8") as file:
            for row in rows:
                file.write(json.dumps({"text": row.text}, ensure_ascii=False) + "\n")
        config = DataConfig(train=(str(data),), cache=str(Path(folder) / "tokens"), epochs_limit=1)
        yield measured("reader", lambda: (size, read_only(config)))
        yield measured("loader", lambda: (size, loaded(config, tokenizer)))
        yield measured("loader, cached", lambda: (size, loaded(config, tokenizer)))


def read_only(config: object) -> int:
    """Draw every row in the shuffled order, encode none."""
    from minimind.config import DataConfig
    from minimind.data.files import mixture
    from minimind.data.rejects import Rejects
    from minimind.data.stream import MixedStream
    from minimind.data.windows import Selection

    assert isinstance(config, DataConfig)
    stream = MixedStream(
        mixture(config, "train"), Selection("text", "train", config.validation_share),
        seed=0, window_mb=config.shuffle_mb, rejects=Rejects(),
    )  # fmt: skip
    for _ in stream:
        pass
    return 0


def loaded(config: object, tokenizer: object) -> int:
    """Make every batch of one pass; return the tokens."""
    from minimind.config import DataConfig
    from minimind.data import make_loader
    from minimind.tokenizer import Tokenizer

    assert isinstance(config, DataConfig)
    assert isinstance(tokenizer, Tokenizer)
    loader = make_loader(config, tokenizer, batch_rows=64, micro_batch_rows=16, seed=0)
    return sum(batch.input_ids.numel() for step in loader for batch in step)


def report(rates: list[Rate]) -> None:
    """Print the table and what follows from it."""
    print(f"{'':<18}{'MB':>7}{'s':>8}{'CPU s':>8}{'MB/s/core':>11}{'tokens/s/core':>15}")
    for rate in rates:
        tokens = f"{rate.tokens / rate.cpu_seconds:>15,.0f}" if rate.tokens else f"{'':>15}"
        print(f"{rate.name:<18}{rate.megabytes:>7.1f}{rate.seconds:>8.2f}"
              f"{rate.cpu_seconds:>8.2f}{rate.per_core:>11.1f}{tokens}")  # fmt: skip
    by_name = {rate.name: rate for rate in rates}
    share = by_name["our encoder"].per_core / by_name["tokenizers alone"].per_core
    loader = by_name["loader"].tokens / by_name["loader"].cpu_seconds
    cached = by_name["loader, cached"].tokens / by_name["loader, cached"].cpu_seconds
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"\nour encoder / tokenizers alone: {share:.2f}")
    print(f"loader / what the 64m model takes on 2 CPU cores ({CPU_64M} tokens/s): "
          f"{loader / CPU_64M:,.0f}x on one core")  # fmt: skip
    print(f"cores for {GPU:,} tokens/s: {GPU / loader:.2f}, from token shards {GPU / cached:.2f}")
    print(f"peak memory {peak:,.0f} MB")


if __name__ == "__main__":
    main()
