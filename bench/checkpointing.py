"""Gradient checkpointing per layer: the memory that it saves and the time that it costs.

    python bench/checkpointing.py [--preset 64m] [--layers none 0,2,4,6 all] [--json]

Each setting runs in a process of its own, because a process' peak memory never goes down.
`saved` is what autograd holds between forward and backward (weights and their bf16 copies left
out): exact, the same on every machine. `peak` is the resident memory of the process.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time

import torch

from minimind.model import CausalLM, linear_cross_entropy
from minimind.settings import load_model_config


def measure(preset: str, *, layers: str, rows: int, length: int, steps: int) -> dict[str, float]:
    """Train `steps` steps of random tokens in bf16 autocast and return the figures."""
    torch.manual_seed(0)
    config = load_model_config(preset)
    model = CausalLM(config)
    model.set_gradient_checkpointing(layers)
    ids_BT = torch.randint(config.vocab_size, (rows, length))
    kept: dict[int, int] = {}
    weights = {tuple(p.shape) for p in model.parameters()}

    def pack(x: torch.Tensor) -> torch.Tensor:
        if (
            tuple(x.shape) not in weights
            and tuple(x.T.shape if x.dim() == 2 else ()) not in weights
        ):
            kept[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    def step() -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            hidden_ND = model(ids_BT, logits="none").hidden_BTD.flatten(0, 1)
            total, count = linear_cross_entropy(hidden_ND, model.output_weight, ids_BT.flatten())
        return total / count

    seconds = []
    for _ in range(steps):
        begin = time.perf_counter()
        step().backward()
        seconds.append(time.perf_counter() - begin)
        model.zero_grad(set_to_none=True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        loss = step()
    gradient = torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()))])
    return {
        "saved_mb": sum(kept.values()) / 1e6,
        "peak_mb": peak * 1024 / 1e6,
        "seconds": statistics.median(seconds),
        "gradient_norm": gradient.norm().item(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="gradient checkpointing per layer")
    parser.add_argument("--preset", default="64m")
    parser.add_argument("--layers", nargs="+", default=["none", "0,2,4,6", "all"])
    parser.add_argument("--rows", type=int, default=4)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        (layers,) = args.layers
        figures = measure(
            args.preset, layers=layers, rows=args.rows, length=args.length, steps=args.steps
        )
        print(json.dumps(figures))
        return
    results = {}
    for layers in args.layers:
        command = [
            sys.executable, __file__, "--worker", "--preset", args.preset, "--layers", layers,
            "--rows", str(args.rows), "--length", str(args.length), "--steps", str(args.steps),
        ]  # fmt: skip
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        results[layers] = json.loads(done.stdout)
    if args.json:
        print(json.dumps(results, indent=2))
        return
    print(f"{args.preset}, {args.rows} x {args.length} tokens, bf16 autocast, eager")
    print(f"{'layers':>10} {'saved MB':>9} {'peak MB':>8} {'s/step':>7} {'gradient norm':>14}")
    for layers, row in results.items():
        print(
            f"{layers:>10} {row['saved_mb']:>9.0f} {row['peak_mb']:>8.0f} {row['seconds']:>7.2f} "
            f"{row['gradient_norm']:>14.6f}"
        )


if __name__ == "__main__":
    main()
