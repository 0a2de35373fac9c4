"""What the items of `bench/gpu.py` share."""

from __future__ import annotations

import json
import statistics
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")


@dataclass(kw_only=True)
class Context:
    """Where an item runs and for how long, and what it has found so far.

    Whatever is measured is added at once and written at once: an item that is cut short, by its
    clock or by an error, leaves what it had.

    Attributes:
        number: of the item.
        name: of the item.
        device: `cuda` or `cpu`.
        small: sizes for a dry run.
        out: folder of all results.
        data: folder that `prepare` made, or None.
        models: presets that were asked for, or None.
        until: `time.perf_counter()` at which nothing new is begun.
        machine: what it is measured on.
        rows: of its table.
        figures: whatever else is worth writing down.
        remarks: printed below the table.
        left_out: what there was no time or no package for, and what broke.
        when_cut: called when the clock ends the item in the midst of something.
    """

    number: str
    name: str
    device: str
    small: bool
    out: Path
    data: Path | None
    models: list[str] | None
    until: float
    machine: dict[str, Any] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    when_cut: list[Callable[[], object]] = field(default_factory=list)
    started: float = field(default_factory=time.perf_counter)

    @property
    def left(self) -> float:
        """Return how many seconds are left."""
        return self.until - time.perf_counter()

    def has(self, seconds: float, what: str) -> bool:
        """Tell whether so many seconds are left; if not, note what is left out."""
        if self.left >= seconds or self.small:
            return True
        self.left_out.append(f"{what} (no time)")
        return False

    def choose(self, normal: Any, small: Any) -> Any:
        """Return `normal`, or `small` in a dry run."""
        return small if self.small else normal

    def add(self, row: dict[str, Any]) -> None:
        """Note a line of the table, and write everything down."""
        self.rows.append(row)
        seconds = time.perf_counter() - self.started
        print(f"[{seconds:5.0f} s] {'  '.join(map(_cell, row.values()))}", file=sys.stderr)
        self.save()

    def attempt(self, what: str, seconds: float, work: Callable[[], T]) -> T | None:
        """Return what `work` returns; None if there is no time for it, or if it broke."""
        if not self.has(seconds, what):
            return None
        try:
            return work()
        # Out of memory, a kernel's or a compiler's refusal: the next one may well work.
        except Exception as error:
            self.broke(what, error)
            return None

    def broke(self, what: str, error: BaseException) -> None:
        """Note an error in a line, and all of it in a file."""
        words = " ".join(str(error).split())
        self.left_out.append(f"{what}: {type(error).__name__}: {words}"[:300])
        with (self.out / f"item-{self.number}.log").open("a", encoding="utf-8") as file:
            file.write(f"{what}\n{''.join(traceback.format_exception(error))}\n")
        self.save()

    def save(self) -> None:
        """Write all that is known to OUT/item-N.json."""
        record = {
            "item": self.number,
            "name": self.name,
            "machine": self.machine,
            "small": self.small,
            "seconds": time.perf_counter() - self.started,
            **self.figures,
            "rows": self.rows,
            "remarks": self.remarks,
            "left_out": self.left_out,
        }
        part = self.out / f"item-{self.number}.part"
        part.write_text(json.dumps(record, indent=1, default=str), encoding="utf-8")
        part.replace(self.out / f"item-{self.number}.json")

    def show(self) -> None:
        """Print the table, what there is to remark, and what is missing."""
        title = f"item {self.number}, {self.name}: {self.machine.get('device')}"
        show_table(f"{title}, item-{self.number}.json", self.rows)
        for line in (*self.remarks, *(f"left out: {what}" for what in self.left_out)):
            print(line)
        sys.stdout.flush()


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


ABSENT = Path(__file__).resolve().parent / "absent"
"""Stand-ins for packages that are not installed."""


def installed(*packages: str) -> bool:
    """Tell whether these packages are there; a stand-in is not."""
    import importlib.util

    found = [importlib.util.find_spec(package) for package in packages]
    return all(spec is not None and not str(spec.origin).startswith(str(ABSENT)) for spec in found)


def stand_in() -> None:
    """Let minimind work where zstandard is missing (but for .zst files) or tyro (flags).

    Behind everything else in `sys.path`, which the processes that encode rows inherit.
    """
    sys.path.append(str(ABSENT))
    if not installed("tyro"):
        from gpu_items import plain_flags
        from minimind.settings import reading

        reading.apply_flags = plain_flags.apply_flags


def compile_error(device: str) -> str | None:
    """Return why torch.compile does not work here, or None: a compiler or a header is missing."""
    import torch

    try:
        x = torch.randn(64, 64, device=device)
        torch.compile(lambda x: (x @ x).relu().sum(-1))(x)
    # It is only asked whether it works.
    except Exception as error:
        return f"{type(error).__name__}: {' '.join(str(error).split())}"[:200]
    return None


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
