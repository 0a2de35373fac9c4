"""`minimind doctor [PRESET]`: check this machine, time real training steps, estimate the cost."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import tyro
from rich.console import Console
from rich.table import Table

from minimind.errors import UserError

if TYPE_CHECKING:
    from minimind.doctor import Check, Estimate, Trial

STYLES = {"ok": "green", "warning": "yellow", "error": "red"}


@dataclass(frozen=True, kw_only=True)
class Args:
    """Check this machine, then time real training steps of a preset.

    Settings of a run can follow, for example --train.no-compile --train.micro-batch-rows 4.

    Attributes:
        preset: the model that is timed.
        seconds: of training steps; 0 leaves them out.
        tokens: a training budget to estimate; default: 20 tokens a parameter.
        price: of this machine for an hour, in any currency.
        json: print the figures as JSON.
    """

    preset: tyro.conf.Positional[str] = "64m"
    seconds: float = 20.0
    tokens: int | None = None
    price: float | None = None
    json: bool = False


def main(argv: list[str]) -> int:
    """Run `minimind doctor`; the exit code is 1 if a check found an error."""
    args, settings = tyro.cli(Args, args=argv, prog="minimind doctor", return_unknown_args=True)
    for name, value in (("seconds", args.seconds), ("tokens", args.tokens), ("price", args.price)):
        if value is not None and value < 0:
            raise UserError(f"--{name} {value}: must not be negative")
    from minimind import doctor
    from minimind.model.accounting import count_parameters
    from minimind.settings import load_run_config
    from minimind.train.device import pick_device

    config = load_run_config([args.preset], settings)
    notes = Console(stderr=True, style="dim", highlight=False)
    notes.print("measuring matrix products ...")
    rates = doctor.matrix_rates(pick_device(config.train))
    checks = doctor.check_machine(config, rates=rates)
    compiler_missing = any(c.name == "C++ compiler" and c.level != "ok" for c in checks)
    if compiler_missing and config.train.compile:
        config = dataclasses.replace(config, train=dataclasses.replace(config.train, compile=False))
    failed = any(check.level == "error" for check in checks)
    trial = plan = None
    if args.seconds and not failed:
        compiling = ", after compiling" if config.train.compile else ""
        notes.print(f"training {args.preset} for about {args.seconds:.0f} s{compiling} ...")
        trial = doctor.time_training(config, seconds=args.seconds, rates=rates)
        plan = doctor.estimate(
            trial,
            parameters=count_parameters(config.model).total,
            tokens=args.tokens,
            price=args.price,
        )
    elif args.seconds:
        notes.print("training was not timed: mend the errors first")
    if args.json:
        figures = {
            "checks": [dataclasses.asdict(check) for check in checks],
            "matrix_flops_per_second": rates,
            "preset": args.preset,
            "training": dataclasses.asdict(trial) if trial else None,
            "estimate": dataclasses.asdict(plan) if plan else None,
        }
        Console(highlight=False).out(json.dumps(figures, ensure_ascii=False))
    else:
        _show(checks, trial, plan, preset=args.preset)
    return 1 if failed else 0


def _show(checks: list[Check], trial: Trial | None, plan: Estimate | None, *, preset: str) -> None:
    console = Console(highlight=False)
    table = Table(title="this machine", title_justify="left")
    for heading in ("check", "", "found", "what to do"):
        table.add_column(heading, overflow="fold")
    for check in checks:
        level = f"[{STYLES[check.level]}]{check.level}[/]"
        table.add_row(check.name, level, check.found, check.fix)
    console.print(table)
    if trial is None or plan is None:
        return
    table = Table(title=f"training {preset}", title_justify="left", show_header=False)
    compiled = "compiled" if trial.compiled else "not compiled"
    peak = trial.peak_memory_bytes
    memory = "unknown" if peak is None else f"{peak / 1e9:.2f} GB"
    rows = [
        ("how", f"{trial.precision}, {compiled}, {trial.steps} steps timed"),
        ("first step", f"{trial.startup_seconds:.1f} s (with compilation)"),
        ("speed", f"{trial.tokens_per_second:,.0f} tokens/s"),
        ("of the measured matrix rate", f"{trial.matrix_share:.0%} (MFU)"),
        ("one step", f"{trial.step_seconds:.2f} s, of it {trial.update_seconds:.2f} s the update"),
        ("peak memory", f"{memory} with micro-batches of {trial.micro_batch_rows} rows"),
        (f"{plan.tokens:,} tokens", f"about {_duration(plan.hours)} at this speed"),
    ]
    if plan.cost is not None:
        rows.append(("cost", f"about {plan.cost:,.2f}"))
    for row in rows:
        table.add_row(*row)
    console.print(table)


def _duration(hours: float) -> str:
    if hours < 1:
        return f"{hours * 60:.0f} minutes"
    return f"{hours:.1f} hours" if hours < 48 else f"{hours / 24:.1f} days"
