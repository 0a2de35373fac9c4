"""`minimind quickstart`: every stage on real data, a report, then a chat."""

from __future__ import annotations

import locale
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro

from minimind.errors import ConfigError

if TYPE_CHECKING:
    from minimind.quickstart.config import QuickstartConfig


@dataclass(frozen=True, kw_only=True)
class Args:
    """Tokenizer, pretraining, SFT, DPO, evaluation and a report on real Chinese text, then a chat.

    Interrupt it whenever you like; the same command continues where it was.

    Attributes:
        out: the folder of everything.
        minutes: wall-clock of all stages together; each gets its share.
        model: the preset of the model's size.
        sources: what is trained on; see `minimind data list`.
        vocab_size: tokens of the tokenizer.
        seed: of every random choice.
        steps: pretraining and SFT steps, instead of measuring what this machine can do.
        language: of the explanations; default: Chinese where the locale is, else English.
        fresh: delete an earlier quickstart in --out first.
        chat: open the chat at the end; `auto`: when there is a terminal.
    """

    out: Path = Path("runs/quickstart")
    minutes: float = 11.0
    model: str = "nano"
    sources: str = "embedded"
    vocab_size: int = 6144
    seed: int = 42
    steps: int | None = None
    language: Literal["auto", "zh", "en"] = "auto"
    fresh: bool = False
    chat: Literal["auto", "yes", "no"] = "auto"


def main(argv: list[str]) -> int | None:
    """Run `minimind quickstart`; 130 when a signal ended it."""
    args = tyro.cli(Args, args=argv, prog="minimind quickstart")
    from minimind.quickstart.config import QuickstartConfig

    config = QuickstartConfig(
        out=args.out,
        minutes=args.minutes,
        model=args.model,
        sources=args.sources,
        vocab_size=args.vocab_size,
        seed=args.seed,
        steps=args.steps,
        language=choose_language(args.language),
    )
    if args.fresh:
        delete_earlier(config.out)
    return run_stages(config, chat=args.chat)


def run_stages(config: QuickstartConfig, *, chat: Literal["auto", "yes", "no"]) -> int | None:
    """Do every stage, write the report, and open the chat; 130 when a signal ended it."""
    from minimind.cli.console import SteadyConsole
    from minimind.quickstart.stages import Quickstart
    from minimind.quickstart.words import HONEST

    console = SteadyConsole()
    try:
        done = Quickstart(config, console).run()
    except KeyboardInterrupt:
        done = False
    if not done:
        console.print("stopped; the same command continues", highlight=False)
        return 130
    from minimind.report.files import print_report, read_run, write_report

    written = write_report(config.out)
    print_report(read_run(config.out), console, language=config.language)
    console.print(f"\n{', '.join(map(str, written))}", highlight=False, soft_wrap=True)
    console.print(f"\n{HONEST[config.language]}", style="italic", highlight=False)
    if chat == "yes" or (chat == "auto" and sys.stdin.isatty() and sys.stdout.isatty()):
        from minimind.cli import chat as chat_verb

        return chat_verb.main([str(config.out / "dpo")])
    console.print(f"chat with it: minimind chat {config.out / 'dpo'}", highlight=False)
    return None


def choose_language(wish: str) -> Literal["zh", "en"]:
    """Return the language that was asked for; `auto` is Chinese where the locale is."""
    if wish == "auto":
        name = locale.setlocale(locale.LC_CTYPE, "") or ""
        return "zh" if name.lower().startswith(("zh", "chinese")) else "en"
    return "zh" if wish == "zh" else "en"


def delete_earlier(out: Path) -> None:
    """Delete an earlier quickstart, its folder and all: only it can have been made there."""
    if out.exists() and any(out.iterdir()):
        if not (out / "settings.json").exists():
            raise ConfigError(f"--fresh: {out} is not a quickstart; it is left as it is")
        shutil.rmtree(out)
