"""Item 3: tokens a second and the share of the card's own matrix rate; one step's kernels."""

from __future__ import annotations

import time
from typing import Any

import torch

from gpu_items.ceilings import matrix_rate
from gpu_items.common import Context, compile_error, free, seconds_of, spread
from minimind.model.accounting import training_flops_per_token, training_memory
from minimind.settings import load_model_config, load_run_config
from minimind.train.fit import fitted
from steps import BUILDERS, Spec, missing, real_tokens

Arm = tuple[str, str, str, str, int]
"""Preset, system, mode, variant, rows of a micro-batch.

Variants of ours: Muon, documents in the rows, `train.fuse_projections`, `train.precision = "fp8"`.
"""


def arms(models: list[str], rows: dict[str, int]) -> list[Arm]:
    """Return what is measured, what the bars ask for first: there may not be time for all.

    The default shape with all that it is compared with; then ours of the other shapes, the
    original's loop (nothing to compile) and transformers' of each; then ours in other ways.
    """
    first, *others = models
    most = rows[first]

    def each(system: str, mode: str) -> list[Arm]:
        return [(model, system, mode, "plain", rows[model]) for model in others]

    return [
        (first, "minimind", "compiled", "plain", most),
        (first, "original", "eager", "plain", most),
        (first, "transformers", "compiled", "plain", most),
        (first, "minimind", "compiled", "document-mask", most),
        (first, "minimind", "compiled", "document-mask-flash", most),
        (first, "trainer", "compiled", "plain", most),
        (first, "minimind", "compiled", "muon", most),
        *each("minimind", "compiled"),
        *each("original", "eager"),
        (first, "minimind", "compiled", "fused", most),
        *each("trainer", "compiled"),
        (first, "minimind", "eager", "plain", most),
        (first, "minimind", "compiled", "fp8", most),
        *((first, "minimind", "compiled", "plain", max(1, most // n)) for n in (2, 4)),
        *each("transformers", "compiled"),
    ]


def rows_of(model: str) -> int:
    """Return the rows of a micro-batch that `speedrun` takes on this card: 128 where they fit.

    Between two steps the host waits and a GPU has nothing to do for a while: the more rows, the
    less it weighs.
    """
    return fitted(load_run_config(["pretrain", model, "speedrun"])).train.micro_batch_rows


def run(context: Context) -> None:
    """Measure the default shape first and most, then the others as time allows."""
    rate = context.figures["matrix_flops"] = matrix_rate(context)
    context.remarks.append(
        f"matrix rate {rate / 1e12:.1f} TFLOP/s; the bar: 64m at least 50 % of it, 3x the "
        "original's loop in real tokens, ahead of transformers compiled"
    )
    refusal = compile_error(context.device)
    if refusal is not None:
        context.left_out.append(f"all that is compiled: {refusal}")
    models = context.models or context.choose(["64m", "26m", "moe", "104m", "64m-wide"], ["nano"])
    longest = 40.0
    for arm in arms(models, {model: rows_of(model) for model in models}):
        model, system, mode, variant, count = arm
        name = f"{model} {system} {mode} {variant} {count} rows"
        if (lacks := missing(system)) is not None:
            context.left_out.append(f"{name} ({lacks})")
            continue
        if mode == "compiled" and refusal is not None:
            continue
        began = time.perf_counter()
        row = context.attempt(name, longest, lambda arm=arm: measure(context, arm, rate))
        if row is not None:
            context.add(beside(context.rows, row))
            longest = min(60.0, max(longest, 1.1 * (time.perf_counter() - began)))
        if variant == "muon" and row is not None:
            lines = context.attempt("profile of a step", 25, lambda: profile(context, models[0]))
            context.remarks += lines or []
        free(context.device)


def beside(rows: list[dict[str, Any]], row: dict[str, Any]) -> dict[str, Any]:
    """Return the row with how many times its real tokens a second ours of its shape has."""
    ours = [one for one in rows if (one["model"], one["system"]) == (row["model"], "minimind")]
    if ours:
        row["ours / this"] = ours[0]["real tok/s"] / row["real tok/s"]
    return row


def measure(context: Context, arm: Arm, rate: float) -> dict[str, Any]:
    """Return one row: steps of so many rows of 512."""
    began = time.perf_counter()
    model, system, mode, variant, rows = arm
    spec = Spec(
        model=model, system=system, precision="bf16", mode=mode, variant=variant,  # pyright: ignore[reportArgumentType]
        device=context.device, threads=None, attention="auto",
    )  # fmt: skip
    count = context.choose(rows, 2)
    config = load_model_config(spec.model)
    length = min(context.choose(512, 64), config.max_position_embeddings)
    torch.manual_seed(0)
    ids = torch.randint(16, config.vocab_size, (count, length + 1))
    step = BUILDERS[spec.system](spec, config, ids)
    seconds_of(step, context.device, rounds=1, warm_up=2)
    if context.device == "cuda":  # of a step, not of the compiler's trials
        torch.cuda.reset_peak_memory_stats()
    taken = seconds_of(step, context.device, rounds=5, inner=context.choose(5, 1), warm_up=0)
    speeds = spread([count * length / seconds for seconds in taken])
    flops = training_flops_per_token(config, sequence_length=length)
    real = speeds["median"] * real_tokens(spec.system)
    peak = torch.cuda.max_memory_allocated() / 2**20 if context.device == "cuda" else None
    predicted = training_memory(
        config, micro_batch_rows=count, sequence_length=length, device="cuda"
    ).total(optimizer="muon" if variant == "muon" else "adamw")
    return {
        "model": spec.model, "system": spec.system, "mode": spec.mode, "variant": spec.variant,
        "rows": count, "tok/s": speeds["median"], "real tok/s": real, "min": speeds["min"],
        "max": speeds["max"], "n": speeds["n"], "of rate": speeds["median"] * flops / rate,
        "peak MB": peak, "predicted MB": predicted / 2**20 if system == "minimind" else None,
        "took s": time.perf_counter() - began,
    }  # fmt: skip


def profile(context: Context, model: str) -> list[str]:
    """Return lines: the ten largest kernels of a compiled step, and what the device waited."""
    config = load_model_config(model)
    length = min(context.choose(512, 64), config.max_position_embeddings)
    count = context.choose(rows_of(model), 2)
    ids = torch.randint(16, config.vocab_size, (count, length + 1))
    spec = Spec(
        model=model, system="minimind", precision="bf16", mode="compiled", variant="muon",
        device=context.device, threads=None, attention="auto",
    )  # fmt: skip
    step = BUILDERS["minimind"](spec, config, ids)
    wall = spread(seconds_of(step, context.device, rounds=3, warm_up=3))["median"]
    kinds = [torch.profiler.ProfilerActivity.CPU]
    if context.device == "cuda":
        kinds.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=kinds) as prof:
        seconds_of(step, context.device, rounds=1, warm_up=0)
    on_gpu = context.device == "cuda"
    events = [
        (event.self_device_time_total if on_gpu else event.self_cpu_time_total, event.count,
         event.key)
        for event in prof.key_averages()
        # Annotations span kernels that are counted themselves: compiled regions, the optimizer.
        if not on_gpu or (str(event.device_type).endswith("CUDA") and not event.is_user_annotation)
    ]  # fmt: skip
    busy = sum(microseconds for microseconds, _, _ in events) / 1e6
    lines = [f"{model}: a step with Muon takes {wall * 1e3:.1f} ms, kernels {busy * 1e3:.1f} ms "
             f"({1 - min(1.0, busy / wall):.0%} gaps); the largest:"]  # fmt: skip
    for microseconds, count, name in sorted(events, reverse=True)[:10]:
        lines.append(f"  {microseconds / 1e3:8.2f} ms  {microseconds / 1e6 / busy:5.1%}  "
                     f"{count:5d} x  {name[:90]}")  # fmt: skip
    return lines
