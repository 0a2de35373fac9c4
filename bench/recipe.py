"""Which recipe learns most in the same wall-clock: held-out bits per byte, several seeds.

    python bench/recipe.py --data FOLDER --compare recipe     ours, the original's way, packed AdamW
    python bench/recipe.py --data FOLDER --compare width      64m- against 64m-wide-shaped, small
    python bench/recipe.py --data FOLDER --compare tokenizer  jieba-guided against plain BPE
    python bench/recipe.py --data FOLDER --compare rows       rows of a step and rates, nano
    python bench/recipe.py --data FOLDER --compare search     one setting changed at a time, nano
    python bench/recipe.py --data FOLDER --compare float8     8-bit products, emulated, against bf16
    python bench/recipe.py --data FOLDER --compare moe        experts against dense shapes, small
    python bench/recipe.py --data FOLDER --compare balance    what keeps experts busy, small

Each arm lives in a process of its own and trains for `--seconds`; the arms take turns of `--turn`
seconds, so that whatever else the machine does meets all of them (`--clock cpu` counts only seconds
in which an arm computes). Compilation is not counted (a run
of hours doesn't feel it). The learning-rate schedule follows the share of the time that has passed.
With `--steps N` every arm trains for N steps instead, on the same batches, whatever time it takes:
equal tokens, fit for a machine that others use; with `--tokens N` for N tokens, where arms have
steps of different sizes. `--steps-of ARM=M` gives one arm M steps: what it
does in the time of the others by its rate in `bench/moe.py`.
All arms are measured on the same held-out text, `--validation-mb` of it.
"""

from __future__ import annotations

import itertools
import json
import statistics
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import tyro

from minimind.config import DataConfig, MoEConfig, OptimConfig, RunConfig
from timed_run import TimedRun
from workers import Worker, serve

SCRIPT = Path(__file__).resolve()

Compare = Literal["recipe", "width", "tokenizer", "rows", "search", "float8", "moe", "balance"]
ARMS = {
    "recipe": ("muon-packed-bf16", "adamw-padded-fp32", "adamw-packed-bf16"),
    "width": ("64m-shaped", "64m-wide-shaped"),
    "tokenizer": ("jieba-guided", "plain-bpe"),
    "rows": ("8x512-slow", "8x256-slow", "16x256-slow", "16x256-fast", "32x256-fast"),
    "search": (
        "default",
        "rates-x0.5",
        "rates-x2",
        "adamw-x2",
        "muon-x2",
        "momentum-0.9",
        "decay-0",
        "decay-0.3",
        "warm-down-0.2",
        "warm-down-0.7",
        "zero-projections",
        "constant-rate",
        "rows-half",
        "rows-double",
        "rows-half-then-whole",
        "length-half",
        "length-double",
        "length-half-then-whole",
    ),
    "float8": ("default", "fp8-emulated"),
    "moe": ("moe", "dense-26m", "dense-64m"),
    "balance": ("moe", "moe-bias", "moe-none", "moe-weak", "moe-strong", "moe-top1"),
}


@dataclass(frozen=True, kw_only=True)
class Args:
    """What to compare, and for how long."""

    data: Path
    """Folder of pretraining JSONL files."""
    compare: Compare = "recipe"
    arms: tuple[str, ...] = ()
    """Only these of the comparison; empty: all."""
    tokenizer: str = "default"
    plain_tokenizer: str | None = None
    """For `tokenizer`: the plain one. Without it both are trained here on the same text."""
    tokenizer_mb: int = 32
    vocab_size: int = 12_000
    seconds: float = 240.0
    clock: Literal["wall", "cpu"] = "wall"
    """`cpu`: seconds that an arm was computing, on a machine that others use."""
    steps: int | None = None
    """Equal steps in place of equal seconds."""
    steps_of: tuple[str, ...] = ()
    """`ARM=N`: other steps for an arm."""
    tokens: int | None = None
    """Equal tokens in place of equal seconds."""
    rows: int | None = None
    """For `search`: rows of a step; None: the preset's."""
    averages: tuple[float, ...] = ()
    """Measure running means of the weights with these decays as well (`train.average_decay`)."""
    turn: float = 20.0
    seeds: int = 3
    first_seed: int = 0
    validation_mb: float = 0.3
    compile: bool = True
    work: Path = Path("runs/bench-recipe")
    """Where tokenizers trained here are kept."""
    json: bool = False


def arm_config(
    name: str, *, data: Path, seed: int, vocab_size: int, rows: int | None = None
) -> RunConfig:
    """Return the run of one arm; what isn't said here is the `nano` preset's."""
    from minimind.settings import load_run_config

    base = load_run_config(["pretrain", "nano"])
    files = tuple(str(path) for path in sorted(data.glob("*.jsonl*")))
    base = replace(
        base,
        seed=seed,
        data=replace(base.data, train=files),
        model=replace(base.model, vocab_size=vocab_size),
    )
    if name == "adamw-padded-fp32":  # jingyaogong/minimind: AdamW 5e-4, cosine, no warm-up
        optim = OptimConfig(
            kind="adamw", lr=5e-4, betas=(0.9, 0.999), weight_decay=0.01, schedule="cosine",
            warmup_share=0.0, final_lr_share=0.1,
        )  # fmt: skip
        padded = replace(base.data, pack=False)
        fp32 = replace(base.train, precision="fp32", compile=False)
        return replace(base, optim=optim, data=padded, train=fp32)
    if name == "adamw-packed-bf16":
        return replace(base, optim=replace(base.optim, kind="adamw", lr=3e-3))
    if name in ROWS:
        count, length, lr, muon_lr = ROWS[name]
        return replace(
            base,
            data=replace(base.data, sequence_length=length),
            train=replace(base.train, batch_rows=count, micro_batch_rows=count),
            optim=replace(base.optim, lr=lr, muon_lr=muon_lr),
        )
    if rows is not None:
        base = replace(base, train=replace(base.train, batch_rows=rows, micro_batch_rows=rows))
    if name in STAGED:
        return arm_config(STAGED[name][0], data=data, seed=seed, vocab_size=vocab_size, rows=rows)
    if name in SCALED:
        of_rows, of_length = SCALED[name]
        count = round(base.train.batch_rows * of_rows)
        length = round(base.data.sequence_length * of_length)
        return replace(
            base,
            data=replace(base.data, sequence_length=length),
            train=replace(base.train, batch_rows=count, micro_batch_rows=count),
        )
    if name in SEARCH:
        return replace(base, **{
            table: replace(getattr(base, table), **change)
            for table, change in SEARCH[name].items()
        })  # fmt: skip
    if name in EXPERT_SHAPES:
        small = replace(base.train, batch_rows=4, micro_batch_rows=4)
        shape = base.model
        return replace(base, train=small, model=replace(shape, **EXPERT_SHAPES[name]))
    if name in SMALL_SHAPES:
        return replace(base, model=replace(base.model, **SMALL_SHAPES[name]))
    return base


# What an arm of `search` changes in the preset `nano`, by table.
SEARCH: dict[str, dict[str, dict[str, Any]]] = {
    "default": {},
    "rates-x0.5": {"optim": {"lr": 3e-3, "muon_lr": 0.015}},
    "rates-x2": {"optim": {"lr": 12e-3, "muon_lr": 0.06}},
    "adamw-x2": {"optim": {"lr": 12e-3}},
    "muon-x2": {"optim": {"muon_lr": 0.06}},
    "momentum-0.9": {"optim": {"muon_momentum": 0.9}},
    "decay-0": {"optim": {"weight_decay": 0.0}},
    "decay-0.3": {"optim": {"weight_decay": 0.3}},
    "warm-down-0.2": {"optim": {"decay_share": 0.2}},
    "warm-down-0.7": {"optim": {"decay_share": 0.7}},
    "zero-projections": {"init": {"zero_projections": True}},
    "constant-rate": {"optim": {"schedule": "constant"}},
}

# Factors of the rows of a step and of the tokens of a row: `length` keeps the tokens of a step.
SCALED: dict[str, tuple[float, float]] = {
    "rows-half": (0.5, 1),
    "rows-double": (2, 1),
    "length-half": (2, 0.5),
    "length-double": (0.5, 2),
}

# Arms that begin as one arm and read on as another after a share of the budget. The second reads
# the files in another order (another seed), so it doesn't begin with the same text again.
STAGED: dict[str, tuple[str, float, str]] = {
    "rows-half-then-whole": ("rows-half", 0.4, "default"),
    "length-half-then-whole": ("length-half", 0.5, "default"),
}

# Rows of a step, tokens of a row, AdamW's rate, Muon's rate. "slow" are the rates of `pretrain`,
# "fast" those of `nano`.
ROWS: dict[str, tuple[int, int, float, float]] = {
    "8x512-slow": (8, 512, 4e-3, 0.02),
    "8x256-slow": (8, 256, 4e-3, 0.02),
    "16x256-slow": (16, 256, 4e-3, 0.02),
    "16x256-fast": (16, 256, 6e-3, 0.03),
    "32x256-fast": (32, 256, 6e-3, 0.03),
}

# A quarter of the presets' width with the same head size, depth, and ratios of feed-forward and
# kv heads: 64m is 512 wide with 8 x that in its feed-forward, 64m-wide is 768 wide with 3 x.
SMALL_SHAPES: dict[str, dict[str, int]] = {
    "64m-shaped": {
        "hidden_size": 128, "intermediate_size": 1024, "num_hidden_layers": 8,
        "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 64,
    },
    "64m-wide-shaped": {
        "hidden_size": 192, "intermediate_size": 576, "num_hidden_layers": 8,
        "num_attention_heads": 3, "num_key_value_heads": 1, "head_dim": 64,
    },
}  # fmt: skip

# A quarter of the width and half the layers of the presets moe, 26m and 64m. `moe` has the weights
# of dense-64m and, for a token, the products of dense-26m (with 64m's attention and 2 experts of
# 128 against 26m's narrower kv and 304).
_NARROW: dict[str, Any] = {
    "hidden_size": 128, "num_hidden_layers": 4, "num_attention_heads": 2, "head_dim": 64,
}  # fmt: skip


def _experts(**changes: Any) -> dict[str, Any]:
    moe = replace(MoEConfig(num_experts=8, moe_intermediate_size=128), **changes)
    return _NARROW | {"num_key_value_heads": 2, "moe": moe}


EXPERT_SHAPES: dict[str, dict[str, Any]] = {
    "moe": _experts(),
    "moe-bias": _experts(router_balance="bias"),
    "moe-none": _experts(router_balance="none"),
    "moe-weak": _experts(router_aux_loss_coef=0.01),
    "moe-strong": _experts(router_aux_loss_coef=0.2),
    "moe-top1": _experts(num_experts=4, num_experts_per_tok=1, moe_intermediate_size=256),
    "dense-26m": _NARROW | {"num_key_value_heads": 1, "intermediate_size": 304},
    "dense-64m": _NARROW | {"num_key_value_heads": 2, "intermediate_size": 1024},
}


# ---------------------------------------------------------------------------- inside a worker


def work(payload: dict[str, Any]) -> None:
    """Prepare one arm, then train for a turn at each line of stdin."""
    from minimind.tokenizer import Tokenizer
    from minimind.train.rng import seed_all

    tokenizer = Tokenizer.load(payload["tokenizer"])
    arm, seed = payload["arm"], payload["seed"]
    where = {"data": Path(payload["data"]), "vocab_size": tokenizer.vocab_size,
             "rows": payload.get("rows")}  # fmt: skip
    config = arm_config(arm, seed=seed, **where)
    if not payload["compile"]:
        config = replace(config, train=replace(config.train, compile=False))
    then = None
    if arm in STAGED:
        _, share, later = STAGED[arm]
        then = (share, arm_config(later, seed=seed + 1000, **where))
    seed_all(config.seed)
    run = TimedRun(
        config, tokenizer, seconds=payload["seconds"], clock=payload["clock"],
        steps=payload["steps"],
        tokens=payload.get("tokens"), then=then, averages=payload.get("averages", ()),
        float8=arm == "fp8-emulated",
    )  # fmt: skip
    if payload["compile"]:
        run.warm_up()
    held_out_bytes = int(payload["validation_mb"] * 2**20)

    def burst() -> dict[str, float]:
        run.train(payload["turn"])
        return run.figures() | (run.validate(held_out_bytes) if run.finished else {})

    parameters = sum(p.numel() for p in run.trainer.model.parameters())
    serve(burst, ready={"parameters": parameters})


# -------------------------------------------------------------------------------- the report


def train_tokenizers(args: Args) -> dict[str, str]:
    """Train both tokenizers on the same training text, or take those that were given."""
    from minimind.data import Rejects, is_held_out
    from minimind.data.reader import Cursor, read_lines
    from minimind.tokenizer import train_tokenizer

    if args.plain_tokenizer is not None:
        return {"jieba-guided": args.tokenizer, "plain-bpe": args.plain_tokenizer}

    def texts() -> Iterator[str]:
        files = sorted(args.data.glob("*.jsonl*"))
        for file in files:
            left = args.tokenizer_mb * 2**20 // len(files)
            for _, line in read_lines(file, Cursor(), Rejects()):
                left -= len(line)
                if left < 0:
                    break
                text = json.loads(line)["text"]
                if not is_held_out(text, DataConfig().validation_share):
                    yield text

    paths = {}
    for name, jieba in (("jieba-guided", True), ("plain-bpe", False)):
        directory = args.work / f"{name}-{args.vocab_size}-{args.tokenizer_mb}mb"
        if not (directory / "tokenizer.json").exists():
            print(f"training {name}", file=sys.stderr)
            train_tokenizer(texts(), vocab_size=args.vocab_size, jieba=jieba).save(directory)
        paths[name] = str(directory)
    return paths


def compare(args: Args) -> list[dict[str, Any]]:
    """Train every arm with every seed; return one row of figures for each."""
    arms = args.arms or ARMS[args.compare]
    unknown = sorted(set(arms) - set(ARMS[args.compare]))
    if unknown:
        raise SystemExit(f"--arms {unknown[0]}: of {args.compare} there are {ARMS[args.compare]}")
    tokenizers = dict.fromkeys(arms, args.tokenizer)
    if args.compare == "tokenizer":
        tokenizers = train_tokenizers(args)
    rows = []
    own_steps = dict(one.split("=") for one in args.steps_of)
    for seed in range(args.first_seed, args.first_seed + args.seeds):
        payloads = [
            {**asdict(args), "arm": arm, "seed": seed, "tokenizer": tokenizers[arm],
             "steps": int(own_steps.get(arm, 0)) or args.steps, "data": str(args.data), "work": ""}
            for arm in arms
        ]  # fmt: skip
        # By steps nobody races: one after the other, so that only one is in memory.
        race = args.steps is None and args.tokens is None
        groups = [payloads] if race else [[payload] for payload in payloads]
        for one in itertools.chain.from_iterable(map(take_turns, groups)):
            rows.append(one)
            shown = {name: round(v, 4) if isinstance(v, float) else v for name, v in one.items()}
            print(json.dumps(shown), file=sys.stderr)
    return rows


def take_turns(payloads: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Train these arms side by side; return a row of figures each."""
    workers = [Worker(SCRIPT, payload, huge_pages=True) for payload in payloads]
    figures: list[dict[str, float]] = [{} for _ in workers]
    while not all(one.get("finished") for one in figures):
        for number, worker in enumerate(workers):
            if not figures[number].get("finished"):
                figures[number] = worker.burst()
    for worker in workers:
        worker.close()
    return [
        {"arm": payload["arm"], "seed": payload["seed"], **worker.ready, **one}
        for payload, worker, one in zip(payloads, workers, figures, strict=True)
    ]


def summarise(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return mean and spread over the seeds of each arm, best first."""
    summary = []
    rows = [*rows, *averaged(rows)]
    first = {row["seed"]: row["bits_per_byte"] for row in rows if row["arm"] == rows[0]["arm"]}
    for arm in dict.fromkeys(row["arm"] for row in rows):
        mine = [row for row in rows if row["arm"] == arm]
        gains = [row["bits_per_byte"] - first[row["seed"]] for row in mine if row["seed"] in first]
        bits = [row["bits_per_byte"] for row in mine]
        means = {
            name: statistics.mean(row[name] for row in mine)
            for name in ("learnt_tokens_per_second", "padding_share", "bytes_per_token", "steps",
                         "parameters", "held_out_bytes")
        }  # fmt: skip
        spread = statistics.stdev(bits) if len(bits) > 1 else 0.0
        summary.append(
            {"arm": arm, "n": len(bits), "bits_per_byte": statistics.mean(bits),
             "standard_deviation": spread, "min": min(bits), "max": max(bits),
             "over_first": statistics.mean(gains) if gains else None,
             "over_first_deviation": statistics.stdev(gains) if len(gains) > 1 else None, **means}
        )  # fmt: skip
    return sorted(summary, key=lambda one: one["bits_per_byte"])


def averaged(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a row for each running mean of the weights, as if it were an arm of its own."""
    mark = "bits_per_byte_mean_"
    return [
        {**row, "arm": f"{row['arm']}, mean {name.removeprefix(mark)}", "bits_per_byte": value}
        for row in rows
        for name, value in row.items()
        if name.startswith(mark)
    ]


def show(report: dict[str, Any]) -> None:
    """Print the table."""
    from rich.console import Console
    from rich.table import Table

    budget = f"{report['steps']} steps" if report["steps"] else f"{report['seconds']:.0f} s"
    if report["tokens"]:
        budget = f"{report['tokens']:,} tokens"
    table = Table(title=f"held-out bits per byte after {budget} each")
    for column in ("arm", "bits/byte", "± sd", "n", "over first", "± sd", "learnt tokens/s",
                   "padding", "bytes/token", "steps", "parameters"):  # fmt: skip
        table.add_column(column, justify="left" if column == "arm" else "right")
    for row in report["summary"]:
        table.add_row(
            row["arm"], f"{row['bits_per_byte']:.4f}", f"{row['standard_deviation']:.4f}",
            str(row["n"]), _signed(row["over_first"]),
            "" if row["over_first_deviation"] is None else f"{row['over_first_deviation']:.4f}",
            f"{row['learnt_tokens_per_second']:,.0f}",
            f"{row['padding_share']:.0%}", f"{row['bytes_per_token']:.2f}",
            f"{row['steps']:,.0f}", f"{row['parameters'] / 1e6:.2f}M",
        )  # fmt: skip
    Console(width=140).print(table)


def _signed(value: float | None) -> str:
    return "" if value is None else f"{value:+.4f}"


def main() -> None:
    if sys.argv[1:2] == ["--worker"]:
        work(json.loads(sys.argv[2]))
        return
    args = tyro.cli(Args, description=__doc__)
    rows = compare(args)
    report = {
        "compare": args.compare,
        "seconds": args.seconds,
        "steps": args.steps,
        "tokens": args.tokens,
        "summary": summarise(rows),
        "rows": rows,
    }
    if args.json:
        print(json.dumps(report, indent=1))
    else:
        show(report)


if __name__ == "__main__":
    main()
