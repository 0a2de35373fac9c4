"""Everything that only a GPU can tell, item by item, from a checkout alone.

    PYTHONPATH=src python3 bench/gpu.py 1 --out OUT          one item, under nine minutes
    PYTHONPATH=src python3 bench/gpu.py all --device cpu --small --out OUT     a dry run anywhere
    PYTHONPATH=src python3 bench/gpu.py prepare --data DIR --out gpu-data      data for item 4

    1 correct       parity, document boundaries, compile, fp16, resume, a golden loss
    2 ceilings      matrix rate and copy bandwidth
    3 training      tokens/s over shapes and micro-batches, beside transformers; one step's kernels
    4 run           a real pretraining run, SFT and DPO, held-out bits per byte against time
    5 recipe        learning rates at 64M; 64m against 64m-wide and moe at equal time
    6 decoding      1 to 512 rows, graphs and without, beside transformers; many requests at once
    7 quantisation  bitsandbytes, where it is

Needs torch 2.11 or newer, safetensors, tokenizers, jinja2 and rich; zstandard for item 4 (carry its
wheel); transformers, bitsandbytes and others only for what is measured beside them. An item ends
when its minutes are over and says what it left out. The last lines are a short table; every figure
goes to OUT/item-N.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))
# Before torch starts CUDA: what deterministic matrix products need, and less fragmentation.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")

from gpu_items.common import Context, Item, show_table, stand_in

stand_in()

NAMES = {
    "1": "correct", "2": "ceilings", "3": "training", "4": "real_run", "5": "recipe",
    "6": "decoding", "7": "quantisation",
}  # fmt: skip


def machine(device: str) -> dict[str, Any]:
    """Return what was measured on."""
    import torch

    card = torch.cuda.get_device_name() if device == "cuda" else platform.processor() or "cpu"
    return {
        "device": card,
        "cores": os.cpu_count(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "python": platform.python_version(),
    }


def run_item(number: str, context: Context) -> dict[str, Any]:
    """Run one item, write its figures, and print its table."""
    import importlib

    module: Any = importlib.import_module(f"gpu_items.{NAMES[number]}")
    run: Callable[[Context], Item] = module.run
    started = time.perf_counter()
    item = run(context)
    record = {
        "item": number,
        "name": NAMES[number],
        "machine": machine(context.device),
        "small": context.small,
        "seconds": time.perf_counter() - started,
        **item.figures,
        "rows": item.rows,
        "left_out": context.left_out,
    }
    path = context.out / f"item-{number}.json"
    path.write_text(json.dumps(record, indent=1, default=str), encoding="utf-8")
    title = f"item {number}, {NAMES[number]}: {record['machine']['device']}, {path.name}"
    show_table(title, item.rows)
    for line in (*item.remarks, *(f"left out: {what}" for what in context.left_out)):
        print(line)
    sys.stdout.flush()
    return record


def main() -> int:
    """Run what the command line names; 1 when a check of item 1 failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("items", nargs="+", choices=[*NAMES, "all", "prepare"])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--small", action="store_true", help="sizes for a dry run")
    parser.add_argument("--minutes", type=float, default=8.5, help="of one item")
    parser.add_argument("--models", nargs="+", help="item 3 and 5: only these")
    parser.add_argument("--data", type=Path, help="items 4 and 5: what `prepare` made")
    parser.add_argument("--megabytes", type=float, default=45, help="prepare: of all files")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    if "prepare" in args.items:
        from gpu_items.prepare import prepare

        prepare(args.data, args.out, megabytes=args.megabytes)
        return 0
    import torch

    if args.device == "cuda" and not torch.cuda.is_available():
        print(f"torch {torch.__version__} sees no CUDA device; --device cpu --small is a dry run")
        return 2
    failed = False
    for number in NAMES if "all" in args.items else args.items:
        context = Context(
            device=args.device, small=args.small, out=args.out, data=args.data,
            models=args.models, until=time.perf_counter() + 60 * args.minutes,
        )  # fmt: skip
        record = run_item(number, context)
        failed = failed or any(row.get("verdict") == "FAILED" for row in record["rows"])
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
