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
    8 target        time to a held-out figure: ours, the original's recipe, packed AdamW

Needs torch 2.11 or newer, safetensors, tokenizers, jinja2 and rich; transformers, bitsandbytes,
torchao and others only for what is measured with them: what is missing is said and skipped
(without zstandard item 4 has one baseline less). Each figure is in OUT/item-N.json as soon as it is
measured. An item begins nothing new when its minutes are over, and says what it left out; twenty
seconds later it is cut, with what it had. Errors are in OUT/item-N.log; the last lines are a short
table. Several items run in a process each, one after the other.

Exit code: 0, or 1 when a check of item 1 failed or something broke, 3 when the clock cut an item.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))
# Before torch starts CUDA: what deterministic matrix products need, and less fragmentation.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")

from gpu_items.common import Context, stand_in

stand_in()

NAMES = {
    "1": "correct", "2": "ceilings", "3": "training", "4": "real_run", "5": "recipe",
    "6": "decoding", "7": "quantisation", "8": "target",
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


GRACE = 20.0
"""Seconds beyond its minutes after which an item is cut."""


def run_item(context: Context) -> bool:
    """Run one item to its end or that of its time, and print its table; False if it failed."""
    import importlib

    module: Any = importlib.import_module(f"gpu_items.{context.name}")
    clock = threading.Timer(context.left + GRACE, cut, [context])
    clock.daemon = True
    clock.start()
    broken = False
    try:
        module.run(context)
    # Whatever breaks, what was measured until then is shown.
    except Exception as error:
        context.broke("the item", error)
        broken = True
    clock.cancel()
    context.save()
    context.show()
    return not broken and all(row.get("verdict") != "FAILED" for row in context.rows)


def cut(context: Context) -> None:
    """End the process with what there is: the main thread hangs in something too long."""
    context.left_out.append("what was running when the time was over")
    for save in context.when_cut:
        try:
            save()
        # It may be half done; the rest must be shown all the same.
        except Exception as error:
            context.broke("saving what was running", error)
    context.save()
    context.show()
    os._exit(3)


def run_apart(items: list[str], args: argparse.Namespace) -> int:
    """Run items one after the other in processes of their own; return the worst exit code."""
    flags = ["--out", str(args.out), "--device", args.device, "--minutes", str(args.minutes)]
    flags += ["--small"] if args.small else []
    flags += ["--models", *args.models] if args.models else []
    flags += ["--data", str(args.data)] if args.data else []
    codes = []
    for number in items:
        print(f"\n=== item {number}, {NAMES[number]}", flush=True)
        codes.append(subprocess.run([sys.executable, __file__, number, *flags]).returncode)
    return max(codes)


def main() -> int:
    """Run what the command line names."""
    began = time.perf_counter()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("items", nargs="+", choices=[*NAMES, "all", "prepare"])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--small", action="store_true", help="sizes for a dry run")
    parser.add_argument("--minutes", type=float, default=8.5, help="of one item")
    parser.add_argument("--models", nargs="+", help="item 3 and 5: only these")
    parser.add_argument("--data", type=Path, help="items 4, 5, 8: what `prepare` made")
    parser.add_argument("--megabytes", type=float, default=45, help="prepare: of all files")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    if "prepare" in args.items:
        from gpu_items.prepare import prepare

        prepare(args.data, args.out, megabytes=args.megabytes)
        return 0
    items = list(NAMES) if "all" in args.items else args.items
    if len(items) > 1:
        return run_apart(items, args)
    import torch

    if args.device == "cuda" and not torch.cuda.is_available():
        print(f"torch {torch.__version__} sees no CUDA device; --device cpu --small is a dry run")
        return 2
    context = Context(
        number=items[0], name=NAMES[items[0]], device=args.device, small=args.small, out=args.out,
        data=args.data, models=args.models, until=began + 60 * args.minutes,
        machine=machine(args.device), started=began,
    )  # fmt: skip
    return 0 if run_item(context) else 1


if __name__ == "__main__":
    sys.exit(main())
