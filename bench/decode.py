"""Decoding speed of one request: ours beside transformers' `generate` and llama.cpp's own server.

    python bench/decode.py                       everything that is installed, 64m, 128 + 256 tokens
    python bench/decode.py --systems minimind transformers --precisions fp32 --rounds 5
    python bench/decode.py --model moe --systems minimind "minimind compiled" loop transformers
    python bench/decode.py --json > decode.json

Weights are random: speed doesn't depend on them. Greedy, nothing ends an answer early, tokens/s are
new tokens over the time of the whole call, prompt included. Each configuration lives in a process
of its own; the processes take turns, one answer each a round. "of bound": tokens/s times the bytes
of the weights that a token reads (the embedding once, as output matrix), over the memory rate that
is measured in the same turns. The keys and values are not counted.

"minimind" is our torch backend, eager or compiled (`--compile` of chat, generate and serve);
"backend" is our llama.cpp backend, "llama.cpp" the server inside the xllamacpp wheel. "loop", for a
mixture: our torch backend, eager, with transformers' Python loop over experts in place of ours.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import tyro

from workers import Burst, Worker, peak_memory_mb, serve

SCRIPT = Path(__file__).resolve()

PRECISIONS = {
    "minimind": ("fp32", "bf16", "int8", "int4"),
    "minimind compiled": ("fp32", "bf16", "int8", "int4"),
    "loop": ("fp32", "bf16"),
    "transformers": ("fp32", "bf16"),
    "llama.cpp": ("f16", "q8_0", "q4_0"),
    "backend": ("f16", "q8_0", "q4_0"),
}
MEMORY_MB = 1024


@dataclass(frozen=True, kw_only=True)
class Args:
    """What to measure."""

    model: str = "64m"
    systems: tuple[str, ...] = tuple(name for name in PRECISIONS if name != "loop")
    precisions: tuple[str, ...] = ("fp32", "bf16", "int8", "int4", "f16", "q8_0", "q4_0")
    prompt: int = 128
    new: int = 256
    rounds: int = 5
    json: bool = False


# ---------------------------------------------------------------------------- inside a worker


def work(payload: dict[str, Any]) -> None:
    """Prepare one configuration, then answer each line of stdin with one request."""
    started = time.perf_counter()
    if "memory" in payload:
        burst, extra = memory_burst(), {}
    else:
        burst, extra = answer_burst(**payload)
    serve(
        lambda: burst() | {"peak_memory_mb": peak_memory_mb("cpu")},
        ready={"seconds": time.perf_counter() - started, **extra},
    )


def memory_burst() -> Burst:
    """Return a measurement of how many bytes a second can be read: the best of five sums."""
    import torch

    numbers = torch.ones(MEMORY_MB * 2**20 // 4)

    def burst() -> dict[str, float]:
        seconds = []
        for _ in range(5):
            begin = time.perf_counter()
            numbers.sum()
            seconds.append(time.perf_counter() - begin)
        return {"bytes_per_second": numbers.nbytes / min(seconds)}

    return burst


def answer_burst(
    *, system: str, precision: str, files: str, prompt: int, new: int
) -> tuple[Burst, dict[str, float]]:
    """Return one request to one configuration, and the bytes of its weights."""
    import torch

    ids = torch.randint(16, 4000, (prompt,), generator=torch.Generator().manual_seed(0)).tolist()
    makers = {
        "minimind": minimind, "minimind compiled": minimind, "loop": minimind,
        "transformers": transformers, "llama.cpp": llama_cpp, "backend": backend,
    }  # fmt: skip
    answer, weight_bytes = makers[system](system, precision, Path(files), ids, new)
    answer()

    def burst() -> dict[str, float]:
        begin = time.perf_counter()
        made = answer()
        seconds = time.perf_counter() - begin
        if made != new:
            raise SystemExit(f"{system} {precision} made {made} tokens instead of {new}")
        return {"tokens_per_second": made / seconds}

    return burst, {"weight_bytes": float(weight_bytes)}


Answer = Callable[[], int]


def minimind(
    system: str, precision: str, files: Path, ids: list[int], new: int
) -> tuple[Answer, int]:
    """Our engine on the checkpoint."""
    import torch

    import minimind as package
    from minimind.inference.engine import Engine
    from minimind.inference.sampling import SamplingParams
    from minimind.model.quantize import bytes_read_per_token, quantize_model

    dtype = torch.float32 if precision == "fp32" else torch.bfloat16
    model, _ = package.load(files / "checkpoint", dtype=dtype)
    if precision.startswith("int"):
        quantize_model(model, precision)
    if system.endswith("compiled"):
        model.set_compiled_decoding()
    weight_bytes = bytes_read_per_token(model)
    if system == "loop":
        from expert_loops import loop_of_transformers, replace_experts

        replace_experts(model, model.config, loop_of_transformers)
        model.to(dtype)
    engine = Engine(model)
    params = SamplingParams(temperature=0, repetition_penalty=1.0, max_new_tokens=new)
    return lambda: sum(1 for _ in engine.stream(ids, params)), weight_bytes


def transformers(
    system: str, precision: str, files: Path, ids: list[int], new: int
) -> tuple[Answer, int]:
    """`generate` of transformers on the same directory."""
    import torch
    from transformers import AutoModelForCausalLM, GenerationConfig

    dtype = torch.float32 if precision == "fp32" else torch.bfloat16
    model: Any = AutoModelForCausalLM.from_pretrained(files / "checkpoint", dtype=dtype)
    model.generation_config = GenerationConfig(
        max_new_tokens=new, min_new_tokens=new, do_sample=False, pad_token_id=0
    )
    row = torch.tensor([ids])
    mask = torch.ones_like(row)

    def answer() -> int:
        with torch.no_grad():
            return model.generate(row, attention_mask=mask).shape[1] - len(ids)

    return answer, sum(p.nbytes for p in model.parameters())


def llama_cpp(
    system: str, precision: str, files: Path, ids: list[int], new: int
) -> tuple[Answer, int]:
    """The server inside the xllamacpp wheel, called without HTTP."""
    import os

    import xllamacpp

    path = files / f"{precision}.gguf"
    params: Any = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.n_ctx, params.n_parallel = 512, 1
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = os.cpu_count() or 1
    params.warmup = True
    params.verbosity = -1
    server = xllamacpp.Server(params)
    request = {
        "prompt": ids, "n_predict": new, "temperature": 0.0, "ignore_eos": True,
        "cache_prompt": False, "samplers": ["top_k"], "top_k": 1,
    }  # fmt: skip

    def answer() -> int:
        return server.handle_completions(request)["usage"]["completion_tokens"]

    return answer, path.stat().st_size


def backend(
    system: str, precision: str, files: Path, ids: list[int], new: int
) -> tuple[Answer, int]:
    """Our llama.cpp backend on the same file."""
    import threading

    from minimind.inference.backend import TokenEvent
    from minimind.inference.sampling import SamplingParams
    from minimind.serve.llamacpp import LlamaCppBackend

    path = files / f"{precision}.gguf"
    running = LlamaCppBackend(path, slots=1)
    params = SamplingParams(temperature=0, repetition_penalty=1.0, max_new_tokens=new)
    number = 0

    def answer() -> int:
        nonlocal number
        number += 1  # another first token: nothing comes from the prefix cache
        events: list[TokenEvent] = []
        ended = threading.Event()

        def on_event(event: TokenEvent) -> None:
            # As the server does for an answer that isn't streamed, and as llama.cpp's does here.
            events.append(event)
            if event.end is not None:
                ended.set()

        running.submit([100 + number, *ids[1:]], params, on_event)
        ended.wait()
        return sum(event.token is not None for event in events)

    return answer, path.stat().st_size


# -------------------------------------------------------------------------------- the report


def make_files(folder: Path, args: Args) -> None:
    """Write one random checkpoint and the GGUF files of it."""
    import torch

    from minimind import checkpoint
    from minimind.export.gguf import write_gguf
    from minimind.export.loading import read_source
    from minimind.model import CausalLM
    from minimind.settings import load_model_config
    from minimind.tokenizer import Tokenizer

    torch.manual_seed(0)
    model = CausalLM(load_model_config(args.model))
    checkpoint.save(folder / "checkpoint", model=model, tokenizer=Tokenizer.load("default"))
    wanted = {p for s in args.systems for p in PRECISIONS[s] if s in {"llama.cpp", "backend"}}
    for precision in sorted(wanted & set(args.precisions)):
        source = read_source(folder / "checkpoint")
        write_gguf(source, folder / f"{precision}.gguf", type=precision, name="random")


def measure(args: Args, folder: Path) -> dict[str, Any]:
    """Let all configurations take turns; return the rows of the report."""
    make_files(folder, args)
    memory = Worker(SCRIPT, {"memory": True})
    workers: dict[tuple[str, str], Worker] = {}
    for system in args.systems:
        for precision in PRECISIONS[system]:
            if precision in args.precisions:
                payload = {"system": system, "precision": precision, "files": str(folder),
                           "prompt": args.prompt, "new": args.new}  # fmt: skip
                worker = workers[system, precision] = Worker(SCRIPT, payload)
                print(f"ready: {system} {precision} ({worker.ready['seconds']:.0f} s)",
                      file=sys.stderr)  # fmt: skip
    speeds: dict[tuple[str, str], list[float]] = {key: [] for key in workers}
    bandwidth, peaks = [], {}
    for number in range(args.rounds):
        print(f"round {number + 1} of {args.rounds}", file=sys.stderr)
        bandwidth.append(memory.burst()["bytes_per_second"])
        for key, worker in workers.items():
            figures = worker.burst()
            speeds[key].append(figures["tokens_per_second"])
            peaks[key] = figures["peak_memory_mb"]
    rows = [
        {
            "system": key[0], "precision": key[1], **summary(speeds[key]),
            "of_bound": statistics.median(
                speed * worker.ready["weight_bytes"] / rate
                for speed, rate in zip(speeds[key], bandwidth, strict=True)
            ),
            "over_transformers": ratio(speeds, key, ("transformers", key[1])),
            "over_transformers_fp32": ratio(speeds, key, ("transformers", "fp32")),
            "over_llama_cpp": ratio(speeds, key, ("llama.cpp", key[1])),
            "weight_mb": worker.ready["weight_bytes"] / 2**20,
            "peak_memory_mb": peaks[key],
            "ready_seconds": worker.ready["seconds"],
        }
        for key, worker in workers.items()
    ]  # fmt: skip
    for worker in (memory, *workers.values()):
        worker.close()
    return {**asdict(args), "bytes_per_second": statistics.median(bandwidth), "rows": rows}


def summary(speeds: list[float]) -> dict[str, float]:
    """Return median, extremes and count."""
    return {
        "tokens_per_second": statistics.median(speeds),
        "min": min(speeds), "max": max(speeds), "n": len(speeds),
    }  # fmt: skip


def ratio(
    speeds: dict[tuple[str, str], list[float]], key: tuple[str, str], base: tuple[str, str]
) -> float | None:
    """Return the median ratio to another configuration, round by round (so drift cancels)."""
    if base not in speeds or base == key:
        return None
    pairs = zip(speeds[key], speeds[base], strict=True)
    return statistics.median(mine / its for mine, its in pairs)


def show(report: dict[str, Any]) -> None:
    """Print the table."""
    from rich.console import Console
    from rich.table import Table

    title = f"{report['model']}, one request, {report['prompt']} + {report['new']} tokens"
    table = Table(title=title)
    for column in ("system", "weights", "tokens/s", "n", "min-max", "of bound", "x transformers",
                   "x its fp32", "x llama.cpp", "weights MB", "peak MB"):  # fmt: skip
        table.add_column(column, justify="left" if column in {"system", "weights"} else "right")
    for row in report["rows"]:
        ratios = (row["over_transformers"], row["over_transformers_fp32"], row["over_llama_cpp"])
        table.add_row(
            row["system"], row["precision"], f"{row['tokens_per_second']:.0f}", str(row["n"]),
            f"{row['min']:.0f}-{row['max']:.0f}", f"{row['of_bound']:.0%}",
            *("" if one is None else f"{one:.2f}" for one in ratios),
            f"{row['weight_mb']:,.0f}", f"{row['peak_memory_mb']:,.0f}",
        )  # fmt: skip
    console = Console(width=130)
    console.print(table)
    console.print(f"memory read in the same turns: {report['bytes_per_second'] / 1e9:.1f} GB/s")


def main() -> None:
    if sys.argv[1:2] == ["--worker"]:
        work(json.loads(sys.argv[2]))
        return
    args = tyro.cli(Args, description=__doc__)
    with tempfile.TemporaryDirectory() as folder:
        report = measure(args, Path(folder))
    print(json.dumps(report, indent=1)) if args.json else show(report)


if __name__ == "__main__":
    main()
