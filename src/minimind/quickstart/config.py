"""What a quickstart is asked for, and how its minutes are shared out."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from minimind.errors import ConfigError
from minimind.quickstart.words import Language

Shares = Mapping[str, float]

SHARE: Shares = {
    "pretrain": 0.58, "sft": 0.16, "preferences": 0.07, "dpo": 0.06, "evaluation": 0.13,
}  # fmt: skip
"""Shares of the minutes that are left after data, tokenizer and plan."""

LONG_SHARE: Shares = {
    "pretrain": 0.84, "sft": 0.07, "preferences": 0.03, "dpo": 0.02, "evaluation": 0.04,
}  # fmt: skip
"""The same of a run of hours: instructions and preferences are few, and are soon read."""


def speedrun_shares(minutes: float) -> Shares:
    """Return the shares of a run of so many minutes: `LONG_SHARE`, the nearer to `SHARE` the less.

    Evaluation hardly costs less in a short run: with `LONG_SHARE`, 8 minutes left it 18 seconds.
    """
    short = min(1.0, 10 / minutes)
    return {name: LONG_SHARE[name] + (SHARE[name] - LONG_SHARE[name]) * short for name in SHARE}


PROBLEMS_PER_SECOND = 10.0
"""Problems that `nano` answers twice in a second on 2 CPU cores (docs/LOG.md)."""

SFT_WEIGHTS = (0.9, 0.1)
"""Shares of sft.jsonl and of self.jsonl, the few conversations that tell the model what it is."""

TEXT_HELD_OUT = 0.01
"""Share of the documents that no stage reads; bits per byte are measured on these."""

QUESTIONS_HELD_OUT = 0.1
"""Share of instructions and problems that no stage reads: by the hash of the user's words, so a
problem is on the same side in pretraining text, SFT and DPO."""


@dataclass(frozen=True, kw_only=True)
class QuickstartConfig:
    """Settings of one quickstart.

    Attributes:
        out: the folder of everything.
        minutes: wall-clock of all stages together, installation not included.
        model: the preset of the model's size.
        layers: further presets that pretraining is laid with.
        tokenizer: one to use instead of training one; `default` is the package's.
        shares: of the minutes, for each stage.
        sources: what `minimind data build --sources` is asked for.
        data: a folder that `minimind data build` wrote; None builds one.
        text: pretraining text beside it, as `data.train` takes it; see `minimind.quickstart.text`.
        text_share: of what pretraining reads, from `text`; 1: nothing else. None: by size.
        accept_licences: as `data.accept_licences`, for `text` from the hub.
        vocab_size: tokens of the tokenizer; the model's is set to it.
        seed: of every random choice.
        steps: pretraining steps, instead of measuring this machine.
        language: of the explanations; the report is written in both.
        verb: of the command line that asked: `quickstart` or `speedrun`.
    """

    out: Path = Path("runs/quickstart")
    minutes: float = 11.0
    model: str = "nano"
    layers: tuple[str, ...] = ()
    tokenizer: str | None = None
    shares: Shares = field(default_factory=lambda: SHARE)
    sources: str = "embedded"
    data: Path | None = None
    text: tuple[str, ...] = ()
    text_share: float | None = None
    accept_licences: tuple[str, ...] = ()
    vocab_size: int = 6144
    seed: int = 42
    steps: int | None = None
    language: Language = "zh"
    verb: Literal["quickstart", "speedrun"] = "quickstart"

    def __post_init__(self) -> None:
        if self.minutes <= 0:
            raise ConfigError(f"--minutes {self.minutes}: must be more than 0")
        if self.steps is not None and self.steps < 1:
            raise ConfigError(f"--steps {self.steps}: must be at least 1")
        if self.text_share is not None and not (self.text and 0 < self.text_share <= 1):
            raise ConfigError(
                f"--text-share {self.text_share:g}: above 0, at most 1, and only with --text"
            )

    @property
    def command(self) -> str:
        """Return what does all of it again."""
        flags: dict[str, Any] = {"out": self.out, **self.identity}
        if self.verb == "speedrun":  # its vocabulary is the model's
            flags |= {"budget": f"{self.minutes:g}m", "vocab_size": None}
        else:
            flags |= {"minutes": self.minutes}
        words = [f"--{k.replace('_', '-')} {said(v)}" for k, v in flags.items() if v is not None]
        gpu = self.verb == "quickstart" or "speedrun" in self.layers
        return " ".join(
            ["minimind", self.verb, *words, *([] if gpu else ["--without-gpu"]), "--fresh"]
        )

    @property
    def identity(self) -> dict[str, Any]:
        """Return what must stay the same for a quickstart to be continued."""
        plain = asdict(self) | {
            "data": self.data and str(self.data), "text": list(self.text),
            "accept_licences": list(self.accept_licences),
        }  # fmt: skip
        names = ["model", "sources", "vocab_size", "seed", "steps"]
        names += [
            name for name in ("tokenizer", "data", "text", "text_share", "accept_licences")
            if plain[name]
        ]  # fmt: skip
        return {key: plain[key] for key in names}


def said(value: object) -> str:
    """Return a flag's value, or its values, as a command line has them."""
    values = value if isinstance(value, list | tuple) else [value]
    return " ".join(shlex.quote(str(one)) for one in values)
