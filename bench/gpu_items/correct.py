"""Item 1: the same answers on CUDA as elsewhere, within stated tolerances."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gpu_items.common import Context, free, installed
from minimind.config import ModelConfig, OptimConfig, TrainConfig
from minimind.data.batch import Batch
from minimind.errors import ConfigError
from minimind.model import CausalLM
from minimind.model.graphs import GraphStep
from minimind.model.grouped import grouped_product
from minimind.train import NextToken, Trainer, build_optimizer, build_schedule
from steps import qwen3_of

BENCH = Path(__file__).resolve().parent.parent

SHAPE = ModelConfig(
    vocab_size=1024, hidden_size=256, num_hidden_layers=4, num_attention_heads=4,
    num_key_value_heads=2, head_dim=64, intermediate_size=768, max_position_embeddings=512,
)  # fmt: skip


def run(context: Context) -> None:
    """Run every check; one that breaks is a failure of its own, not of the others."""
    torch.backends.cuda.matmul.allow_tf32 = False
    checks: list[Callable[[Context], Iterable[dict[str, Any]]]] = [
        parity, boundaries, compiled, precisions, golden, experts, decoding, resume,
    ]  # fmt: skip
    for check in checks:
        if not context.has(20, check.__name__):
            continue
        try:
            for line in check(context):
                context.add(line)
        # Whatever breaks is the finding.
        except Exception as error:
            context.broke(check.__name__, error)
            context.add({"check": check.__name__, "verdict": "FAILED",
                         "note": f"{type(error).__name__}: {error}"[:160]})  # fmt: skip
        free(context.device)


def row(check: str, measured: float, allowed: float, note: str = "") -> dict[str, Any]:
    """Return a line of the table; not a number is a failure."""
    verdict = "ok" if measured <= allowed else "FAILED"
    return {"check": check, "measured": measured, "allowed": allowed, "verdict": verdict,
            "note": note}  # fmt: skip


def tokens(rows: int, length: int, *, seed: int = 0) -> Tensor:
    """Return random ids, (rows, length)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(16, SHAPE.vocab_size, (rows, length), generator=generator)


def model_on(device: str, *, config: ModelConfig = SHAPE) -> CausalLM:
    """Return the same random model each time."""
    torch.manual_seed(0)
    return CausalLM(config).to(device)


def parity(context: Context) -> list[dict[str, Any]]:
    """Logits beside transformers' Qwen3 with the same weights."""
    if not installed("transformers"):
        context.left_out.append("parity with transformers (not installed)")
        return []
    ours = model_on(context.device).eval()
    theirs = qwen3_of(SHAPE).to(context.device).eval()
    theirs.load_state_dict(ours.state_dict(), strict=False)
    ids = tokens(4, 256).to(context.device)
    rows = []
    for dtype, allowed in ((torch.float32, 1e-3), (torch.bfloat16, 0.15)):
        a, b = ours.to(dtype), theirs.to(dtype)
        with torch.no_grad():
            difference = (a(ids).logits.float() - b(input_ids=ids).logits.float()).abs().max()
        rows.append(row(f"transformers, {str(dtype).removeprefix('torch.')}", difference.item(),
                        allowed, "largest difference of logits"))  # fmt: skip
    return rows


def boundaries(context: Context) -> list[dict[str, Any]]:
    """A packed row with document boundaries against its documents in rows of their own."""
    lengths = [100, 28, 1, 127]
    ids = tokens(1, 256).to(context.device)
    document = torch.repeat_interleave(torch.arange(4), torch.tensor(lengths))[None]
    position = torch.cat([torch.arange(length) for length in lengths])[None]
    document, position = document.to(context.device), position.to(context.device)
    rows = []
    for backend in ("sdpa", "flex", "eager", "flash"):
        half = backend == "flash"
        model = model_on(context.device).eval()
        model = model.bfloat16() if half else model
        try:
            model.set_attention(backend)
            with torch.no_grad():
                packed = model(ids, position_ids=position, document_ids=document).logits.float()
                apart = [model(part).logits.float() for part in ids.split(lengths, dim=1)]
        except ConfigError as error:
            context.left_out.append(f"boundaries, {backend}: {error}"[:140])
            continue
        difference = (packed - torch.cat(apart, dim=1)).abs().max().item()
        rows.append(row(f"packed = apart, {backend}", difference, 0.1 if half else 1e-3,
                        "bf16" if half else "fp32"))  # fmt: skip
    return rows


def trainer(context: Context, **settings: Any) -> Trainer:
    """Return a trainer of the small model; `settings` are TrainConfig's."""
    model = model_on(context.device)
    optim = OptimConfig(lr=2e-3, muon_lr=0.02, schedule="constant", warmup_share=0.0)
    config = TrainConfig(**{"precision": "fp32", "compile": False, **settings})
    model.set_attention(config.attention)
    return Trainer(
        model=model, objective=NextToken(), optimizer=build_optimizer(model, optim),
        schedule=build_schedule(optim, steps=100), config=config, steps=100,
    )  # fmt: skip


def batches(number: int, *, documents: bool = False) -> list[Batch]:
    """Return learnable batches: each row counts upwards from a random start."""
    made = []
    for seed in range(number):
        start = tokens(8, 1, seed=seed)
        ids = 16 + (start + torch.arange(257)) % (SHAPE.vocab_size - 16)
        position = torch.arange(256).expand(8, -1)
        extra = {"position_ids": position % 64, "document_ids": position // 64}
        made.append(Batch(input_ids=ids[:, :-1], labels=ids[:, 1:], **extra if documents else {}))
    return made


def curve(trainer: Trainer, steps: list[Batch]) -> list[tuple[float, float]]:
    """Return loss and gradient norm of each step."""
    reports = [trainer.train_step([batch]) for batch in steps]
    return [(report.loss, report.grad_norm) for report in reports]


def largest(a: list[tuple[float, float]], b: list[tuple[float, float]]) -> float:
    """Return the largest relative difference of losses."""
    return max(abs(x[0] - y[0]) / abs(y[0]) for x, y in zip(a, b, strict=True))


def compiled(context: Context) -> list[dict[str, Any]]:
    """Compiled steps against eager ones, with and without document boundaries."""
    rows = []
    for documents in (False, True):
        steps = batches(5, documents=documents)
        eager = curve(trainer(context), steps)
        fast = curve(trainer(context, compile=True), steps)
        name = "with boundaries" if documents else "plain"
        rows.append(row(f"compiled = eager, {name}", largest(fast, eager), 2e-3,
                        "loss of 5 steps, relative"))  # fmt: skip
    return rows


def precisions(context: Context) -> list[dict[str, Any]]:
    """Steps in bf16 and fp16 (with its scaler) against fp32."""
    steps = batches(context.choose(20, 6))
    exact = curve(trainer(context), steps)
    return [
        row(f"{precision} = fp32", largest(curve(trainer(context, precision=precision), steps),
                                           exact), 0.03, f"loss of {len(steps)} steps, relative")
        for precision in ("bf16", "fp16") if precision == "bf16" or context.device == "cuda"
    ]  # fmt: skip


def golden(context: Context) -> list[dict[str, Any]]:
    """Twenty steps here against the same ones on the CPU."""
    steps = batches(context.choose(20, 6))
    here = curve(trainer(context), steps)
    on_cpu = dataclasses.replace(context, device="cpu")
    reference = trainer(on_cpu, device="cpu")
    return [row(f"{len(steps)} steps = the CPU's", largest(here, curve(reference, steps)), 5e-3,
                f"fp32; the last loss is {here[-1][0]:.4f}")]  # fmt: skip


def experts(context: Context) -> Iterator[dict[str, Any]]:
    """Products of groups of rows, one of them empty, and their gradients, against a loop."""
    ends = torch.tensor([37, 37, 64, 129, 200], dtype=torch.int32, device=context.device)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(200, 64, generator=generator).to(context.device)
    weights = torch.randn(5, 32, 64, generator=generator).to(context.device)
    both: list[Any] = [grouped_product, looped_product]
    for dtype, allowed in ((torch.bfloat16, 0.02), (torch.float32, 1e-5)):
        results = []
        for product in both:
            leaves = [one.to(dtype).requires_grad_() for one in (x, weights)]
            out = product(*leaves, ends)
            out.float().square().sum().backward()
            results.append([out, *(leaf.grad for leaf in leaves)])
        worst = max(((a - b).norm() / b.norm()).item() for a, b in zip(*results, strict=True))
        yield row(f"experts = a loop, {str(dtype).removeprefix('torch.')}", worst, allowed,
                  "grouped products and gradients, relative")  # fmt: skip


def looped_product(x: Tensor, weights: Tensor, ends: Tensor) -> Tensor:
    """Return what `grouped_product` is to return, group by group."""
    begins = [0, *ends.tolist()]
    parts = [
        x[begin:end] @ weight.T
        for begin, end, weight in zip(begins, begins[1:], weights, strict=False)
    ]
    return torch.cat(parts)


def decoding(context: Context) -> Iterator[dict[str, Any]]:
    """Greedy tokens of recorded graphs against the plain step's."""
    from minimind.inference import SamplingParams
    from minimind.inference.engine import Engine

    model = model_on(context.device).eval()
    params = SamplingParams(temperature=0, repetition_penalty=1.0, max_new_tokens=100)
    prompts = [tokens(1, 5 + 7 * n)[0].tolist() for n in range(6)]
    expected = Engine(model).generate(prompts, params)
    for fuse in (False, True):
        model.compiled_step = GraphStep(model, fuse=fuse)
        made = Engine(model).generate(prompts, params)
        different = sum(a != b for a, b in zip(made, expected, strict=True))
        yield row(f"{'fused ' * fuse}graphs = plain step", different, 0,
                  "answers of 6 that differ, greedy, fp32")  # fmt: skip


def resume(context: Context) -> list[dict[str, Any]]:
    """A run killed by SIGKILL and resumed against one that was left alone."""
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        words = [chr(0x4E00 + n) for n in range(400)]
        generator = random.Random(0)
        with (work / "text.jsonl").open("w", encoding="utf-8") as file:
            for _ in range(3000):
                text = "".join(generator.choices(words, k=120))
                file.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")
        steps = context.choose(120, 24)
        whole = _run_child(work, "whole", steps, context.device, kills=0)
        killed = _run_child(work, "killed", steps, context.device, kills=context.choose(3, 1))
        worst = max(abs(killed[n] - whole[n]) for n in whole)
        same = worst == 0 and killed.keys() == whole.keys()
        note = "bit-identical" if same else "largest difference of losses, deterministic"
        return [row("killed and resumed", worst, 0.0 if context.device == "cpu" else 1e-3, note)]


def _run_child(work: Path, name: str, steps: int, device: str, *, kills: int) -> dict[int, float]:
    """Train in a child that is killed `kills` times on the way; return the loss of each step."""
    toml = work / f"{name}.toml"
    toml.write_text(
        f'name = "{name}"\nout = "{work}"\n'
        f'[data]\ntrain = ["{work / "text.jsonl"}"]\nsequence_length = 128\n'
        f"[train]\nsteps = {steps}\nbatch_rows = 8\nmicro_batch_rows = 4\ncompile = false\n"
        f'deterministic = true\ndevice = "{device}"\nattention = "sdpa"\n'
        "[save]\nevery = 8\n[log]\nevery = 1\nvalidate_every = 0\nsample_every = 0\n"
        "[model]\nhidden_size = 128\nnum_hidden_layers = 2\nnum_attention_heads = 2\n"
        "num_key_value_heads = 2\nintermediate_size = 256\n",
        encoding="utf-8",
    )
    code = (
        f"import sys\nsys.path.insert(0, {str(BENCH)!r})\n"
        "from gpu_items.common import stand_in\nstand_in()\n"
        "from minimind.settings import load_run_config\nfrom minimind.train.run import run\n"
        f"run(load_run_config(['pretrain', {str(toml)!r}]), resume=sys.argv[1] == 'r')"
    )
    log = work / name / "metrics.jsonl"
    for attempt in range(kills + 1):
        mode = "r" if attempt else "n"
        child = subprocess.Popen([sys.executable, "-c", code, mode], env=os.environ)
        wanted = steps * (attempt + 1) // (kills + 1)
        while attempt < kills and child.poll() is None and _steps_done(log) < wanted:
            time.sleep(0.02)
        if attempt < kills and child.poll() is None:
            child.send_signal(signal.SIGKILL)
            child.wait()
        elif child.wait() != 0:
            raise RuntimeError(f"the child of {name} ended with {child.returncode}")
    return {line["step"]: line["loss"] for line in _lines(log) if "loss" in line}


def _lines(log: Path) -> list[dict[str, Any]]:
    if not log.exists():
        return []
    whole = [line for line in log.read_text(encoding="utf-8").splitlines() if line.endswith("}")]
    return [json.loads(line) for line in whole]


def _steps_done(log: Path) -> int:
    return max((line.get("step", 0) for line in _lines(log)), default=0)
