"""The figures of `bench/recipe.py`: means, spread, and what an arm gains, with the same seeds."""

from __future__ import annotations

import statistics
from typing import Any

MEAN_OF_WEIGHTS = "bits_per_byte_mean_"
OF_SOURCE = "bits_per_byte_of_"
T_95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
"""97.5 % quantiles of Student's t for 2 values, 3, ..."""
MEANS = ("learnt_tokens_per_second", "padding_share", "bytes_per_token", "steps", "parameters",
         "held_out_bytes", "processor_seconds_per_step", "processor_seconds")  # fmt: skip
CLOCK = ("processor_seconds_per_step", "processor_seconds", "processor_seconds_to_target")


def summarise(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return mean and spread over the seeds of each arm, best first.

    `over_first` is the mean difference to the first arm at equal seed, `over_first_95` half the
    width of its 95 % interval (Student's t; the seeds are the sample).
    """
    summary = []
    rows = [*rows, *_averaged(rows)]
    first = {row["seed"]: row["bits_per_byte"] for row in rows if row["arm"] == rows[0]["arm"]}
    for arm in dict.fromkeys(row["arm"] for row in rows):
        mine = [row for row in rows if row["arm"] == arm]
        gains = [row["bits_per_byte"] - first[row["seed"]] for row in mine if row["seed"] in first]
        bits = [row["bits_per_byte"] for row in mine]
        means = {name: statistics.mean(row[name] for row in mine) for name in MEANS}
        spread = statistics.stdev(bits) if len(bits) > 1 else 0.0
        summary.append(
            {"arm": arm, "n": len(bits), "bits_per_byte": statistics.mean(bits),
             "standard_deviation": spread, "min": min(bits), "max": max(bits),
             "over_first": statistics.mean(gains) if gains else None,
             "over_first_deviation": statistics.stdev(gains) if len(gains) > 1 else None,
             "over_first_95": half_width(gains), **means, **_by_source(mine),
             "over_first_by_processor": _clocks(mine, rows)}
        )  # fmt: skip
    return sorted(summary, key=lambda one: one["bits_per_byte"])


def _clocks(mine: list[dict[str, Any]], rows: list[dict[str, Any]]) -> dict[str, list[float]]:
    """Return each seed's ratio to the first arm: a step's, the whole's, and a target's time."""
    first = {row["seed"]: row for row in rows if row["arm"] == rows[0]["arm"]}
    return {
        name: [
            row[name] / first[row["seed"]][name]
            for row in mine
            if row.get(name) and first.get(row["seed"], {}).get(name)
        ]
        for name in CLOCK
    }


def half_width(values: list[float]) -> float | None:
    """Return half the 95 % interval of a mean; None for fewer than 2 values, or more than 10."""
    if not 1 < len(values) <= len(T_95) + 1:
        return None
    return T_95[len(values) - 2] * statistics.stdev(values) / len(values) ** 0.5


def _by_source(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Return the mean bits per byte of each source's held-out text, and their unweighted mean."""
    names = [name for name in rows[0] if name.startswith(OF_SOURCE)]
    means = {name: statistics.mean(row[name] for row in rows) for name in names}
    return means | (
        {"bits_per_byte_of_all_alike": statistics.mean(means.values())} if means else {}
    )


def _averaged(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a row for each running mean of the weights, as if it were an arm of its own."""
    return [
        {**row, "arm": f"{row['arm']}, mean {name.removeprefix(MEAN_OF_WEIGHTS)}",
         "bits_per_byte": value}
        for row in rows
        for name, value in row.items()
        if name.startswith(MEAN_OF_WEIGHTS)
    ]  # fmt: skip


def show(report: dict[str, Any]) -> None:
    """Print the tables."""
    from rich.console import Console
    from rich.table import Table

    budget = f"{report['steps']} steps" if report["steps"] else f"{report['seconds']:.0f} s"
    if report["tokens"]:
        budget = f"{report['tokens']:,} tokens"
    table = Table(title=f"held-out bits per byte after {budget} each")
    for column in ("arm", "bits/byte", "± sd", "n", "over first", "± 95 %", "learnt tokens/s",
                   "padding", "bytes/token", "steps", "parameters", "CPU s/step",
                   "x first"):  # fmt: skip
        table.add_column(column, justify="left" if column == "arm" else "right")
    for row in report["summary"]:
        table.add_row(
            row["arm"], f"{row['bits_per_byte']:.4f}", f"{row['standard_deviation']:.4f}",
            str(row["n"]), _signed(row["over_first"]),
            "" if row["over_first_95"] is None else f"{row['over_first_95']:.4f}",
            f"{row['learnt_tokens_per_second']:,.0f}",
            f"{row['padding_share']:.0%}", f"{row['bytes_per_token']:.2f}",
            f"{row['steps']:,.0f}", f"{row['parameters'] / 1e6:.2f}M",
            f"{row['processor_seconds_per_step']:.3f}",
            _median(row["over_first_by_processor"]["processor_seconds_per_step"]),
        )  # fmt: skip
    console = Console(width=160)
    console.print(table)
    for row in report["rows"]:
        if "way" in row:
            steps, seconds = row["steps_to_target"], row["processor_seconds_to_target"]
            there = "never" if steps is None else f"step {steps}, {seconds:.1f} s of the processor"
            console.print(f"{row['arm']}, seed {row['seed']}: at {report['target']} by {there}")
    sources = [name for name in report["summary"][0] if name.startswith(OF_SOURCE)]
    if sources:
        table = Table("arm", *(name.removeprefix(OF_SOURCE) for name in sources), title="by source")
        for row in report["summary"]:
            table.add_row(row["arm"], *(f"{row[name]:.3f}" for name in sources))
        console.print(table)


def _median(values: list[float]) -> str:
    return f"{statistics.median(values):.3f}" if values else ""


def _signed(value: float | None) -> str:
    return "" if value is None else f"{value:+.4f}"
