"""Where a training step's time goes: FLOPs, bytes, the bound and the measured time of each part.

    python bench/roofline.py [--preset 64m] [--rows 4] [--length 512] [--device cpu] [--json]
    python bench/roofline.py --preset nano --rows 16 --length 256 --clock cpu    one that others use

Each part runs forward and backward by itself, compiled as the step compiles it, in bf16 autocast;
its bound is the longer of its FLOPs at the machine's measured matrix rate and its bytes at the
measured copy rate. Beside it the time of its bare bf16 products at their own shapes, which may be
far from the rate of a large square one. The whole step is measured in the same turns: what the
parts don't add up to is launches, the casts between parts, and what fusing saves.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
import time
from collections.abc import Callable
from typing import Any, Literal

import torch
import tyro
from torch import Tensor, nn

from minimind.config import ModelConfig, OptimConfig, TrainConfig
from minimind.data.batch import Batch
from minimind.doctor.timing import MATRIX_SIZE
from minimind.model import CausalLM, linear_cross_entropy
from minimind.model.accounting import count_parameters, training_flops_per_token
from minimind.model.attention import attend, build_masks, choose_backend
from minimind.model.rope import rotary_tables
from minimind.settings import load_model_config
from minimind.train import NextToken, Trainer, build_optimizer, build_schedule
from products import bare
from roofline_report import show

BF16, FP32 = 2, 4


@dataclasses.dataclass(frozen=True, kw_only=True)
class Args:
    """What to measure."""

    preset: str = "64m"
    rows: int = 4
    """Of the micro-batch, which is the whole step here."""
    length: int = 512
    device: Literal["cpu", "cuda"] = "cpu"
    optimizer: Literal["muon", "adamw"] = "muon"
    rounds: int = 5
    clock: Literal["wall", "cpu"] = "wall"
    """`cpu`: seconds of the processor, all threads: with one thread, what others take away doesn't
    count."""
    compile: bool = True
    json: bool = False


@dataclasses.dataclass(kw_only=True)
class Part:
    """A part of a step.

    Attributes:
        name: in words.
        times: how often a step does it.
        flops: of matrix products, forward and backward, each time.
        bytes: that must be read and written each time.
        run: does it once.
        bare: does its products alone; None: it has none, or they are the optimizer's.
        seconds: of each round.
        bare_seconds: of its products alone.
    """

    name: str
    times: int
    flops: float
    bytes: float
    run: Callable[[], object]
    bare: Callable[[], object] | None = None
    seconds: list[float] = dataclasses.field(default_factory=list)
    bare_seconds: list[float] = dataclasses.field(default_factory=list)


class _Core(nn.Module):
    """Attention without its matrices: rotation, scores, mixing."""

    def __init__(self, config: ModelConfig, length: int, device: str, *, compiled: bool) -> None:
        super().__init__()
        position = torch.arange(length, device=device)[None]
        self.cos, self.sin = rotary_tables(config, position)
        backend = "eager" if compiled and device == "cpu" else choose_backend(
            "auto", device=torch.device(device), needs_blocks=False, needs_grad=True, T=length
        )  # fmt: skip
        self.mask = build_masks(
            backend, windows={None}, T=length, device=torch.device(device), document_ids_BT=None
        )[None]

    def forward(self, q_BHTK: Tensor, k_BGSK: Tensor, v_BGSK: Tensor) -> Tensor:
        from minimind.model.rope import rotate

        q_BHTK, k_BGSK = rotate(q_BHTK, self.cos, self.sin), rotate(k_BGSK, self.cos, self.sin)
        return attend(q_BHTK, k_BGSK, v_BGSK, self.mask)


def both_ways(
    module: Callable[..., Tensor], inputs: list[Tensor], device: str
) -> Callable[[], None]:
    """Return forward and backward through `module` under bf16 autocast."""
    parameters = list(module.parameters()) if isinstance(module, nn.Module) else []

    def run() -> None:
        for tensor in (*inputs, *parameters):
            tensor.grad = None
        with torch.autocast(device, torch.bfloat16):
            out = module(*inputs)
        out.backward(torch.ones_like(out))

    return run


def parts(args: Args, model: CausalLM, trainer: Trainer) -> list[Part]:
    """Return the parts of a step of `model`."""
    config, device = model.config, args.device
    N, D, L = args.rows * args.length, config.hidden_size, config.num_hidden_layers
    H, G, K = config.num_attention_heads, config.num_key_value_heads, config.head_dim
    F, V = config.intermediate_size, config.vocab_size
    layer: Any = model.model.layers[0]

    def compiled(what: Callable[..., Tensor]) -> Callable[..., Tensor]:
        return torch.compile(what, dynamic=False) if args.compile else what

    def random(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.randn(shape, device=device, dtype=dtype, requires_grad=True)

    x_BTD = random(args.rows, args.length, D)
    half_BTD = random(args.rows, args.length, D, dtype=torch.bfloat16)
    attention = layer.self_attn

    def projections(x: Tensor) -> Tensor:
        q, k, v = attention.q_proj(x), attention.k_proj(x), attention.v_proj(x)
        return attention.o_proj(q) + 0 * (k.sum() + v.sum())

    heads = [random(args.rows, n, args.length, K, dtype=torch.bfloat16) for n in (H, G, G)]
    labels_N = torch.randint(0, V, (N,), device=device)

    def loss(hidden_ND: Tensor, weight_VD: Tensor) -> Tensor:
        return linear_cross_entropy(hidden_ND, weight_VD, labels_N, chunk=1024)[0]

    hidden_ND, weight_VD = random(N, D, dtype=torch.bfloat16), random(V, D)
    own, muon = parameters_of(model), args.optimizer == "muon"
    matrices = 2 * D * (H * K) + 2 * D * (G * K)
    optimizer = trainer.optimizer
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)

    def update() -> None:
        for part in optimizer.parts:
            part.step()

    # Each product is read and written once forward and twice backward; weights in bf16 thrice.
    return [
        Part(name="q k v o products", times=L, flops=6 * N * matrices,
             bytes=3 * BF16 * (N * (3 * D + (H + 2 * G) * K + H * K) + matrices) + FP32 * matrices,
             run=both_ways(compiled(projections), [half_BTD], device),
             bare=bare([(1, N, D, H * K), *2 * [(1, N, D, G * K)], (1, N, H * K, D)], device)),
        Part(name="attention itself", times=L, flops=12 * args.rows * H * K * args.length**2,
             bytes=3 * BF16 * N * (2 * H + 2 * G) * K,
             run=both_ways(compiled(_Core(config, args.length, device, compiled=args.compile)),
                           heads, device),
             bare=bare([(args.rows * H, args.length, K, args.length),
                        (args.rows * H, args.length, args.length, K)], device)),
        Part(name="feed-forward", times=L, flops=18 * N * D * F,
             bytes=3 * BF16 * (N * (2 * D + 4 * F) + 3 * D * F) + FP32 * 3 * D * F,
             run=both_ways(compiled(layer.mlp), [half_BTD], device),
             bare=bare([*2 * [(1, N, D, F)], (1, N, F, D)], device)),
        Part(name="norms and residual", times=2 * L + 1, flops=0,
             bytes=3 * N * D * (FP32 + BF16),
             run=both_ways(compiled(layer.input_layernorm), [x_BTD], device)),
        Part(name="output and loss", times=1, flops=6 * N * D * V,
             bytes=3 * BF16 * (N * D + V * D) + 2 * (FP32 + BF16) * N * V + FP32 * V * D,
             run=both_ways(compiled(loss), [hidden_ND, weight_VD], device),
             bare=bare([(1, N, D, V)], device)),
        Part(name="update (Muon + AdamW)" if muon else "update (AdamW)", times=1,
             flops=muon_flops(model) if muon else 0,
             bytes=FP32 * ((5 if muon else 7) * own["matrices"] + 7 * own["others"]), run=update),
    ]  # fmt: skip


def parameters_of(model: CausalLM) -> dict[str, int]:
    """Return how many parameters Muon and AdamW train."""
    counted = count_parameters(model.config)
    return {"matrices": counted.hidden_matrices, "others": counted.total - counted.hidden_matrices}


def muon_flops(model: CausalLM) -> float:
    """Return the FLOPs of five Newton-Schulz iterations for every hidden matrix."""
    total = 0.0
    for name, weight in model.named_parameters():
        if weight.ndim == 2 and "embed" not in name and "lm_head" not in name:
            short, long = sorted(weight.shape)
            total += 5 * (2 * short * short * long + 2 * short**3 + 2 * short * short * long)
    return total


def timed(run: Callable[[], object], args: Args) -> float:
    """Return the seconds of one call."""
    clock = time.perf_counter if args.clock == "wall" else time.process_time
    if args.device == "cuda":
        torch.cuda.synchronize()
    started = clock()
    run()
    if args.device == "cuda":
        torch.cuda.synchronize()
    return clock() - started


def matrix_rate(args: Args) -> float:
    """Return the FLOP/s of a large square product in bf16, the best of a few."""
    size = MATRIX_SIZE[args.device]
    left, right = torch.randn(2, size, size, device=args.device).bfloat16()
    return 2 * size**3 / min(timed(lambda: left @ right, args) for _ in range(10))


def copy_rate(args: Args) -> float:
    """Return bytes read and written a second, the best of a few copies."""
    source = torch.randn(2**26 if args.device == "cpu" else 2**30, device=args.device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / min(timed(lambda: target.copy_(source), args) for _ in range(5))


def measure(args: Args) -> dict[str, Any]:
    """Let all parts and the whole step take turns; return the report."""
    torch.manual_seed(0)
    config = load_model_config(args.preset)
    model = CausalLM(config).to(args.device)
    optim = OptimConfig(kind=args.optimizer, schedule="constant")
    trainer = Trainer(
        model=model, objective=NextToken(), optimizer=build_optimizer(model, optim),
        schedule=build_schedule(optim, steps=1000),
        config=TrainConfig(precision="bf16", compile=args.compile), steps=1000,
    )  # fmt: skip
    ids = torch.randint(16, config.vocab_size, (args.rows, args.length + 1))
    batch = Batch(input_ids=ids[:, :-1], labels=ids[:, 1:])
    pieces = parts(args, model, trainer)
    for piece in pieces:
        for run in (piece.run, piece.bare or piece.run) * 2:
            run()
    trainer.train_step([batch])
    trainer.train_step([batch])
    rates, copies, whole = [], [], []
    for _ in range(args.rounds):
        rates.append(matrix_rate(args))
        copies.append(copy_rate(args))
        whole.append(timed(lambda: trainer.train_step([batch]), args))
        for parameter in model.parameters():
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        for piece in pieces:
            piece.seconds.append(timed(piece.run, args))
            if piece.bare is not None:
                piece.bare_seconds.append(timed(piece.bare, args))
    rate, copy = statistics.median(rates), statistics.median(copies)
    rows = []
    for piece in pieces:
        bound = piece.times * max(piece.flops / rate, piece.bytes / copy)
        seconds = piece.times * statistics.median(piece.seconds)
        alone = 1e3 * piece.times * statistics.median(piece.bare_seconds) if piece.bare else None
        rows.append({
            "part": piece.name, "times": piece.times, "gflops": piece.times * piece.flops / 1e9,
            "mb": piece.times * piece.bytes / 1e6, "bound_ms": 1e3 * bound,
            "products_alone_ms": alone, "measured_ms": 1e3 * seconds, "of_bound": bound / seconds,
            "limited_by": "arithmetic" if piece.flops / rate > piece.bytes / copy else "memory",
        })  # fmt: skip
    step = statistics.median(whole)
    flops = training_flops_per_token(config, sequence_length=args.length)
    return {
        **dataclasses.asdict(args), "matrix_flops": rate, "copy_bytes": copy, "step_ms": 1e3 * step,
        "step_spread_ms": [1e3 * min(whole), 1e3 * max(whole)],
        "parts_ms": sum(row["measured_ms"] for row in rows),
        "tokens_per_second": args.rows * args.length / step,
        "of_matrix_rate": args.rows * args.length * flops / step / rate, "parts": rows,
    }  # fmt: skip


def main() -> None:
    args = tyro.cli(Args, description=__doc__)
    report = measure(args)
    print(json.dumps(report, indent=1)) if args.json else show(report)


if __name__ == "__main__":
    main()
