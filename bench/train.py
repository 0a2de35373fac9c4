"""Training speed: tokens/s of our step beside transformers' Qwen3 of the same shape.

    python bench/train.py                                  everything, about 15 minutes on 2 cores
    python bench/train.py --models 64m --precisions bf16 --modes compiled --rounds 3
    python bench/train.py --json > train.json

Each configuration lives in a process of its own (peak memory is that process's); the processes
take turns, one timed burst each a round, so that whatever else the machine does meets all of them.
The machine's own matrix rate is measured in the same turns; "of rate" is model FLOPs a second
over the rate of that precision. "x plain" is by processor time, which other work on the machine
lengthens less than wall-clock (with `--threads 1`: a waiting thread counts as working). Tokens
that are padding don't count; only the original's rows have any.

    textbook      the same model in fp32, eager, all logits held, `F.cross_entropy`, default AdamW
    minimind      a step of our trainer
    transformers  a plain loop around its Qwen3 (a mixture: its Qwen3-MoE) with our AdamW
    trainer       Hugging Face's Trainer around the same, without logs and saves; bf16 only
    original      our model in the loop of jingyaogong/minimind: eager, rows padded; bf16 only

What a system needs and lacks (`trainer`: accelerate) is said and left out. On 2 cores a 64m process
takes 2-3 GB: with less than 48 GB ask for part of it (eleven were too many for 24).
"""

from __future__ import annotations

import itertools
import json
import statistics
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import tyro

from steps import BUILDERS, Mode, Precision, Spec, System, missing, real_tokens, synchronize
from workers import Burst, Worker, peak_memory_mb, serve

SCRIPT = Path(__file__).resolve()

VARIANTS = ("plain", "fused", "document-mask", "muon", "huge-pages")

# rows x length of a step, and steps of a timed burst: a burst takes about 3 s in bf16 on 2 cores
SHAPES = {"nano": (16, 256, 6), "64m": (4, 512, 1)}
OTHER_SHAPE = (4, 512, 1)


@dataclass(frozen=True, kw_only=True)
class Args:
    """What to measure."""

    models: tuple[str, ...] = ("nano", "64m")
    systems: tuple[System, ...] = ("textbook", "minimind", "transformers", "trainer", "original")
    """The plain loops, textbook's and transformers' in fp32 and eager, are run whatever precisions
    and modes are asked."""
    precisions: tuple[Precision, ...] = ("fp32", "bf16")
    modes: tuple[Mode, ...] = ("eager", "compiled")
    variants: tuple[str, ...] = VARIANTS
    """plain; fused: one product for q, k, v, one for gate, up (`train.fuse_projections`), for ours
    in bf16; document-mask: packed rows with boundaries; muon: our default optimizer; these two
    only for ours in bf16, compiled. huge-pages: transformers in bf16, compiled, with the pages that
    ours always asks for (`cli/huge_pages.py`)."""
    attention: str = "auto"
    """Of ours: auto, sdpa, eager."""
    rounds: int = 5
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int | None = None
    json: bool = False


@dataclass(kw_only=True)
class Result:
    """What a configuration measured."""

    spec: Spec
    tokens_per_second: list[float] = field(default_factory=list)
    tokens_per_processor_second: list[float] = field(default_factory=list)
    warmup_seconds: float = 0.0
    peak_memory_mb: float = 0.0
    flops_per_token: float = 0.0


def specs(args: Args, model: str, device: str) -> list[Spec]:
    """Return the configurations of one model."""
    loops: tuple[tuple[System, Precision], ...] = (
        ("textbook", "fp32"), ("transformers", "fp32"), ("original", "bf16"),
    )  # fmt: skip
    made = [
        Spec(model=model, system=system, precision=precision, mode="eager", variant="plain",
             device=device, threads=args.threads, attention=args.attention)
        for system, precision in loops if system in args.systems
    ]  # fmt: skip
    others: list[System] = [one for one in args.systems if one not in ("textbook", "original")]
    for system, precision, mode in itertools.product(others, args.precisions, args.modes):
        if (system, precision) == ("trainer", "fp32"):
            continue
        for variant in args.variants:
            owner = "transformers" if variant == "huge-pages" else "minimind"
            special = (system, precision) == (owner, "bf16") and (
                mode == "compiled" or variant == "fused"
            )
            if variant == "plain" or special:
                made.append(
                    Spec(model=model, system=system, precision=precision, mode=mode,
                         variant=variant, device=device, threads=args.threads,
                         attention=args.attention)
                )  # fmt: skip
    return list(dict.fromkeys(made))


# ---------------------------------------------------------------------------- inside a worker


def work(payload: dict[str, Any]) -> None:
    """Prepare one configuration, then answer each line of stdin with a burst."""
    import torch

    device = payload["device"]
    if payload["threads"]:
        torch.set_num_threads(payload["threads"])
    started = time.perf_counter()
    burst, extra = matrix_burst(device) if "matrix" in payload else step_burst(Spec(**payload))
    serve(
        lambda: burst() | {"peak_memory_mb": peak_memory_mb(device)},
        ready={"warmup_seconds": time.perf_counter() - started, **extra},
    )


def matrix_burst(device: str) -> tuple[Burst, dict[str, float]]:
    """Return a measurement of the machine's fp32 and bf16 matrix rates in FLOP/s."""
    import torch

    from minimind.doctor.timing import matrix_rate

    def burst() -> dict[str, float]:
        kinds = {"fp32": torch.float32, "bf16": torch.bfloat16}
        return {
            name: matrix_rate(torch.device(device), dtype=dtype, seconds=1.0)
            for name, dtype in kinds.items()
        }

    return burst, {}


def step_burst(spec: Spec) -> tuple[Burst, dict[str, float]]:
    """Build model and optimizer, warm up, and return the timed burst."""
    import torch

    from minimind.model.accounting import training_flops_per_token
    from minimind.settings import load_model_config

    config = load_model_config(spec.model)
    rows, length, steps = SHAPES.get(spec.model, OTHER_SHAPE)
    if spec.device == "cuda":
        rows, steps = rows * 8, steps * 8
    torch.manual_seed(0)
    ids = torch.randint(16, config.vocab_size, (rows, length + 1))
    step = BUILDERS[spec.system](spec, config, ids)
    for _ in range(3):  # compiles, fills caches, and lets the allocator settle
        step()

    def burst() -> dict[str, float]:
        synchronize(spec.device)
        started, worked = time.perf_counter(), time.process_time()
        for _ in range(steps):
            step()
        synchronize(spec.device)
        tokens = rows * length * steps * real_tokens(spec.system)
        return {
            "tokens_per_second": tokens / (time.perf_counter() - started),
            "tokens_per_processor_second": tokens / (time.process_time() - worked),
        }

    return burst, {"flops_per_token": training_flops_per_token(config, sequence_length=length)}


# -------------------------------------------------------------------------------- the report


def measure(args: Args, model: str, device: str) -> tuple[list[Result], dict[str, list[float]]]:
    """Let all configurations of a model take turns; return their results and the matrix rates."""
    matrix = Worker(SCRIPT, {"matrix": True, "device": device, "threads": args.threads})
    rates: dict[str, list[float]] = {"fp32": [], "bf16": []}
    results, workers = [], []
    for spec in specs(args, model, device):
        if (lacks := missing(spec.system)) is not None:
            print(f"left out: {spec.name} ({lacks})", file=sys.stderr)
            continue
        worker = Worker(SCRIPT, asdict(spec), huge_pages=spec.huge_pages)
        workers.append(worker)
        results.append(
            Result(spec=spec, warmup_seconds=worker.ready["warmup_seconds"],
                   flops_per_token=worker.ready["flops_per_token"])
        )  # fmt: skip
        print(f"ready: {spec.name} ({worker.ready['warmup_seconds']:.0f} s)", file=sys.stderr)
    for number in range(args.rounds):
        print(f"{model}: round {number + 1} of {args.rounds}", file=sys.stderr)
        for name, rate in matrix.burst().items():
            if name in rates:
                rates[name].append(rate)
        for worker, result in zip(workers, results, strict=True):
            figures = worker.burst()
            result.tokens_per_second.append(figures["tokens_per_second"])
            result.tokens_per_processor_second.append(figures["tokens_per_processor_second"])
            result.peak_memory_mb = figures["peak_memory_mb"]
    for worker in (matrix, *workers):
        worker.close()
    return results, rates


def rows_of(results: list[Result], rates: dict[str, list[float]]) -> list[dict[str, Any]]:
    """Return one row of figures a configuration."""
    medians = {result.spec.name: statistics.median(result.tokens_per_second) for result in results}

    def over(result: Result, clock: str = "tokens_per_second", **other: str) -> float | None:
        """Median ratio to another configuration, round by round (so drift cancels)."""
        name = Spec(**{**asdict(result.spec), "variant": "plain", **other}).name  # pyright: ignore[reportArgumentType]
        base = next((r for r in results if r.spec.name == name), None)
        if base is None:
            return None
        pairs = zip(getattr(result, clock), getattr(base, clock), strict=True)
        return statistics.median(mine / its for mine, its in pairs)

    rows = []
    for result in results:
        spec, speeds = result.spec, result.tokens_per_second
        of_rate = statistics.median(  # padding is computed as well
            speed / real_tokens(spec.system) * result.flops_per_token / rate
            for speed, rate in zip(speeds, rates[spec.precision], strict=True)
        )
        rows.append(
            {
                **asdict(spec),
                "tokens_per_second": medians[spec.name],
                "n": len(speeds),
                "min": min(speeds),
                "max": max(speeds),
                "of_matrix_rate": of_rate,
                "over_textbook": over(result, system="textbook", precision="fp32", mode="eager"),
                "over_transformers_fp32_eager": over(
                    result, system="transformers", precision="fp32", mode="eager"
                ),
                "over_transformers": over(result, system="transformers"),
                "over_trainer": over(result, system="trainer"),
                "over_original": over(result, system="original", precision="bf16", mode="eager"),
                "tokens_per_processor_second": statistics.median(
                    result.tokens_per_processor_second
                ),
                "over_plain_by_processor": over(result, "tokens_per_processor_second"),
                "peak_memory_mb": result.peak_memory_mb,
                "warmup_seconds": result.warmup_seconds,
            }
        )
    return rows


BARS = {
    "cpu": {"over_textbook": 2.5, "of_matrix_rate": 0.65, "over_transformers": 1.0},
    "cuda": {"of_matrix_rate": 0.5, "over_original": 3.0, "over_transformers": 1.0},
}
"""What the project asks of 64m, compiled, in bf16, by device."""


def bars(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return what is asked of bf16 compiled 64m, and whether it holds."""
    mine = next(
        (row for row in rows if row["model"] == "64m" and row["system"] == "minimind"
         and row["precision"] == "bf16" and row["mode"] == "compiled"
         and row["variant"] == "plain"), None,
    )  # fmt: skip
    if mine is None:
        return []
    return [
        {"bar": name, "asked": bar, "measured": mine[name], "held": mine[name] >= bar}
        for name, bar in BARS[mine["device"]].items()
        if mine[name] is not None
    ]


def show(report: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title="training step (forward + backward + update)")
    for column in ("configuration", "tokens/s", "n", "min-max", "of rate", "x textbook",
                   "x transformers", "x trainer", "x original", "tokens/CPU s", "x plain",
                   "peak MB"):  # fmt: skip
        table.add_column(column, justify="left" if column == "configuration" else "right")
    for row in report["rows"]:
        spec = Spec(**{name: row[name] for name in Spec.__dataclass_fields__})
        names = ("over_textbook", "over_transformers", "over_trainer", "over_original")
        ratios = [row[name] for name in names]
        table.add_row(
            spec.name, f"{row['tokens_per_second']:,.0f}", str(row["n"]),
            f"{row['min']:,.0f}-{row['max']:,.0f}", f"{row['of_matrix_rate']:.0%}",
            *("" if ratio is None else f"{ratio:.2f}" for ratio in ratios),
            f"{row['tokens_per_processor_second']:,.0f}",
            "" if row["variant"] == "plain" or row["over_plain_by_processor"] is None
            else f"{row['over_plain_by_processor']:.3f}",
            f"{row['peak_memory_mb']:,.0f}",
        )  # fmt: skip
    console = Console(width=160)
    console.print(table)
    for model, rates in report["matrix_flops"].items():
        figures = ", ".join(f"{name} {rate / 1e9:,.0f} GFLOP/s" for name, rate in rates.items())
        console.print(f"matrix rate beside {model}: {figures}")
    for bar in report["bars"]:
        verdict = "held" if bar["held"] else "MISSED"
        console.print(f"{bar['bar']}: {bar['measured']:.2f}, asked {bar['asked']:.2f}: {verdict}")


def main() -> None:
    if sys.argv[1:2] == ["--worker"]:
        work(json.loads(sys.argv[2]))
        return
    args = tyro.cli(Args, description=__doc__)
    device = args.device
    if device == "auto":
        import torch

        device = "cuda" if torch.cuda.is_available() else "cpu"
    reports = []
    for model in args.models:
        results, rates = measure(args, model, device)
        rows = rows_of(results, rates)
        matrix = {model: {name: statistics.median(values) for name, values in rates.items()}}
        reports.append({"rows": rows, "matrix_flops": matrix, "bars": bars(rows)})
        if not args.json:  # at once: should the next model end early, this one is measured
            show(reports[-1])
    if args.json:
        whole = {
            "rows": [row for report in reports for row in report["rows"]],
            "matrix_flops": {k: v for report in reports for k, v in report["matrix_flops"].items()},
            "bars": [bar for report in reports for bar in report["bars"]],
        }
        print(json.dumps({"device": device, **whole}, indent=1))


if __name__ == "__main__":
    main()
