"""`minimind data preferences CHECKPOINT`: pairs from the model's own answers (see `cli.data`)."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from minimind.cli.generate import ModelFlags


@dataclass(frozen=True, kw_only=True)
class Args:
    """Make preference pairs from a model's own answers, checked by a verifier.

    Attributes:
        checkpoint: the model after SFT.
        problems: JSON lines with prompt, solution and answer_value, from `minimind data build`.
        out: where the pairs go; `<name>.meta.json` beside it says how they came about.
        samples: answers sampled for each problem.
        pairs: pairs kept for each problem.
        temperature: of sampling; high, so that mistakes are found.
        max_new_tokens: an answer that isn't finished by then is not used.
        chosen: own takes a right answer of the model itself where there is one.
        limit: only so many problems.
        held_out_share: share of the problems that are marked as held out, by their hash.
        batch_rows: answers decoded side by side.
        seed: makes the answers repeatable.
        json: print the counts as JSON.
    """

    checkpoint: tyro.conf.Positional[str]
    problems: Path
    out: Path = Path("preferences.jsonl")
    samples: int = 4
    pairs: int = 1
    temperature: float = 1.0
    max_new_tokens: int = 192
    chosen: Literal["own", "published"] = "own"
    limit: int | None = None
    held_out_share: float = 0.05
    batch_rows: int = 64
    seed: int = 42
    json: bool = False
    model: Annotated[ModelFlags, tyro.conf.arg(name="")] = field(default_factory=ModelFlags)


def main(argv: list[str]) -> int:
    """Run `minimind data preferences`."""
    args = tyro.cli(Args, args=argv, prog="minimind data preferences")
    from minimind.train.preferences import (
        PreferenceConfig,
        make_preferences,
        read_problems,
        write_preferences,
    )

    config = PreferenceConfig(
        samples=args.samples,
        pairs=args.pairs,
        temperature=args.temperature,
        max_new_tokens=args.max_new_tokens,
        chosen=args.chosen,
        limit=args.limit,
        held_out_share=args.held_out_share,
        batch_rows=args.batch_rows,
        seed=args.seed,
    )
    problems, skipped = read_problems(args.problems)
    model, tokenizer = args.model.load(args.checkpoint)
    notes = Console(stderr=True)
    with Progress(console=notes, transient=True, disable=not notes.is_terminal) as progress:
        wanted = len(problems[: args.limit]) * args.samples
        bar = progress.add_task("sampling answers", total=wanted)
        made = make_preferences(
            model,
            tokenizer,
            problems=problems,
            config=config,
            on_answer=lambda _: progress.advance(bar),
        )
    made.counts.update({f"skipped: {reason}": count for reason, count in skipped.items()})
    meta_path = write_preferences(made, args.out, checkpoint=args.checkpoint, config=config)
    out = Console(highlight=False)
    if args.json:
        figures = {"counts": dict(made.counts), "mean_tokens": made.tokens, "out": str(args.out)}
        out.out(json.dumps(figures, ensure_ascii=False))
        return 0
    table = Table(title=f"{len(made.rows):,} pairs in {args.out}", show_header=False)
    for name, count in made.counts.items():
        table.add_row(name, f"{count:,}")
    for side, mean in made.tokens.items():
        table.add_row(f"mean tokens, {side}", f"{mean:.1f}")
    out.print(table)
    out.print(f"how they came about: {meta_path}", soft_wrap=True)
    return 0
