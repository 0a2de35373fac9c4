"""`minimind speedrun`: the whole path at full size on one GPU, in a budget of time."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from minimind.cli.quickstart import choose_language, delete_earlier, run_stages
from minimind.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Args:
    """Data, tokenizer, pretraining, SFT, DPO, evaluation and report of a 64M model on one GPU.

    The micro-batch (not the step, which is 512 rows) comes from the card's memory, the number of
    steps and the warm-down from its measured rate and the budget. Interrupt it whenever you like;
    the same command continues.

    Attributes:
        out: the folder of everything.
        budget: wall-clock of all stages together: `2h`, `90m`, or minutes.
        model: the preset of the model's size.
        sources: what is trained on; see `minimind data list`.
        data: a folder that `minimind data build` wrote, instead of building one of `sources`.
        text: more text for pretraining, your own or public: JSONL, .txt, Parquet, folders or
            `hub:NAME`. Files are mixed in by size, of the hub nine tenths are read.
        text_share: another share of --text; 1: pretraining reads nothing else.
        accept_licences: licences beside the open ones under which hub data may be used.
        tokenizer: one to use instead of training one of the model's vocabulary; `default` is the
            package's.
        steps: pretraining and SFT steps, instead of measuring what this machine can do.
        seed: of every random choice.
        language: of the explanations; default: Chinese where the locale is, else English.
        fresh: delete an earlier run in --out first.
        chat: open the chat at the end; `auto`: when there is a terminal.
        without_gpu: go on without a CUDA device, in days instead of hours.
    """

    out: Path = Path("runs/speedrun")
    budget: str = "2h"
    model: str = "64m"
    sources: str = "full"
    data: Path | None = None
    text: tuple[str, ...] = ()
    text_share: float | None = None
    accept_licences: tuple[str, ...] = ()
    tokenizer: str | None = None
    steps: int | None = None
    seed: int = 42
    language: Literal["auto", "zh", "en"] = "auto"
    fresh: bool = False
    chat: Literal["auto", "yes", "no"] = "no"
    without_gpu: bool = False


def main(argv: list[str]) -> int | None:
    """Run `minimind speedrun`; 130 when a signal ended it."""
    args = tyro.cli(Args, args=argv, prog="minimind speedrun")
    minutes = parse_budget(args.budget)
    if args.data is not None and not (args.data / "pretrain").is_dir():
        raise ConfigError(
            f"--data {args.data}: there is no folder pretrain in it; `minimind data build "
            f"--sources full --out {args.data}` makes one"
        )
    import torch

    from minimind.quickstart.config import QuickstartConfig, speedrun_shares
    from minimind.settings import load_model_config

    if not (torch.cuda.is_available() or args.without_gpu):
        raise ConfigError(
            f"torch {torch.__version__} sees no CUDA device, and {args.model} in {args.budget} is "
            "a GPU's work. `minimind doctor` says what this machine can do; `minimind quickstart` "
            "is made for it; --without-gpu goes on all the same"
        )
    config = QuickstartConfig(
        out=args.out,
        minutes=minutes,
        model=args.model,
        layers=("speedrun",) if torch.cuda.is_available() else (),
        tokenizer=args.tokenizer,
        shares=speedrun_shares(minutes),
        sources=args.sources,
        data=args.data,
        text=args.text,
        text_share=args.text_share,
        accept_licences=args.accept_licences,
        vocab_size=load_model_config(args.model).vocab_size,
        seed=args.seed,
        steps=args.steps,
        language=choose_language(args.language),
        verb="speedrun",
    )
    if args.fresh:
        delete_earlier(config.out)
    return run_stages(config, chat=args.chat)


def parse_budget(text: str) -> float:
    """Return minutes of `2h`, `1h30m`, `90m` or `90`.

    Raises:
        ConfigError: it is none of these, or nothing at all.
    """
    found = re.fullmatch(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m?)?", text.strip().lower())
    minutes = 60 * float(found[1] or 0) + float(found[2] or 0) if found else 0.0
    if minutes <= 0:
        raise ConfigError(f"--budget {text!r}: write hours or minutes, such as 2h, 1h30m or 90m")
    return minutes
