"""`minimind params PRESET...`: parameters, FLOPs per token and memory of model presets."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import tyro
from rich.console import Console
from rich.table import Table

from minimind.errors import ConfigError

if TYPE_CHECKING:
    from minimind.config import ModelConfig

MB = 1e6
LEGEND = """\
FLOPs of training a token: 6 N + 12 x layers x heads x head_dim x (T + 1) / 2 keys; N: layers and
output matrix (Kaplan et al. 2020; attention: PaLM, appendix B, its masked half left out).
Training memory: fp32 weights, gradients and optimizer, bf16 copies and activations under autocast.
A total is the peak of a step, less than the sum of its lines: activations go as gradients come.
Counted for eager kernels (within 15 % of measured, bench/memory.py); compiled, nano holds 22 % less
with fused attention, and 7 % more with the one that a CPU compiles for rows up to 512.
"""


@dataclass(frozen=True, kw_only=True)
class Args:
    """Show what model presets cost: parameters, FLOPs and memory.

    Attributes:
        presets: names such as nano, 64m, or TOML files.
        micro_batch_rows: rows in one forward and backward.
        sequence_length: tokens in a row. Default: the preset's max_position_embeddings.
        device: where it trains: on a GPU the loss holds more logits at once.
        json: print the figures as JSON.
    """

    presets: tyro.conf.Positional[tuple[str, ...]] = ("64m",)
    micro_batch_rows: int = 16
    sequence_length: int | None = None
    device: Literal["cpu", "cuda"] = "cpu"
    json: bool = False


def main(argv: list[str]) -> None:
    """Print the table of the presets named in `argv`."""
    args = tyro.cli(Args, args=argv, prog="minimind params")
    for name, value in (
        ("--micro-batch-rows", args.micro_batch_rows),
        ("--sequence-length", args.sequence_length),
    ):
        if value is not None and value < 1:
            raise ConfigError(f"{name} {value}: must be at least 1")
    from minimind.settings import load_model_config

    columns = {
        preset: figures(
            load_model_config(preset),
            micro_batch_rows=args.micro_batch_rows,
            sequence_length=args.sequence_length,
            device=args.device,
        )
        for preset in args.presets or ("64m",)
    }
    if args.json:
        Console().print_json(data=columns)
        return
    console = Console()
    console.print(_table(columns))
    console.print(LEGEND, style="dim", highlight=False)


def figures(
    config: ModelConfig,
    *,
    micro_batch_rows: int,
    sequence_length: int | None = None,
    device: str = "cpu",
) -> dict[str, dict[str, Any]]:
    """Return every figure of one model shape; memory in bytes."""
    from minimind.model import accounting

    T = sequence_length or config.max_position_embeddings
    parts = accounting.count_parameters(config)
    training = accounting.training_memory(
        config, micro_batch_rows=micro_batch_rows, sequence_length=T, device=device
    )
    totals = {
        f"total_{optimizer}{'_checkpointed' if checkpointed else ''}": training.total(
            optimizer=optimizer, checkpointed=checkpointed
        )
        for optimizer in ("adamw", "muon")
        for checkpointed in (False, True)
    }
    return {
        "shape": {"micro_batch_rows": micro_batch_rows, "sequence_length": T},
        "parameters": {
            "total": parts.total,
            **asdict(parts),
            "non_embedding": parts.non_embedding,
            "active": accounting.active_parameters(config).total,
        },
        "flops_per_token": {
            "training": accounting.training_flops_per_token(config, sequence_length=T),
            "inference": accounting.inference_flops_per_token(config, sequence_length=T),
        },
        "training_bytes": asdict(training) | totals,
        "inference_bytes": asdict(accounting.inference_memory(config)),
    }


TITLES = {
    "parameters": "parameters, millions",
    "flops_per_token": "MFLOPs per token",
    "training_bytes": "training memory, MB",
    "inference_bytes": "inference memory, MB",
}


def _table(columns: dict[str, dict[str, dict[str, Any]]]) -> Table:
    first = next(iter(columns.values()))
    rows = first["shape"]["micro_batch_rows"]
    lengths = " | ".join(str(column["shape"]["sequence_length"]) for column in columns.values())
    table = Table(title=f"micro-batch of {rows} rows x {lengths} tokens", title_justify="left")
    table.add_column("")
    for preset in columns:
        table.add_column(preset, justify="right")
    for section, title in TITLES.items():
        table.add_section()
        table.add_row(f"[bold]{title}")
        for name in first[section]:
            values = (column[section][name] / MB for column in columns.values())
            table.add_row(f"  {name.replace('_', ' ')}", *(f"{value:,.2f}" for value in values))
    return table
