"""What the items of `bench/gpu.py` share."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(kw_only=True)
class Context:
    """Where an item runs and for how long.

    Attributes:
        device: `cuda` or `cpu`.
        small: sizes for a dry run.
        out: folder of all results.
        data: folder that `prepare` made, or None.
        models: presets that were asked for, or None.
        until: `time.perf_counter()` at which the item ends.
        left_out: what there was no time or no package for.
    """

    device: str
    small: bool
    out: Path
    data: Path | None
    models: list[str] | None
    until: float
    left_out: list[str] = field(default_factory=list)

    def has(self, seconds: float, what: str) -> bool:
        """Tell whether so many seconds are left; if not, note what is left out."""
        if self.until - time.perf_counter() >= seconds or self.small:
            return True
        self.left_out.append(f"{what} (no time)")
        return False

    def choose(self, normal: Any, small: Any) -> Any:
        """Return `normal`, or `small` in a dry run."""
        return small if self.small else normal


@dataclass(kw_only=True)
class Item:
    """What an item found: rows of its table, and whatever else is worth writing down."""

    rows: list[dict[str, Any]]
    figures: dict[str, Any] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)


def synchronize(device: str) -> None:
    """Wait until the device has done everything."""
    import torch

    if device == "cuda":
        torch.cuda.synchronize()


def seconds_of(
    work: Callable[[], object], device: str, *, rounds: int = 5, inner: int = 1, warm_up: int = 2
) -> list[float]:
    """Return the seconds of one call, over `rounds` bursts of `inner` calls each."""
    for _ in range(warm_up):
        work()
    synchronize(device)
    taken = []
    for _ in range(rounds):
        started = time.perf_counter()
        for _ in range(inner):
            work()
        synchronize(device)
        taken.append((time.perf_counter() - started) / inner)
    return taken


def spread(values: Sequence[float]) -> dict[str, float]:
    """Return median, extremes and count."""
    return {
        "median": statistics.median(values), "min": min(values), "max": max(values),
        "n": len(values),
    }  # fmt: skip


def free(device: str) -> None:
    """Give memory and compiled code back before the next configuration."""
    import gc

    import torch

    gc.collect()
    torch.compiler.reset()
    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def installed(*packages: str) -> bool:
    """Tell whether these packages are there."""
    import importlib.util

    return all(importlib.util.find_spec(package) is not None for package in packages)


def stand_in() -> None:
    """Let minimind be imported where zstandard is missing: all but .zst files and item 4 works."""
    import sys
    import types

    if not installed("zstandard"):
        module: Any = types.ModuleType("zstandard")
        module.ZstdError = type("ZstdError", (Exception,), {})
        sys.modules["zstandard"] = module


def show_table(title: str, rows: list[dict[str, Any]]) -> None:
    """Print rows as a table in plain text; numbers are cut to four digits."""
    print(f"\n{title}")
    if not rows:
        print("nothing")
        return
    names = list(dict.fromkeys(name for row in rows for name in row))
    cells = [[_cell(row.get(name)) for name in names] for row in rows]
    widths = [max(len(name), *(len(line[i]) for line in cells)) for i, name in enumerate(names)]
    for line in [names, *cells]:
        print("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)))


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return str(value)
