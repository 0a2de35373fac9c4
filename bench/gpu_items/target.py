"""Item 8: how long to the same held-out figure: ours, the original's recipe, packed AdamW, at 64M.

Each arm has its own schedule over its own seconds: where ours is ahead in a sixth of the original's
time, it needed less than a sixth to get as far. Compilation is not counted.
"""

from __future__ import annotations

import dataclasses
import tempfile
import time
from pathlib import Path
from typing import Any

from gpu_items.common import Context, free
from gpu_items.prepare import unpack
from gpu_items.recipe import OVERHEAD, can_compile, settings, train
from minimind.config import OptimConfig, RunConfig

ARMS = (
    ("ours", 1 / 6), ("original's", 1.0), ("ours", 0.6), ("AdamW 3e-3", 1.0), ("AdamW 1e-3", 1.0),
)  # fmt: skip
"""What is trained, and its share of the time. AdamW's rate is the better of two."""


def run(context: Context) -> None:
    """Train each arm for its seconds, and compare ours with those that had more."""
    if context.data is None:
        context.left_out.append("the arms: --data FOLDER of `gpu.py prepare`")
        return
    compiled = can_compile(context)
    with tempfile.TemporaryDirectory() as folder:
        data = unpack(context.data, Path(folder))
        whole = (context.left - OVERHEAD * len(ARMS)) / sum(share for _, share in ARMS)
        whole = context.figures["seconds_of_the_longest"] = context.choose(max(30.0, whole), 6.0)
        overhead = OVERHEAD
        for name, share in ARMS:
            began = time.perf_counter()
            config = arm(
                settings(context, data, context.choose("64m", "nano"), "", compiled=compiled),
                name,
            )
            figures = context.attempt(
                f"{name}, {share:.2f} of the time", share * whole + overhead,
                lambda config=config, share=share: train(context, config, share * whole),
            )  # fmt: skip
            if figures is not None:
                seconds = share * whole
                context.add({"arm": name, "seconds": seconds, "share": share, **figures})
                # Of the last arm: the first has filled the compiler's cache for the others.
                overhead = max(OVERHEAD, time.perf_counter() - began - seconds)
            free(context.device)
    context.remarks += verdicts(context.rows)


def arm(base: RunConfig, name: str) -> RunConfig:
    """Return the run of an arm; `base` is ours."""
    if name == "original's":  # jingyaogong/minimind: AdamW 5e-4, cosine, no warm-up, padded, fp32
        optim = OptimConfig(
            kind="adamw", lr=5e-4, betas=(0.9, 0.999), weight_decay=0.01, schedule="cosine",
            warmup_share=0.0, final_lr_share=0.1,
        )  # fmt: skip
        return dataclasses.replace(
            base, optim=optim, data=dataclasses.replace(base.data, pack=False),
            train=dataclasses.replace(
                base.train, precision="fp32", compile=False,
                micro_batch_rows=max(1, base.train.micro_batch_rows // 2),
            ),
        )  # fmt: skip
    if name.startswith("AdamW"):
        optim = dataclasses.replace(base.optim, kind="adamw", lr=float(name.split()[1]))
        return dataclasses.replace(base, optim=optim)
    return base


def verdicts(rows: list[dict[str, Any]]) -> list[str]:
    """Say of both bars whether ours, in its share of the time, is ahead."""
    bits = {(row["arm"], round(row["share"], 2)): row["bits_per_byte"] for row in rows}
    adamw = [value for (name, _), value in bits.items() if name.startswith("AdamW")]
    asked = (
        ("a sixth of the time of the original's recipe", bits.get(("ours", 0.17)),
         bits.get(("original's", 1.0))),
        ("0.6 of packed AdamW's", bits.get(("ours", 0.6)), min(adamw, default=None)),
    )  # fmt: skip
    return [
        f"ours in {what}: {mine:.3f} against {its:.3f} bits per byte, "
        f"{'ahead' if mine < its else 'BEHIND'} (one seed)"
        for what, mine, its in asked
        if mine is not None and its is not None
    ]
