"""Which recipe learns most in the same wall-clock: held-out bits per byte, several seeds.

    python bench/recipe.py --data FOLDER --compare recipe     ours, the original's way, packed AdamW
    python bench/recipe.py --data FOLDER --compare width      64m- against 64m-wide-shaped, small
    python bench/recipe.py --data FOLDER --compare tokenizer  jieba-guided against plain BPE
    python bench/recipe.py --data FOLDER --compare rows       rows of a step and rates
    python bench/recipe.py --data FOLDER --compare search     one setting changed at a time
    python bench/recipe.py --data FOLDER --compare epochs --tokens N    fresh text, or read again
    python bench/recipe.py --data FOLDER --compare mix        shares of the sources, or without one
    python bench/recipe.py --data FOLDER --compare float8     8-bit products, emulated, against bf16
    python bench/recipe.py --data FOLDER --compare moe        experts against dense shapes, small
    python bench/recipe.py --data FOLDER --compare balance    what keeps experts busy, small

Each arm lives in a process of its own and trains for `--seconds`; the arms take turns of `--turn`
seconds, so that whatever else the machine does meets all of them (`--clock cpu` counts only seconds
in which an arm computes). Compilation is not counted (a run of hours doesn't feel it). The
learning-rate schedule follows the share of the time that has passed.
With `--steps N` every arm trains for N steps instead, on the same batches, whatever time it takes:
equal tokens, fit for a machine that others use; with `--tokens N` for N tokens, where arms have
steps of different sizes. `--steps-of ARM=M` gives one arm M steps: what it does in the time of the
others by its rate in `bench/moe.py`. `--side-by-side` lets these take turns as well, so that
`processor_seconds_per_step` of arms can be compared: their ratios are printed.
`--target B` validates an arm `--checks` times on its way and notes the step and the processor time
after which it was at B bits per byte or below.
All arms are measured on the same held-out text, `--validation-mb` of it, in rows of the preset's
length. What the arms change is in `recipe_arms.py`; `--arms A+B` of `search` changes both.
"""

from __future__ import annotations

import itertools
import json
import sys
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import tyro

from recipe_arms import STAGED, Base, Compare, arm_config, check_arms
from recipe_data import part_of_the_text, train_tokenizers
from recipe_report import show, summarise
from timed_run import TimedRun
from workers import Worker, serve

SCRIPT = Path(__file__).resolve()
SOURCE_BYTES = 20_000
"""Held-out text of each source that `mix` measures on its own."""


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
    preset: str = "nano"
    """Whose model and settings the arms change."""
    rows: int | None = None
    """For `search`, `epochs` and `mix`: rows of a step; None: the preset's."""
    averages: tuple[float, ...] = ()
    """Measure running means of the weights with these decays as well (`train.average_decay`)."""
    target: float | None = None
    """Bits per byte: note when an arm, with the schedule of its budget, is as good as this."""
    checks: int = 10
    """With `--target`: validations of an arm, evenly over its budget; their time isn't counted."""
    side_by_side: bool = False
    """With --steps or --tokens: all arms at once, in turns, in place of one after the other. Their
    first two steps aren't counted, compiled or not."""
    turn: float = 20.0
    seeds: int = 3
    first_seed: int = 0
    validation_mb: float = 0.3
    compile: bool = True
    work: Path = Path("runs/bench-recipe")
    """Where tokenizers trained here are kept, and parts of the text."""
    json: bool = False


# ---------------------------------------------------------------------------- inside a worker


@dataclass(kw_only=True)
class Way:
    """Held-out bits per byte on an arm's way, and when it first was at the target.

    Attributes:
        target: bits per byte; None: nothing is noted.
        checks: validations over the whole budget, the one at its end among them.
        points: step, processor seconds and bits per byte of each.
    """

    target: float | None
    checks: int
    points: list[dict[str, float]] = field(default_factory=list)

    def next_share(self, progress: float) -> float:
        """Return the share of the budget at which to validate next."""
        return (
            1.0 if self.target is None else (int(progress * self.checks + 1e-9) + 1) / self.checks
        )

    def note(self, figures: dict[str, Any]) -> None:
        """Take the figures of a validation."""
        names = ("steps", "processor_seconds", "bits_per_byte")
        self.points.append({name: figures[name] for name in names})

    def figures(self) -> dict[str, Any]:
        """Return all points, and the first at the target (None: never)."""
        if self.target is None:
            return {}
        there = [one for one in self.points if one["bits_per_byte"] <= self.target]
        first = there[0] if there else dict.fromkeys(self.points[0])
        return {
            "way": self.points,
            "steps_to_target": first["steps"],
            "processor_seconds_to_target": first["processor_seconds"],
        }


def work(payload: dict[str, Any]) -> None:
    """Prepare one arm, then train for a turn at each line of stdin."""
    from minimind.tokenizer import Tokenizer
    from minimind.train.rng import seed_all

    tokenizer = Tokenizer.load(payload["tokenizer"])
    arm, seed = payload["arm"], payload["seed"]
    base = Base(preset=payload["preset"], data=Path(payload["data"]), rows=payload["rows"],
                vocab_size=tokenizer.vocab_size)  # fmt: skip
    config = arm_config(arm, base, seed=seed)
    if not payload["compile"]:
        config = replace(config, train=replace(config.train, compile=False))
    then = None
    if arm in STAGED:
        _, share, later = STAGED[arm]
        then = (share, arm_config(later, base, seed=seed + 1000))
    if payload["compare"] == "epochs":
        part = part_of_the_text(
            base.data, Path(payload["work"]), tokenizer=tokenizer, seed=seed,
            tokens=payload["tokens"] // int(arm.removeprefix("epochs-")),
        )  # fmt: skip
        config = replace(config, data=replace(config.data, train=(str(part),)))
    seed_all(config.seed)
    run = TimedRun(
        config, tokenizer, seconds=payload["seconds"], clock=payload["clock"],
        steps=payload["steps"], tokens=payload["tokens"], then=then, averages=payload["averages"],
        float8=arm == "fp8-emulated", held_out=base.run(seed).data,
    )  # fmt: skip
    if payload["compile"] or payload["side_by_side"]:
        run.warm_up()
    held_out_bytes = int(payload["validation_mb"] * 2**20)

    way = Way(target=payload["target"], checks=payload["checks"])

    def burst() -> dict[str, Any]:
        share = way.next_share(run.progress)
        run.train(payload["turn"], until_share=share)
        figures: dict[str, Any] = run.figures()
        if run.finished:
            figures |= run.validate(held_out_bytes)
        elif run.progress >= share:
            way.note(figures | run.validate(held_out_bytes))
        if run.finished:
            way.note(figures)
            figures |= way.figures()
            figures |= run.validate_sources(SOURCE_BYTES) if payload["compare"] == "mix" else {}
        return figures

    parameters = sum(p.numel() for p in run.trainer.model.parameters())
    serve(burst, ready={"parameters": parameters})


# ---------------------------------------------------------------------------- outside of them


def compare(args: Args) -> list[dict[str, Any]]:
    """Train every arm with every seed; return one row of figures for each."""
    arms = check_arms(args.compare, args.arms, args.data)
    if args.compare == "epochs" and args.tokens is None:
        raise SystemExit("--compare epochs: give --tokens, how much an arm reads in all its epochs")
    tokenizers = dict.fromkeys(arms, args.tokenizer)
    if args.compare == "tokenizer" and args.plain_tokenizer is not None:
        tokenizers["plain-bpe"] = args.plain_tokenizer
    elif args.compare == "tokenizer":
        tokenizers = train_tokenizers(
            args.data, args.work, megabytes=args.tokenizer_mb, vocab_size=args.vocab_size
        )
    rows = []
    own_steps = dict(one.split("=") for one in args.steps_of)
    for seed in range(args.first_seed, args.first_seed + args.seeds):
        payloads = [
            {**asdict(args), "arm": arm, "seed": seed, "tokenizer": tokenizers[arm],
             "steps": int(own_steps.get(arm, 0)) or args.steps, "data": str(args.data),
             "work": str(args.work)}
            for arm in arms
        ]  # fmt: skip
        # By steps nobody races: one after the other, so that only one is in memory.
        race = args.side_by_side or (args.steps is None and args.tokens is None)
        groups = [payloads] if race else [[payload] for payload in payloads]
        for one in itertools.chain.from_iterable(map(take_turns, groups)):
            rows.append(one)
            shown = {name: round(v, 4) if isinstance(v, float) else v for name, v in one.items()}
            print(json.dumps(shown), file=sys.stderr)
    return rows


def take_turns(payloads: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Train these arms side by side; return a row of figures each."""
    workers = [Worker(SCRIPT, payload, huge_pages=True) for payload in payloads]
    figures: list[dict[str, Any]] = [{} for _ in workers]
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
        "target": args.target,
        "summary": summarise(rows),
        "rows": rows,
    }
    if args.json:
        print(json.dumps(report, indent=1))
    else:
        show(report)


if __name__ == "__main__":
    main()
