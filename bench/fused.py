"""Products that share an input, apart and as one: does `train.fuse_projections` pay here?

    OMP_NUM_THREADS=1 python bench/fused.py [--presets nano 64m] [--device cpu] [--compile] [--json]

Forward and backward under bf16 autocast of one layer's queries, keys and values, and of its whole
feed-forward, each way in turns. On a CPU the clock is the processor's, which other work on the
machine hardly lengthens; give it one thread, since a waiting one counts as working.
`bench/train.py --variants plain fused` asks the same of whole steps.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any, Literal

import torch
import tyro
from torch import Tensor

from minimind.model import CausalLM
from minimind.model.layers import project_together
from minimind.settings import load_model_config
from train import OTHER_SHAPE, SHAPES


@dataclasses.dataclass(frozen=True, kw_only=True)
class Args:
    """What to measure."""

    presets: tuple[str, ...] = ("nano", "64m")
    rounds: int = 9
    device: Literal["cpu", "cuda"] = "cpu"
    compile: bool = False
    json: bool = False


def ways(layer: Any, *, compiled: bool) -> dict[str, dict[str, Callable[[Tensor], Tensor]]]:
    """Return what is compared, each apart and as one."""
    attention, mlp = layer.self_attn, layer.mlp

    def apart(x_BTD: Tensor) -> Tensor:
        return torch.cat([one(x_BTD) for one in attention.together], dim=-1)

    def as_one(x_BTD: Tensor) -> Tensor:
        return torch.cat(project_together(x_BTD, attention.together), dim=-1)

    def feed_forward(x_BTD: Tensor) -> Tensor:
        mlp.fused = False
        return mlp(x_BTD)

    def fused_feed_forward(x_BTD: Tensor) -> Tensor:
        mlp.fused = True
        return mlp(x_BTD)

    made = {"q k v": {"apart": apart, "as one": as_one},
            "feed-forward": {"apart": feed_forward, "as one": fused_feed_forward}}  # fmt: skip
    if compiled:
        return {what: {way: torch.compile(run, dynamic=False) for way, run in both.items()}
                for what, both in made.items()}  # fmt: skip
    return made


def milliseconds(run: Callable[[Tensor], Tensor], x_BTD: Tensor, device: str) -> float:
    """Return the time of forward and backward."""
    clock = time.process_time if device == "cpu" else time.perf_counter
    if device == "cuda":
        torch.cuda.synchronize()
    started = clock()
    with torch.autocast(device, torch.bfloat16):
        out = run(x_BTD)
    out.backward(torch.ones_like(out))
    if device == "cuda":
        torch.cuda.synchronize()
    return 1e3 * (clock() - started)


def measure(args: Args, preset: str) -> list[dict[str, Any]]:
    """Return a row for each pair of ways."""
    torch.manual_seed(0)
    config = load_model_config(preset)
    rows, length, _ = SHAPES.get(preset, OTHER_SHAPE)
    rows *= 8 if args.device == "cuda" else 1
    one_layer = dataclasses.replace(config, num_hidden_layers=1, layer_types=None)
    layer = CausalLM(one_layer).to(args.device).train().model.layers[0]
    shape = (rows, length, config.hidden_size)
    x_BTD = torch.randn(shape, device=args.device, dtype=torch.bfloat16, requires_grad=True)
    found = []
    for what, both in ways(layer, compiled=args.compile).items():
        for run in both.values():
            milliseconds(run, x_BTD, args.device)
        taken: dict[str, list[float]] = {way: [] for way in both}
        for _ in range(args.rounds):
            for way, run in both.items():
                taken[way].append(milliseconds(run, x_BTD, args.device))
        pairs = zip(taken["apart"], taken["as one"], strict=True)
        ratios = sorted(apart / as_one for apart, as_one in pairs)
        found.append({
            "preset": preset, "what": what, "n": args.rounds, "ratio": statistics.median(ratios),
            "lowest": ratios[0], "highest": ratios[-1],
            **{f"{way} ms": statistics.median(times) for way, times in taken.items()},
        })  # fmt: skip
        print(json.dumps(found[-1]), file=sys.stderr)
    return found


def main() -> None:
    args = tyro.cli(Args, description=__doc__)
    rows = [row for preset in args.presets for row in measure(args, preset)]
    if args.json:
        print(json.dumps({**dataclasses.asdict(args), "rows": rows}, indent=1))
        return
    for row in rows:
        print(
            f"{row['preset']:>9} {row['what']:>13}: apart {row['apart ms']:.2f} ms, as one "
            f"{row['as one ms']:.2f} ms, x{row['ratio']:.3f} ({row['lowest']:.3f}-"
            f"{row['highest']:.3f}, n = {row['n']})"
        )


if __name__ == "__main__":
    main()
