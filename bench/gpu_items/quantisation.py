"""Item 7: bitsandbytes on CUDA: size, speed, and how far the logits move."""

from __future__ import annotations

from typing import Any

import torch

from gpu_items.common import Context, free, installed
from gpu_items.decoding import answers
from minimind.model import CausalLM
from minimind.model.quantize import quantize_model
from minimind.settings import load_model_config


def run(context: Context) -> None:
    """Measure bf16, and each kind that the installed packages give."""
    kinds = ["bf16", *(("bnb-int8", "bnb-nf4") if installed("bitsandbytes") else ())]
    if len(kinds) == 1:
        context.left_out.append("bnb-int8, bnb-nf4 (bitsandbytes is not installed)")
    preset = context.choose("64m", "nano")
    ids = torch.randint(16, load_model_config(preset).vocab_size, (4, 64)).to(context.device)
    expected: list[torch.Tensor] = []  # log-probabilities of bf16
    for kind in kinds:
        row = context.attempt(
            kind, 40, lambda kind=kind: measure(context, preset, kind, ids, expected)
        )
        if row is not None:
            context.add(row)
        free(context.device)
    context.remarks.append(
        "random weights: sizes and speeds; bits per byte of a trained checkpoint: "
        "minimind quantize RUN"
    )


def measure(
    context: Context, preset: str, kind: str, ids: torch.Tensor, expected: list[torch.Tensor]
) -> dict[str, Any]:
    """Return size, divergence from bf16 and speed of one kind of weights."""
    prompt, new = context.choose((128, 256), (8, 16))
    torch.manual_seed(0)
    model = CausalLM(load_model_config(preset)).eval().to(context.device, torch.bfloat16)
    if kind != "bf16":
        quantize_model(model, kind)
    with torch.no_grad():
        log_probs = model(ids).logits.float().log_softmax(-1)
    expected.append(log_probs)
    divergence = (expected[0].exp() * (expected[0] - log_probs)).sum(-1).mean().item()
    tensors = [*model.parameters(), *model.buffers()]
    row: dict[str, Any] = {
        "weights": kind, "MB": sum(t.nbytes for t in tensors) / 2**20,
        "KL to bf16, nats": divergence,
    }  # fmt: skip
    for count in context.choose((1, 32), (1,)):
        speeds = answers(context, model, "plain", count, prompt, new)
        row[f"tok/s, {count} rows"] = speeds["median"]
    return row
