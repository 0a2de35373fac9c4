"""Item 3: tokens a second and the share of the card's own matrix rate; one step's kernels."""

from __future__ import annotations

from typing import Any

import torch

from gpu_items.ceilings import matrix_rate
from gpu_items.common import Context, Item, free, installed, seconds_of, spread
from minimind.errors import MiniMindError
from minimind.model.accounting import training_flops_per_token
from minimind.settings import load_model_config
from steps import BUILDERS, PADDING, Spec

MODELS = ("64m", "26m", "moe", "64m-wide", "104m")
ROWS = (64, 32, 128)
VARIANTS = ("fused", "document-mask", "fp8")
"""Of ours: `train.fuse_projections`, documents in the rows, `train.precision = "fp8"`."""


def run(context: Context) -> Item:
    """Measure the default shape first and most, then the others as time allows."""
    rate = matrix_rate(context)
    rows: list[dict[str, Any]] = []
    models = context.models or context.choose(MODELS, ("nano",))
    beside = [("original", "eager", "plain"), ("transformers", "compiled", "plain")]
    if not installed("transformers"):
        context.left_out.append("transformers (not installed)")
        beside.pop()
    plan = [("minimind", "compiled", "plain", rows) for rows in ROWS[:1]]
    plan += [(*who, ROWS[0]) for who in beside]
    plan += [("minimind", "compiled", "muon", ROWS[0]), ("minimind", "eager", "plain", ROWS[0])]
    plan += [("minimind", "compiled", variant, ROWS[0]) for variant in VARIANTS]
    plan += [("minimind", "compiled", "plain", rows) for rows in ROWS[1:]]
    for model in models:
        for system, mode, variant, count in plan if model == models[0] else plan[:1]:
            name = f"{model} {system} {mode} {variant} {count} rows"
            if not context.has(45, name):
                continue
            spec = Spec(
                model=model, system=system, precision="bf16", mode=mode, variant=variant,
                device=context.device, threads=None, attention="auto",
            )  # fmt: skip
            try:
                rows.append(measure(context, spec, context.choose(count, 2), rate))
            except (RuntimeError, MiniMindError) as error:  # out of memory, or a kernel's refusal
                context.left_out.append(f"{name}: {type(error).__name__}: {error}"[:160])
            free(context.device)
    first = next((row for row in rows if row["system"] == "minimind"), None)
    for row in rows:
        if first is not None and row is not first and row["model"] == first["model"]:
            row["ours / this"] = first["real tok/s"] / row["real tok/s"]
    figures: dict[str, Any] = {"matrix_flops": rate}
    if context.has(40, "profile of a step"):
        figures["profile"] = profile(context, models[0])
    remarks = [f"matrix rate {rate / 1e12:.1f} TFLOP/s; the bar: 64m at least 50 % of it, 3x the "
               "original's loop in real tokens, ahead of transformers compiled"]  # fmt: skip
    return Item(rows=rows, figures=figures, remarks=[*remarks, *figures.get("profile", [])])


def measure(context: Context, spec: Spec, count: int, rate: float) -> dict[str, Any]:
    """Return one row: a step of `count` rows of 512."""
    config = load_model_config(spec.model)
    length = min(context.choose(512, 64), config.max_position_embeddings)
    torch.manual_seed(0)
    ids = torch.randint(16, config.vocab_size, (count, length + 1))
    step = BUILDERS[spec.system](spec, config, ids)
    taken = seconds_of(step, context.device, rounds=5, inner=context.choose(5, 1), warm_up=3)
    speeds = spread([count * length / seconds for seconds in taken])
    flops = training_flops_per_token(config, sequence_length=length)
    real = speeds["median"] * (1 - PADDING if spec.system == "original" else 1)
    peak = torch.cuda.max_memory_allocated() / 2**20 if context.device == "cuda" else None
    return {
        "model": spec.model, "system": spec.system, "mode": spec.mode, "variant": spec.variant,
        "rows": count, "tok/s": speeds["median"], "real tok/s": real, "min": speeds["min"],
        "max": speeds["max"], "n": speeds["n"], "of rate": speeds["median"] * flops / rate,
        "peak MB": peak,
    }  # fmt: skip


def profile(context: Context, model: str) -> list[str]:
    """Return lines: the ten largest kernels of a compiled step, and what the device waited."""
    config = load_model_config(model)
    length = min(context.choose(512, 64), config.max_position_embeddings)
    ids = torch.randint(16, config.vocab_size, (context.choose(ROWS[0], 2), length + 1))
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
        if not on_gpu or event.device_type == torch.autograd.DeviceType.CUDA
    ]  # fmt: skip
    busy = sum(microseconds for microseconds, _, _ in events) / 1e6
    lines = [f"{model}: a step with Muon takes {wall * 1e3:.1f} ms, kernels {busy * 1e3:.1f} ms "
             f"({1 - min(1.0, busy / wall):.0%} gaps); the largest:"]  # fmt: skip
    for microseconds, count, name in sorted(events, reverse=True)[:10]:
        lines.append(f"  {microseconds / 1e3:8.2f} ms  {microseconds / 1e6 / busy:5.1%}  "
                     f"{count:5d} x  {name[:90]}")  # fmt: skip
    return lines
