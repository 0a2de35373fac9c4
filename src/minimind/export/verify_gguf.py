"""A GGUF file run in the real llama.cpp, beside our model with the very weights of the file.

Rounding weights changes a model, and that is wanted; computing something else from them isn't. So
the numbers are read back from the file and put into our own model: what is left between the two
is arithmetic. llama.cpp rounds the inputs of each product to the type of the weights (half floats,
or 8-bit blocks for the quantised types), which is what the bounds below allow for.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from minimind.errors import require
from minimind.export.common import Check, Progress
from minimind.export.gguf_metadata import expert_number, gguf_tensors
from minimind.export.gguf_types import from_ggml
from minimind.export.llamacpp import LlamaCpp
from minimind.export.loading import Source
from minimind.export.verify import (
    check_greedy,
    check_logits,
    check_token_ids,
    greedy_budget,
    make_probe,
    mean_kl,
    our_greedy,
    our_logits,
)
from minimind.model import CausalLM

F32_BOUND = 1e-3
ROUNDED_KL = 0.005
"""Nats a token between llama.cpp and us on the same rounded weights (0.0003 on a trained model)."""


def verify(
    source: Source, path: Path, *, types: dict[str, str], progress: Progress
) -> tuple[Check, ...]:
    """Run a GGUF file in llama.cpp and compare: tensors, ids, logits, a greedy continuation."""
    progress("verifying", 0, 4)
    rounded, tensors = read_back(source, path, types=types)
    if not tensors.passed:
        return (tensors,)
    probe = make_probe(source.model.config, source.tokenizer)
    progress("verifying", 1, 4)
    with LlamaCpp(path) as reader:
        ids = check_token_ids(source.tokenizer, reader.tokenize, reader="llama.cpp")
        theirs = reader.logits(probe.ids)
        progress("verifying", 2, 4)
        made = our_greedy(rounded, probe.prompt, source.tokenizer.stop_ids)
        budget = greedy_budget(source.model.config, probe.prompt)
        continued = reader.greedy(probe.prompt, max_new_tokens=budget)
    progress("verifying", 3, 4)
    ours = our_logits(rounded, probe.ids)
    largest = float(abs(ours - theirs).max())
    logits = _compare(source, probe.ids, ours, theirs, exact=set(types.values()) == {"F32"})
    greedy = check_greedy(
        rounded, probe.prompt, made, continued, tolerance=largest, reader="llama.cpp"
    )
    progress("verifying", 4, 4)
    return tensors, ids, logits, greedy


def verify_adapter(
    source: Source, base: Source, path: Path, base_path: Path, *, exact: bool
) -> tuple[Check, ...]:
    """Run an adapter over its base in llama.cpp and compare with our own model with adapters.

    Args:
        source: the adapters, in our model.
        base: the same model without them.
        path: the adapter's GGUF.
        base_path: the base's, in f32.
        exact: the adapter is f32 too.
    """
    probe = make_probe(source.model.config, source.tokenizer)
    with LlamaCpp(base_path) as reader:
        plain = reader.logits(probe.ids)
        reader.use_adapter(path)
        adapted = reader.logits(probe.ids)
    ours, without = our_logits(source.model, probe.ids), our_logits(base.model, probe.ids)
    change = float(np.abs(ours - without).max())
    # Rounding an adapter to half floats moves the logits by a part of what it changes at all.
    bound = F32_BOUND if exact else max(F32_BOUND, 0.02 * change)
    below = check_logits(without, plain, bound=F32_BOUND, reader="llama.cpp")
    above = check_logits(ours, adapted, bound=bound, reader="llama.cpp")
    figures = above.figures | {"change_by_adapter": change}
    detail = f"{above.detail}; the adapter changes logits by up to {change:.2g}"
    return (
        replace(below, name="base logits"),
        replace(above, name="adapter logits", detail=detail, figures=figures),
    )


def read_back(source: Source, path: Path, *, types: dict[str, str]) -> tuple[CausalLM, Check]:
    """Return our model with the weights that the file holds, and whether all are there."""
    gguf = require("gguf", extra="gguf")
    found = {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}
    config = source.model.config
    with torch.device("meta"):
        model = CausalLM(config)
    expected = {
        name: tuple(tensor.shape)
        for name, tensor in gguf_tensors(config, model.state_dict()).items()
    }
    shapes = {name: tuple(reversed(t.shape.tolist())) for name, t in found.items()}
    same = shapes == expected and {n: t.tensor_type.name for n, t in found.items()} == types
    detail = f"{len(found)} tensors with the expected names, shapes and types"
    if not same:
        odd = sorted(n for n in found.keys() | expected.keys() if shapes.get(n) != expected.get(n))
        detail = f"names, shapes or types differ, for example {odd[:3] or 'types'}"
        return model, Check(name="tensors", passed=False, detail=detail)
    state = {}
    for name, tensor in model.state_dict().items():
        (new,) = gguf_tensors(config, {name: tensor})
        values, number = from_ggml(found[new]), expert_number(name)
        state[name] = torch.from_numpy(values if number is None else values[number])
    model.load_state_dict(state, assign=True)
    return model.eval(), Check(
        name="tensors", passed=True, detail=detail, figures={"tensors": len(found)}
    )


def _compare(
    source: Source, ids: list[int], ours: np.ndarray, theirs: np.ndarray, *, exact: bool
) -> Check:
    check = check_logits(ours, theirs, bound=F32_BOUND, reader="llama.cpp")
    if exact or ours.shape != theirs.shape:
        return check
    arithmetic = mean_kl(ours, theirs)
    damage = mean_kl(our_logits(source.model, ids), theirs)
    return Check(
        name="logits",
        passed=arithmetic < ROUNDED_KL,
        detail=(
            f"KL {arithmetic:.2g} nats a token to us on the same rounded weights "
            f"(bound {ROUNDED_KL:g}), {damage:.2g} to the checkpoint itself"
        ),
        figures=check.figures
        | {"kl_same_weights": arithmetic, "bound": ROUNDED_KL, "kl_checkpoint": damage},
    )
