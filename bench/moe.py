"""What a mixture of experts costs beside a dense model of the same active size, and beside a loop.

    python bench/moe.py                       the presets moe, its dense twin, a loop over experts
    python bench/moe.py --shape small         the shapes of `bench/recipe.py --compare moe`
    python bench/moe.py --shape fine          as many weights in 64 experts of 64, eight a token
    python bench/moe.py --compile             the same, compiled
    python bench/moe.py --clock cpu --threads 1    on a machine that others use

A unit of work is one micro-batch forward and backward with its loss: what a step of many
micro-batches is made of. All arms live in one process and take turns; the best turn of each counts,
so that what else the machine does matters least. Arms:

    moe     the preset: 8 experts of 512, two a token
    dense   one feed-forward as wide as the two: the same products for every token
    loop    the mixture with its experts in a Python loop: pick its tokens, compute, add back
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch
import tyro
from torch import Tensor, nn
from torch.nn import functional as F

from minimind.config import ModelConfig
from minimind.data.batch import Batch
from minimind.model import CausalLM
from minimind.model.layers import replace_module
from minimind.model.moe import Experts
from minimind.settings import load_model_config
from minimind.train.device import AUTOCAST_DTYPE, has_fast_bf16
from minimind.train.objective import NextToken


@dataclass(frozen=True, kw_only=True)
class Args:
    """What to time."""

    shape: Literal["moe", "small", "fine"] = "moe"
    arms: tuple[str, ...] = ()
    """Default: moe, dense and loop; for `small` the arms of the comparison, and loop."""
    rows: int = 4
    length: int = 512
    turns: int = 3
    steps: int = 1
    """Micro-batches in a turn."""
    layers: int | None = None
    """Fewer than the preset's, to compile sooner."""
    compile: bool = False
    clock: Literal["wall", "cpu"] = "wall"
    """`cpu`: seconds that this process was computing, of all threads."""
    threads: int | None = None
    json: bool = False


class LoopExperts(nn.Module):
    """The same experts, one after the other: pick its tokens, three products, add back."""

    def __init__(self, experts: Experts) -> None:
        super().__init__()
        self.gate_proj, self.up_proj = experts.gate_proj, experts.up_proj
        self.down_proj = experts.down_proj

    def forward(self, x_ND: Tensor, chosen_NC: Tensor, weights_NC: Tensor) -> Tensor:
        """Return (N, D)."""
        out_ND = torch.zeros_like(x_ND)
        for number in range(self.gate_proj.shape[0]):
            token_n, choice_n = (chosen_NC == number).nonzero(as_tuple=True)
            x_nD = x_ND[token_n]
            gate_nF = F.silu(F.linear(x_nD, self.gate_proj[number]))
            y_nD = F.linear(gate_nF * F.linear(x_nD, self.up_proj[number]), self.down_proj[number])
            weighted_nD = y_nD * weights_NC[token_n, choice_n, None]
            out_ND = out_ND.index_add(0, token_n, weighted_nD.to(out_ND.dtype))
        return out_ND


def configs(shape: str) -> dict[str, ModelConfig]:
    """Return the model of each arm."""
    if shape == "small":
        from recipe import EXPERT_SHAPES

        base = replace(load_model_config("nano"), vocab_size=4096)
        names = ("moe", "dense-26m", "dense-64m")
        shapes = {name: replace(base, **EXPERT_SHAPES[name]) for name in names}
        return shapes | {"loop": shapes["moe"]}
    mixture = load_model_config("moe")
    assert mixture.moe is not None
    active = mixture.moe.num_experts_per_tok * mixture.moe.moe_intermediate_size
    dense = replace(mixture, moe=None, intermediate_size=active)
    if shape == "fine":
        many = replace(mixture.moe, num_experts=64, num_experts_per_tok=8, moe_intermediate_size=64)
        dense = replace(dense, intermediate_size=8 * 64)
        mixture = replace(mixture, moe=many)
    return {"moe": mixture, "dense": dense, "loop": mixture}


def make_step(name: str, config: ModelConfig, args: Args) -> Callable[[], None]:
    """Return what does one micro-batch of an arm."""
    torch.manual_seed(0)
    model = CausalLM(config).train()
    if name == "loop":
        for path, module in list(model.named_modules()):
            if isinstance(module, Experts):
                replace_module(model, path, LoopExperts(module))
    ids = torch.randint(config.vocab_size, (args.rows, args.length))
    batch = Batch(input_ids=ids, labels=ids.roll(-1, 1))
    device = torch.device("cpu")
    dtype = AUTOCAST_DTYPE["bf16"] if has_fast_bf16(device) else None
    objective = torch.compile(NextToken(), dynamic=False) if args.compile else NextToken()

    def step() -> None:
        with torch.autocast("cpu", dtype=dtype, enabled=dtype is not None):
            loss = objective(model, batch)
        loss.sum.backward()
        model.zero_grad()

    return step


def measure(args: Args) -> dict[str, float]:
    """Return tokens/s of each arm: its best turn."""
    shapes = configs(args.shape)
    if args.layers is not None:
        shapes = {n: replace(one, num_hidden_layers=args.layers) for n, one in shapes.items()}
    clock = time.perf_counter if args.clock == "wall" else time.process_time
    arms = args.arms or tuple(shapes)
    steps = {name: make_step(name, shapes[name], args) for name in arms}
    for step in steps.values():
        step()
    best = dict.fromkeys(arms, 0.0)
    for _ in range(args.turns):
        for name, step in steps.items():
            started = clock()
            for _ in range(args.steps):
                step()
            rate = args.steps * args.rows * args.length / (clock() - started)
            best[name] = max(best[name], rate)
    return best


def main() -> None:
    args = tyro.cli(Args, description=__doc__)
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    rates = measure(args)
    if args.json:
        print(json.dumps(rates))
        return
    first = next(iter(rates))
    for name, rate in rates.items():
        print(
            f"{name:10} {rate:10,.0f} tokens/s   {rates[first]:,.0f} is {rates[first] / rate:.2f}x"
        )


if __name__ == "__main__":
    main()
