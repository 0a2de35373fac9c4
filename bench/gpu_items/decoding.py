"""Item 6: decoding speed, from one row to hundreds."""

from __future__ import annotations

import collections
import functools
import threading
import time
from typing import Any

import torch

from gpu_items.ceilings import read_rate
from gpu_items.common import Context, compile_error, free, installed, spread
from minimind.inference.engine import Engine
from minimind.inference.sampling import SamplingParams
from minimind.model import CausalLM
from minimind.model.graphs import GraphStep
from minimind.settings import load_model_config
from steps import qwen3_of

ROWS = (1, 128, 32, 8, 512)
"""Rows that are decoded together; those that the bars are about first."""
SYSTEMS = ("graphs", "fused graphs", "plain", "transformers")
PROMPT, NEW = 128, 256


def run(context: Context) -> None:
    """Measure whole answers, greedy, in bf16: the engine with graphs and plain, transformers."""
    preset = context.choose("64m", "nano")
    prompt, new = context.choose((PROMPT, NEW), (8, 16))
    rate = context.figures["bytes_per_second"] = read_rate(context)
    config = load_model_config(preset)
    context.remarks.append(
        f"memory moves {rate / 1e9:,.0f} GB/s (copy, read + written), {preset} bf16; the bars: "
        "1,000 tokens/s alone, 100,000 with 128 rows"
    )
    torch.manual_seed(0)
    model = CausalLM(config).to(context.device, torch.bfloat16).eval()
    weights = sum(parameter.nbytes for parameter in model.parameters())
    # Each step reads the weights, and of every row the keys and values so far.
    row_bytes = 2 * config.num_key_value_heads * config.head_dim * 2 * config.num_hidden_layers
    systems = SYSTEMS if installed("transformers") else SYSTEMS[:-1]
    if systems != SYSTEMS:
        context.left_out.append("transformers (not installed)")
    if refusal := compile_error(context.device):
        systems = tuple(system for system in systems if system != "fused graphs")
        context.left_out.append(f"fused graphs: {refusal}")
    steps = {
        "graphs": GraphStep(model),
        "fused graphs": GraphStep(model, fuse=True),
    }
    for count in context.choose(ROWS, (1, 4)):
        for system in systems:
            model.compiled_step = steps.get(system)
            speeds = context.attempt(
                f"{count} rows, {system}", 40 if system == "fused graphs" else 25,
                lambda system=system, count=count: answers(
                    context, model, system, count, prompt, new
                ),
            )  # fmt: skip
            if speeds is None:
                continue
            step_bytes = weights + count * row_bytes * (prompt + new / 2)
            context.add({
                "rows": count, "system": system, "tok/s": speeds["median"], "min": speeds["min"],
                "max": speeds["max"], "n": speeds["n"],
                "of bound": speeds["median"] / count * step_bytes / rate,
            })  # fmt: skip
    for system in ("graphs", "plain"):
        model.compiled_step = steps.get(system)
        row = context.attempt(
            f"64 requests at once through the server's backend, {system}", 20,
            lambda: many_requests(context, model, prompt, new),
        )  # fmt: skip
        if row is not None:
            context.add(row | {"system": f"server's backend, {system}"})
    free(context.device)


def answers(
    context: Context, model: CausalLM, system: str, count: int, prompt: int, new: int
) -> dict[str, float]:
    """Return tokens a second over three rounds of `count` answers."""
    ids = torch.randint(16, model.config.vocab_size, (count, prompt))
    if system == "transformers":
        generate = theirs(context, model, ids, new)
    else:
        params = SamplingParams(temperature=0, repetition_penalty=1.0, max_new_tokens=new)
        engine = Engine(model)

        def generate() -> int:
            made = engine.complete(ids.tolist(), params, batch_rows=count)
            return sum(len(one.ids) for one in made)

    generate()
    speeds = []
    for _ in range(3):
        started = time.perf_counter()
        made = generate()
        speeds.append(made / (time.perf_counter() - started))
    return spread(speeds)


def theirs(context: Context, model: CausalLM, ids: torch.Tensor, new: int) -> Any:
    """Return transformers' `generate` on the same weights."""
    import transformers

    other = qwen3_of(model.config).to(context.device, torch.bfloat16).eval()
    other.load_state_dict(model.state_dict(), strict=False)
    other.generation_config = transformers.GenerationConfig(
        max_new_tokens=new, min_new_tokens=new, do_sample=False, pad_token_id=0
    )
    rows = ids.to(context.device)

    def generate() -> int:
        with torch.no_grad():
            out = other.generate(rows, attention_mask=torch.ones_like(rows))
        return (out.shape[1] - rows.shape[1]) * rows.shape[0]

    return generate


def listen(tokens: collections.Counter[int], ended: threading.Semaphore, event: Any) -> None:
    """Count a token; tell when an answer is over. Called from the backend's thread only."""
    if event.token is not None:
        tokens[0] += 1
    if event.end is not None:
        ended.release()


def many_requests(context: Context, model: CausalLM, prompt: int, new: int) -> dict[str, Any]:
    """Return the speed of 64 requests at once through what the server runs."""
    from minimind.inference.batching import TorchBackend

    clients = context.choose(64, 4)
    backend = TorchBackend(model, slots=clients, prefill_tokens=2048)
    params = SamplingParams(temperature=0, repetition_penalty=1.0, max_new_tokens=new)
    speeds = []
    for _ in range(3):
        tokens: collections.Counter[int] = collections.Counter()
        ended = threading.Semaphore(0)
        started = time.perf_counter()
        for _ in range(clients):
            ids = torch.randint(16, model.config.vocab_size, (prompt,)).tolist()
            backend.submit(ids, params, functools.partial(listen, tokens, ended))
        for _ in range(clients):
            ended.acquire()
        if tokens.total() < clients * new:
            raise RuntimeError(f"{tokens.total()} of {clients * new} tokens: an answer failed")
        speeds.append(tokens.total() / (time.perf_counter() - started))
    backend.close()
    speed = spread(speeds[1:])
    return {"rows": clients, "system": "", "tok/s": speed["median"], "min": speed["min"],
            "max": speed["max"], "n": speed["n"]}  # fmt: skip
