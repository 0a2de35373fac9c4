"""The table of `bench/roofline.py`."""

from __future__ import annotations

from typing import Any


def show(report: dict[str, Any]) -> None:
    """Print the table."""
    from rich.console import Console
    from rich.table import Table

    title = f"{report['preset']}, a step of {report['rows']} x {report['length']}, bf16"
    table = Table(title=title)
    for column in (
        "part",
        "GFLOP",
        "MB",
        "bound ms",
        "products alone",
        "measured ms",
        "of bound",
        "limited by",
    ):
        table.add_column(column, justify="left" if column in {"part", "limited by"} else "right")
    for row in report["parts"]:
        table.add_row(
            row["part"],
            f"{row['gflops']:,.0f}",
            f"{row['mb']:,.0f}",
            f"{row['bound_ms']:,.0f}",
            "" if row["products_alone_ms"] is None else f"{row['products_alone_ms']:,.0f}",
            f"{row['measured_ms']:,.0f}",
            f"{row['of_bound']:.0%}",
            row["limited_by"],
        )
    console = Console(width=120)
    console.print(table)
    low, high = report["step_spread_ms"]
    console.print(
        f"the whole step {report['step_ms']:,.0f} ms ({low:,.0f}-{high:,.0f}), the parts "
        f"{report['parts_ms']:,.0f} ms; {report['tokens_per_second']:,.0f} tokens/s, "
        f"{report['of_matrix_rate']:.0%} of the matrix rate\n"
        f"matrix rate {report['matrix_flops'] / 1e9:,.0f} GFLOP/s, copies "
        f"{report['copy_bytes'] / 1e9:.1f} GB/s, n = {report['rounds']}",
        highlight=False,
    )
