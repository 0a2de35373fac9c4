"""What an ONNX export costs in accuracy: held-out bits per byte, and logits beside ours.

python bench/onnx_error.py runs/dpo EXPORT --data data/pretrain
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

import minimind
from minimind.eval.held_out import draw, split_text
from minimind.export.onnx_files import FILES
from minimind.export.onnx_session import OnnxSession


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", help="a checkpoint or run directory")
    parser.add_argument("export", type=Path, help="what `minimind export onnx` made of it")
    parser.add_argument("--data", nargs="+", required=True, help="the text it was trained on")
    parser.add_argument("--share", type=float, default=0.01, help="data.validation_share")
    parser.add_argument(
        "--documents", type=int, default=100, help="held-out documents that are read"
    )
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


def bits(logits_TV: np.ndarray, labels_T: np.ndarray) -> float:
    wide_TV = logits_TV.astype(np.float64)
    wide_TV -= wide_TV.max(-1, keepdims=True)
    picked_T = wide_TV[np.arange(len(labels_T)), labels_T]
    return float((np.log(np.exp(wide_TV).sum(-1)) - picked_T).sum() / math.log(2))


def measure(read: Any, rows: list[list[int]], size: int, reference: list[np.ndarray]) -> Any:
    """Return the figures of one way to get logits, and the logits."""
    started, logits = time.perf_counter(), []
    for row in rows:
        logits.append(read(np.array([row[:-1]], np.int64)))
    seconds = time.perf_counter() - started
    total = sum(bits(one, np.array(row[1:])) for one, row in zip(logits, rows, strict=True))
    figures = {"bits_per_byte": total / size, "seconds": seconds}
    if reference:
        pairs = list(zip(logits, reference, strict=True))
        delta = sum(float(np.square(a - b).sum()) for a, b in pairs)
        spread = sum(float(np.square(b - b.mean(-1, keepdims=True)).sum()) for _, b in pairs)
        same = sum(int((a.argmax(-1) == b.argmax(-1)).sum()) for a, b in pairs)
        figures |= {
            "largest": max(float(np.abs(a - b).max()) for a, b in pairs),
            "relative": math.sqrt(delta / spread),
            "same_first_choice": same / sum(len(b) for b in reference),
        }
    return figures, logits


def main() -> None:
    args = arguments()
    model, tokenizer = minimind.load(args.checkpoint, dtype=torch.float32)
    held_out = draw(split_text(args.data, share=args.share).held_out, limit=args.documents)
    start, end = tokenizer.document_start_id, tokenizer.endoftext_id
    context = model.config.max_position_embeddings
    rows = [[start, *tokenizer.encode(d.text), end][: context + 1] for d in held_out]
    size = sum(len(tokenizer.decode(row[1:]).encode()) for row in rows)

    def ours(ids_BT: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return model(torch.from_numpy(ids_BT)).logits[0].numpy()

    figures, reference = measure(ours, rows, size, [])
    results = {"ours": figures}
    for dtype, name in FILES.items():
        path = args.export / "onnx" / name
        if path.exists():
            session = OnnxSession(path, threads=torch.get_num_threads())
            read = lambda ids, s=session: s.run(ids, s.empty(1))[0][0]  # noqa: E731
            found, _ = measure(read, rows, size, reference)
            results[dtype] = found | {"megabytes": path.stat().st_size / 1e6}
    if args.json:
        print(json.dumps(results, indent=2))
        return
    for name, values in results.items():
        change = values["bits_per_byte"] / results["ours"]["bits_per_byte"] - 1
        parts = [f"{key} {value:.4g}" for key, value in values.items()]
        print(f"{name:5} change {change:+.4%}  " + "  ".join(parts))


if __name__ == "__main__":
    main()
