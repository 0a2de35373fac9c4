"""What Python costs beside the model in decoding many rows: rows that compute nothing.

    python bench/decode_host.py --rows 128

A GPU waits for it between two steps, and while prompts are given their rows. Greedy, prompts of 128
tokens that share nothing, answers of 256. Times are this process's own on the processor.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence

import torch
from torch import Tensor

from minimind.inference.batch import GPU_TOKENS, Batch
from minimind.inference.sampling import SamplingParams
from minimind.inference.slots import Request

PROMPT, NEW, VOCABULARY = 128, 256, 64


class NoRows:
    """Rows whose logits are always the same (see `inference.rows.Rows`)."""

    context, max_length, vocab_size, nbytes = 512, PROMPT + NEW, VOCABULARY, 0
    device = torch.device("cpu")

    def __init__(self, count: int) -> None:
        self.count = count
        self._logits = torch.randn(count, VOCABULARY)

    def read(self, first: int, pieces: Sequence[Sequence[int]]) -> Tensor:
        """Return logits of as many rows."""
        return self._logits[first : first + len(pieces)]

    def cut(self, row: int, length: int) -> None:
        """Do nothing."""

    def keepable(self, row: int, length: int) -> int:
        """Return `length`."""
        return length

    def copy_prefix(self, source: int, target: int, length: int) -> None:
        """Do nothing."""

    def swap(self, a: int, b: int) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


def measure(rows: int) -> tuple[float, float]:
    """Return seconds of giving all prompts their rows, and of a step of all rows."""
    params = SamplingParams(temperature=0, repetition_penalty=1.0, max_new_tokens=NEW)
    prompts = torch.randint(VOCABULARY, (rows, PROMPT)).tolist()
    batch = Batch(NoRows(rows), prefill_tokens=GPU_TOKENS)
    started = time.process_time()
    for prompt in prompts:
        batch.add(Request(prompt, params))
    lent, steps = time.process_time(), 0
    while batch.busy:
        batch.step()
        steps += 1
    return lent - started, (time.process_time() - lent) / steps


def main() -> None:
    """Print medians over rounds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    torch.set_num_threads(1)
    lending, steps = zip(*(measure(args.rows) for _ in range(args.rounds)), strict=True)
    lent, step = statistics.median(lending) * 1e3, statistics.median(steps) * 1e6
    print(
        f"{args.rows} rows, median of {args.rounds}: prompts given rows in {lent:.1f} ms "
        f"({min(lending) * 1e3:.1f}-{max(lending) * 1e3:.1f}); a step {step:.0f} us "
        f"({min(steps) * 1e6:.0f}-{max(steps) * 1e6:.0f}), {step / args.rows:.2f} us a token"
    )


if __name__ == "__main__":
    main()
