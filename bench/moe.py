"""What a mixture of experts costs beside a dense model of the same active size, and beside loops.

    python bench/moe.py                       the preset moe, its dense twin, two loops over experts
    python bench/moe.py --shape small         the shapes of `bench/recipe.py --compare moe`
    python bench/moe.py --shape fine          as many weights in 64 experts of 64, eight a token
    python bench/moe.py --compile             moe and dense compiled, as training has them
    python bench/moe.py --block               one layer's feed-forward alone, without a model
    python bench/moe.py --block --forward     without backward
    python bench/moe.py --clock cpu --threads 1    on a machine that others use

A unit of work is one micro-batch forward and backward with its loss: what a step of many
micro-batches is made of. All arms have the same weights, live in one process and take turns; the
median turn of each counts. Arms:

    moe       the preset: 8 experts of 512, two a token
    dense     one feed-forward as wide as the two: the same products for every token
    loop      transformers' own experts of Qwen3-MoE, its eager way: a Python loop that picks an
              expert's tokens, computes, and adds back
    masks     the loop of the original project's training: rows repeated once a choice, and for each
              expert, a module of its own, a boolean mask that picks rows and puts results
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
import tyro
from torch import Tensor, nn

from expert_loops import LOOPS, replace_experts
from minimind.cli.huge_pages import restart_with_huge_pages
from minimind.config import ModelConfig
from minimind.data.batch import Batch
from minimind.model import CausalLM
from minimind.settings import load_model_config
from minimind.train.device import AUTOCAST_DTYPE, has_fast_bf16
from minimind.train.objective import Loss, NextToken


@dataclass(frozen=True, kw_only=True)
class Args:
    """What to time."""

    shape: Literal["moe", "small", "fine"] = "moe"
    arms: tuple[str, ...] = ()
    """Default: moe, dense, loop, masks; for `small` the arms of the comparison, and both loops."""
    block: bool = False
    forward: bool = False
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    rows: int = 4
    length: int = 512
    turns: int = 5
    steps: int = 1
    """Micro-batches in a turn."""
    layers: int | None = None
    """Fewer than the preset's, to compile sooner."""
    compile: bool = False
    clock: Literal["wall", "cpu"] = "wall"
    """`cpu`: seconds that this process was computing, of all threads."""
    threads: int | None = None
    json: bool = False


def configs(shape: str) -> dict[str, ModelConfig]:
    """Return the model of each arm."""
    if shape == "small":
        from recipe_arms import EXPERT_SHAPES

        base = replace(load_model_config("nano"), vocab_size=6144)
        names = ("moe", "dense-26m", "dense-64m")
        shapes = {name: replace(base, **EXPERT_SHAPES[name]) for name in names}
        return shapes | dict.fromkeys(LOOPS, shapes["moe"])
    mixture = load_model_config("moe")
    assert mixture.moe is not None
    active = mixture.moe.num_experts_per_tok * mixture.moe.moe_intermediate_size
    dense = replace(mixture, moe=None, intermediate_size=active)
    if shape == "fine":
        many = replace(mixture.moe, num_experts=64, num_experts_per_tok=8, moe_intermediate_size=64)
        dense = replace(dense, intermediate_size=8 * 64)
        mixture = replace(mixture, moe=many)
    return {"moe": mixture, "dense": dense, **dict.fromkeys(LOOPS, mixture)}


def build(name: str, config: ModelConfig, *, block: bool) -> Any:
    """Return an arm's model, or one feed-forward of it."""
    torch.manual_seed(0)
    model: nn.Module = CausalLM(config).train()
    if block:
        model = nn.ModuleDict({"mlp": model.get_submodule("model.layers.0.mlp")})
    if name in LOOPS:
        replace_experts(model, config, LOOPS[name])
    return model


def block_loss(model: nn.Module, x_BTD: Tensor) -> Loss:
    """Return a loss of one feed-forward, in an objective's place."""
    y_BTD = model.get_submodule("mlp")(x_BTD)
    return Loss(sum=y_BTD.float().square().sum(), count=torch.ones(()))


def make_step(name: str, config: ModelConfig, args: Args) -> Callable[[], None]:
    """Return what does one micro-batch of an arm."""
    model = build(name, config, block=args.block)
    torch.manual_seed(1)
    ids = torch.randint(config.vocab_size, (args.rows, args.length))
    batch: Any = Batch(input_ids=ids, labels=ids.roll(-1, 1))
    if args.block:
        batch = torch.randn(args.rows, args.length, config.hidden_size, requires_grad=True)
    bf16 = args.precision == "bf16" or (
        args.precision == "auto" and has_fast_bf16(torch.device("cpu"))
    )

    loss_of: Any = block_loss if args.block else NextToken()
    if args.compile and name not in LOOPS:
        loss_of = torch.compile(loss_of, dynamic=False)

    def step() -> None:
        autocast = torch.autocast("cpu", dtype=AUTOCAST_DTYPE["bf16"], enabled=bf16)
        if args.forward:
            with torch.no_grad(), autocast:
                loss_of(model, batch)
            return
        with autocast:
            loss = loss_of(model, batch)
        loss.sum.backward()
        model.zero_grad()

    return step


def measure(args: Args) -> dict[str, list[float]]:
    """Return tokens/s of each arm, turn by turn; a first turn isn't counted."""
    shapes = configs(args.shape)
    if args.layers is not None:
        shapes = {n: replace(one, num_hidden_layers=args.layers) for n, one in shapes.items()}
    clock = time.perf_counter if args.clock == "wall" else time.process_time
    arms = args.arms or tuple(shapes)
    steps = {name: make_step(name, shapes[name], args) for name in arms}
    for step in steps.values():
        step()
        step()
    rates: dict[str, list[float]] = {name: [] for name in arms}
    for _ in range(args.turns):
        for name, step in steps.items():
            started = clock()
            for _ in range(args.steps):
                step()
            rates[name].append(args.steps * args.rows * args.length / (clock() - started))
    return rates


def main() -> None:
    restart_with_huge_pages()  # as the verbs that train do
    args = tyro.cli(Args, description=__doc__)
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    rates = measure(args)
    if args.json:
        print(json.dumps(rates))
        return
    first = next(iter(rates))
    for name, turns in rates.items():
        middle = statistics.median(turns)
        ratios = sorted(a / b for a, b in zip(rates[first], turns, strict=True))
        print(
            f"{name:10} {middle:10,.0f} tokens/s ({min(turns):,.0f}-{max(turns):,.0f}, "
            f"n {len(turns)})   {first} is {statistics.median(ratios):.2f}x "
            f"({ratios[0]:.2f}-{ratios[-1]:.2f})"
        )


if __name__ == "__main__":
    main()
