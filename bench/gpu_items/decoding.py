"""Item 6: decoding speed, from one row to hundreds."""

from __future__ import annotations

import collections
import functools
import threading
import time
from typing import Any

import torch

from gpu_items.ceilings import read_rate
from gpu_items.common import Context, Item, free, installed, spread
from minimind.inference.engine import Engine
from minimind.inference.sampling import SamplingParams
from minimind.model import CausalLM
from minimind.settings import load_model_config
from steps import qwen3_of

ROWS = (1, 8, 32, 128, 512)
PROMPT, NEW = 128, 256


def run(context: Context) -> Item:
    """Measure whole answers, greedy, in bf16: the engine plain and with graphs, transformers."""
    preset = context.choose("64m", "nano")
    prompt, new = context.choose((PROMPT, NEW), (8, 16))
    rate = read_rate(context)
    config = load_model_config(preset)
    torch.manual_seed(0)
    model = CausalLM(config).to(context.device, torch.bfloat16).eval()
    weights = sum(parameter.nbytes for parameter in model.parameters())
    rows: list[dict[str, Any]] = []
    for count in context.choose(ROWS, (1, 4)):
        for system in ("graphs", "plain", "transformers"):
            name = f"{count} rows, {system}"
            if not context.has(25, name):
                continue
            if system == "transformers" and not installed("transformers"):
                context.left_out.append(f"{name} (not installed)")
                continue
            model.set_compiled_decoding(on=system == "graphs" and context.device == "cuda")
            speeds = answers(context, model, system, count, prompt, new)
            # Each step reads the weights, and of every row the keys and values so far.
            row = 2 * config.num_key_value_heads * config.head_dim * 2 * config.num_hidden_layers
            step_bytes = weights + count * row * (prompt + new / 2)
            rows.append({
                "rows": count, "system": system, "tok/s": speeds["median"], "min": speeds["min"],
                "max": speeds["max"], "n": speeds["n"],
                "of bound": speeds["median"] / count * step_bytes / rate,
            })  # fmt: skip
    if context.has(30, "64 requests at once through the server's backend"):
        model.set_compiled_decoding(on=context.device == "cuda")
        rows.append(many_requests(context, model, prompt, new))
    free(context.device)
    remarks = [f"memory moves {rate / 1e9:,.0f} GB/s (copy, read + written), {preset} bf16; the "
               "bars: 1,000 tokens/s alone, 100,000 with 128 rows"]  # fmt: skip
    return Item(rows=rows, figures={"bytes_per_second": rate}, remarks=remarks)


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
        speeds.append(tokens.total() / (time.perf_counter() - started))
    backend.close()
    speed = spread(speeds[1:])
    return {"rows": clients, "system": "server's backend", "tok/s": speed["median"],
            "min": speed["min"], "max": speed["max"], "n": speed["n"]}  # fmt: skip
