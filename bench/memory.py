"""Peak memory of a training step, beside what `minimind params` predicts.

    python bench/memory.py [--presets nano 26m 64m] [--rows 4 16] [--layers none all] [--json]
    python bench/memory.py --presets nano --compile --attention sdpa    what a compiled step holds

Each configuration runs in a process of its own. On a CPU `measured` is the largest sum of live
tensor bytes during a step that isn't the first, from torch's profiler: exact, the same on every
machine, and without the libraries' own code, which `resident` has. On CUDA it is the allocator's
peak.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import tyro

from workers import Worker, peak_memory_mb, serve

SCRIPT = Path(__file__)


@dataclass(frozen=True, kw_only=True)
class Args:
    """What to measure."""

    presets: tuple[str, ...] = ("nano", "26m", "64m", "64m-wide")
    rows: tuple[int, ...] = (4, 16)
    length: int = 512
    layers: tuple[str, ...] = ("none", "all")
    """Checkpointed layers."""
    optimizers: tuple[Literal["muon", "adamw"], ...] = ("muon", "adamw")
    compile: bool = False
    attention: Literal["auto", "sdpa", "eager"] = "auto"
    """On a CPU `auto` is `eager` inside a compiled step: fast there, and holds all scores."""
    device: Literal["cpu", "cuda"] = "cpu"
    json: bool = False


def work(spec: dict[str, Any]) -> None:
    """Answer with the peak of one configuration, in a process of its own."""
    peak, resident = measured(spec)
    serve(lambda: {"measured": peak, "resident": resident}, ready={})


def measured(spec: dict[str, Any]) -> tuple[int, int]:
    """Return the most live bytes in a step after the first ones, and those of the process."""
    import torch

    from minimind.config import OptimConfig, TrainConfig
    from minimind.data.batch import Batch
    from minimind.model import CausalLM
    from minimind.settings import load_model_config
    from minimind.train import NextToken, Trainer, build_optimizer, build_schedule

    torch.manual_seed(0)
    config = load_model_config(spec["preset"])
    model = CausalLM(config).to(spec["device"])
    model.set_attention(spec["attention"])
    optim = OptimConfig(kind=spec["optimizer"], schedule="constant")
    trainer = Trainer(
        model=model,
        objective=NextToken(),
        optimizer=build_optimizer(model, optim),
        schedule=build_schedule(optim, steps=10),
        config=TrainConfig(
            precision="bf16", compile=spec["compile"], gradient_checkpointing=spec["layers"]
        ),
        steps=10,
    )
    ids = torch.randint(16, config.vocab_size, (spec["rows"], spec["length"] + 1))
    batch = Batch(input_ids=ids[:, :-1], labels=ids[:, 1:])

    def step() -> None:
        trainer.train_step([batch])

    for _ in range(2 if spec["compile"] else 1):
        step()
    trainer.optimizer.zero_grad()  # the profiler doesn't see old blocks go
    held = [*model.parameters(), *model.buffers()]
    held += [t for state in trainer.optimizer.state_dict().values() for t in state.values()]
    before = sum(tensor.untyped_storage().nbytes() for tensor in held)
    peak = before + peak_over(step, spec["device"])
    return peak, int(peak_memory_mb(spec["device"]) * 2**20)


def peak_over(step: Callable[[], None], device: str) -> int:
    """Return the most bytes that `step` holds beyond those that were there before."""
    import torch

    if device == "cuda":
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        step()
        return torch.cuda.max_memory_allocated() - before
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as profile:
        step()
    results: Any = profile.profiler.kineto_results  # pyright: ignore[reportOptionalMemberAccess]
    events = [event for event in results.events() if event.name() == "[memory]"]
    live = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        live += event.nbytes()
        most = max(most, live)
    return most


def measure(args: Args) -> list[dict[str, Any]]:
    """Return one row a configuration."""
    from minimind.model.accounting import training_memory
    from minimind.settings import load_model_config

    rows = []
    for preset in args.presets:
        config = load_model_config(preset)
        length = min(args.length, config.max_position_embeddings)
        for optimizer in args.optimizers:
            for layers in args.layers:
                for count in args.rows:
                    spec = {
                        "preset": preset, "optimizer": optimizer, "layers": layers, "rows": count,
                        "length": length, "compile": args.compile, "device": args.device,
                        "attention": args.attention,
                    }  # fmt: skip
                    worker = Worker(SCRIPT, spec)
                    figures = worker.burst()
                    worker.close()
                    memory = training_memory(
                        config, micro_batch_rows=count, sequence_length=length, device=args.device
                    )
                    predicted = memory.total(optimizer=optimizer, checkpointed=layers == "all")
                    rows.append({**spec, **figures, "predicted": predicted,
                                 "ratio": predicted / figures["measured"]})  # fmt: skip
                    print(json.dumps(rows[-1]), file=sys.stderr)
    return rows


def show(args: Args, rows: list[dict[str, Any]]) -> None:
    """Print the table."""
    from rich.console import Console
    from rich.table import Table

    mode = "compiled" if args.compile else "eager"
    table = Table(title=f"peak memory of a training step in MB, {args.device}, bf16, {mode}")
    for column in ("preset", "optimizer", "checkpointed", "rows x tokens", "measured", "predicted",
                   "predicted / measured", "resident"):  # fmt: skip
        table.add_column(column, justify="left" if column in {"preset", "optimizer"} else "right")
    for row in rows:
        table.add_row(
            row["preset"], row["optimizer"], row["layers"], f"{row['rows']} x {row['length']}",
            f"{row['measured'] / 1e6:,.0f}", f"{row['predicted'] / 1e6:,.0f}",
            f"{row['ratio']:.2f}", f"{row['resident'] / 1e6:,.0f}",
        )  # fmt: skip
    Console(width=110).print(table)


def main() -> None:
    if sys.argv[1:2] == ["--worker"]:
        work(json.loads(sys.argv[2]))
        return
    args = tyro.cli(Args, description=__doc__)
    rows = measure(args)
    print(json.dumps({**asdict(args), "figures": rows}, indent=1)) if args.json else show(
        args, rows
    )


if __name__ == "__main__":
    main()
