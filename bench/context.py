r"""Perplexity against length, for each way to stretch rotary positions past the trained length.

    python bench/context.py CHECKPOINT HELD_OUT.jsonl --lengths 512,1024,2048 \
        --scaling none,linear,dynamic,yarn [--plot context.png] [--json]

Documents are joined to one stream and cut into windows of the longest length. A model reads each
window's first L tokens; the perplexity is that of the last `--tail` of them, so that every length
is judged on tokens with a full context behind them. It should not rise with the length.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
from pathlib import Path

import torch

import minimind.checkpoint
from minimind.config import RopeScaling
from minimind.errors import DataError, MiniMindError
from minimind.model import CausalLM, stretch, token_log_probs
from minimind.tokenizer import Tokenizer

KINDS = ("none", "linear", "dynamic", "yarn")


def read_stream(path: Path, tokenizer: Tokenizer, *, tokens: int) -> torch.Tensor:
    """Return at least `tokens` ids of the documents' texts, each opened by <|endoftext|>.

    Raises:
        DataError: a row without text, or too little of it.
    """
    ids: list[int] = []
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            row = json.loads(line)
            if "text" not in row:
                raise DataError(f'{path}:{number}: needs rows of the form {{"text": "..."}}')
            ids += [tokenizer.endoftext_id, *tokenizer.encode(row["text"])]
            if len(ids) >= tokens:
                return torch.tensor(ids)
    raise DataError(f"{path}: {len(ids)} tokens, {tokens} are needed: fewer --windows, more text")


def stretched(model: CausalLM, kind: str, *, trained: int, longest: int) -> CausalLM:
    """Return the same weights with positions stretched to `longest` (`none`: as they are)."""
    config = dataclasses.replace(model.config, rope_scaling=None)
    if kind != "none":
        scaling = RopeScaling(
            rope_type=kind,  # pyright: ignore[reportArgumentType]
            factor=max(1.0, longest / trained),
            original_max_position_embeddings=trained,
        )
        config = stretch(config, scaling)
    with torch.device("meta"):
        other = CausalLM(config)
    other.load_state_dict(model.state_dict(), assign=True)
    return other.eval()


@torch.inference_mode()
def perplexity(model: CausalLM, windows_BT: torch.Tensor, *, length: int, tail: int) -> float:
    """Return exp of the mean loss of the last `tail` tokens after reading `length`."""
    log_probs = []
    for row_T in windows_BT:
        ids_BT = row_T[None, : length + 1]
        hidden_BTD = model(ids_BT[:, :-1], logits="none").hidden_BTD[:, -tail:]
        labels_N = ids_BT[0, 1:][-tail:]
        log_probs.append(token_log_probs(hidden_BTD[0], model.output_weight, labels_N))
    return math.exp(-torch.cat(log_probs).mean().item())


def plot(curves: dict[str, dict[int, float]], *, trained: int, path: Path) -> None:
    """Draw perplexity against length, one line for each way to stretch."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4.5))
    for kind, curve in curves.items():
        axes.plot(list(curve), list(curve.values()), marker="o", label=kind)
    axes.axvline(trained, color="grey", linestyle=":", label="trained length")
    axes.set(xscale="log", yscale="log", xlabel="tokens read", ylabel="perplexity of the last ones")
    lengths = list(next(iter(curves.values())))
    axes.set_xticks(lengths, [str(length) for length in lengths])
    axes.tick_params(axis="x", which="minor", bottom=False, labelbottom=False)
    axes.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=150)


def numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def main() -> None:
    parser = argparse.ArgumentParser(description="perplexity against length")
    parser.add_argument("checkpoint")
    parser.add_argument("text", type=Path)
    parser.add_argument("--lengths", type=numbers, default=[512, 1024, 2048])
    parser.add_argument("--scaling", type=lambda text: text.split(","), default=list(KINDS))
    parser.add_argument("--trained", type=int, help="default: the checkpoint's context")
    parser.add_argument("--windows", type=int, default=16)
    parser.add_argument("--tail", type=int, default=256)
    parser.add_argument("--plot", type=Path, default=Path("context.png"))
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    for kind in args.scaling:
        if kind not in KINDS:
            parser.error(f"--scaling {kind!r}: there are {', '.join(KINDS)}")
    try:
        model, tokenizer = minimind.checkpoint.load(args.checkpoint)
        longest = max(args.lengths)
        size = longest + 1
        stream = read_stream(args.text, tokenizer, tokens=args.windows * size)
    except (MiniMindError, OSError) as error:
        parser.error(str(error))
    windows_BT = stream[: args.windows * size].view(args.windows, size)
    scaling = model.config.rope_scaling
    context = model.config.max_position_embeddings
    trained = args.trained or (scaling.original_max_position_embeddings if scaling else context)
    tail = min(args.tail, *args.lengths)
    curves: dict[str, dict[int, float]] = {}
    for kind in args.scaling:
        other = stretched(model, kind, trained=trained, longest=longest)
        curves[kind] = {
            length: perplexity(other, windows_BT, length=length, tail=tail)
            for length in args.lengths
        }
    plot(curves, trained=trained, path=args.plot)
    if args.json:
        print(json.dumps({"trained": trained, "tail": tail, "perplexity": curves}, indent=2))
        return
    print(f"perplexity of the last {tail} tokens, {args.windows} windows, trained on {trained}")
    print(f"{'':>8}" + "".join(f"{length:>10}" for length in args.lengths))
    for kind, curve in curves.items():
        print(f"{kind:>8}" + "".join(f"{value:>10.2f}" for value in curve.values()))
    print(f"plot: {args.plot}")


if __name__ == "__main__":
    main()
