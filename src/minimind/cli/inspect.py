"""`minimind inspect CHECKPOINT [SECOND] --text TEXT`: what a model does while it reads."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from minimind.cli.generate import ModelFlags
from minimind.errors import DataError, UserError

if TYPE_CHECKING:
    from minimind.inspect import Comparison, Reading
    from minimind.inspect.prompts import Prompt

MOST_SURPRISING = 8


@dataclass(frozen=True, kw_only=True)
class Args:
    """Look inside a model while it reads a text: one HTML page, and the main figures here.

    The page shows each token's odds and alternatives, every head's attention, what each layer
    would have said (logit lens), where the text goes round in circles and which heads copy; for
    two checkpoints also both side by side, bit by bit, whatever their tokenizers.

    Attributes:
        checkpoints: one or two: a checkpoint directory, a run directory (its newest), or RUN:best.
        text: what to read; with --chat a user's message.
        file: read the text from this file (UTF-8).
        messages: read a conversation: a JSON file with a list of messages, or {"messages": [...]}.
        chat: treat the text as a user's message, for models after SFT.
        generate: let the (first) model go on for at most so many tokens, then read the whole.
        temperature: of what is generated; 0 always takes the likeliest token.
        seed: makes what is generated repeatable.
        layers: keep the attention of these layers only, numbered from 0.
        heads: keep the attention of these heads only, numbered from 0.
        out: the page.
        language: of the page when it opens; a button changes it.
        json: print every figure but the attention maps as JSON instead of the tables.
        device: auto takes a GPU where there is one.
    """

    checkpoints: Annotated[
        tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="CHECKPOINT [SECOND]")
    ]
    text: str | None = None
    file: Path | None = None
    messages: Path | None = None
    chat: bool = False
    generate: int = 0
    temperature: float = 0.0
    seed: int | None = None
    layers: tuple[int, ...] | None = None
    heads: tuple[int, ...] | None = None
    out: Path = Path("inspect.html")
    language: Literal["auto", "zh", "en"] = "auto"
    json: bool = False
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"


def main(argv: list[str]) -> int:
    """Run `minimind inspect`."""
    args = tyro.cli(Args, args=argv, prog="minimind inspect")
    prompt = _prompt(args)
    if not 1 <= len(args.checkpoints) <= 2:
        raise UserError(
            f"{len(args.checkpoints)} checkpoints: give one to look inside, or two to lay side by "
            "side"
        )
    if not args.out.parent.is_dir():
        raise UserError(f"--out {args.out}: the folder {args.out.parent} does not exist")
    from minimind.inspect import compare, write_page

    readings = _read(args, prompt)
    size = write_page(args.out, readings, language=args.language)
    comparison = compare(*readings) if len(readings) == 2 else None
    if args.json:
        print(json.dumps(_figures(readings, comparison, args.out, size), ensure_ascii=False))
        return 0
    console = Console(highlight=False)
    for reading in readings:
        _show(console, reading)
    if comparison:
        _show_comparison(console, comparison)
    console.print(f"{escape(str(args.out))}: {size / 1e6:.2f} MB; open it in a browser")
    return 0


def _prompt(args: Args) -> Prompt:
    given = [
        flag
        for flag, value in (
            ("--text", args.text), ("--file", args.file), ("--messages", args.messages),
        )
        if value is not None
    ]  # fmt: skip
    if len(given) != 1:
        raise UserError(
            f"{' and '.join(given) or 'nothing to read'}: give one of --text, --file, --messages"
        )
    if args.messages is not None:
        return _messages(args.messages)
    text = args.text if args.file is None else _content("--file", args.file)
    if not text or not text.strip():
        raise DataError(f"{given[0]} is empty: give at least one character")
    return [{"role": "user", "content": text}] if args.chat else text


def _messages(path: Path) -> Prompt:
    try:
        value = json.loads(_content("--messages", path))
    except ValueError as error:
        raise DataError(f"--messages {path}: not JSON ({error})") from error
    messages = value.get("messages") if isinstance(value, dict) else value
    if not isinstance(messages, list):
        raise DataError(
            f'--messages {path}: wants a list of messages, or {{"messages": [...]}}, as the chat '
            "page saves it"
        )
    return messages


def _content(flag: str, path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{flag} {path}: {error}") from error


def _read(args: Args, prompt: Prompt) -> list[Reading]:
    from minimind.inference import SamplingParams
    from minimind.inspect import read, read_beside

    params = SamplingParams(
        temperature=args.temperature, top_p=1.0, repetition_penalty=1.0, seed=args.seed
    )
    names = _names(args.checkpoints)
    flags = ModelFlags(device=args.device)
    model, tokenizer = flags.load(args.checkpoints[0])
    first = read(
        model, tokenizer, prompt, name=names[0], generate=args.generate, params=params,
        layers=args.layers, heads=args.heads,
    )  # fmt: skip
    if len(names) == 1:
        return [first]
    model, tokenizer = flags.load(args.checkpoints[1])
    second = read_beside(
        first, model, tokenizer, prompt=prompt, name=names[1], layers=args.layers,
        heads=args.heads,
    )  # fmt: skip
    return [first, second]


def _names(checkpoints: tuple[str, ...]) -> list[str]:
    """Return the last part of each path, or more of it where two would be called the same."""
    paths = [Path(checkpoint) for checkpoint in checkpoints]
    names = [path.resolve().name if path.name in {"", "."} else path.name for path in paths]
    return names if len(set(names)) == len(names) else list(checkpoints)


def _show(console: Console, reading: Reading) -> None:
    from minimind.inspect import logit_lens, repetition, token_odds

    odds = token_odds(reading, top=3)
    known = [(at, one) for at, one in enumerate(odds, 1) if one.bits is not None]
    bits = sum(one.bits or 0.0 for _, one in known)
    characters = sum(map(len, reading.pieces))
    console.print(
        f"[bold]{escape(reading.name)}[/]: {len(odds):,} tokens, {characters:,} characters, "
        f"{bits / max(1, len(known)):.2f} bits a token"
    )
    table = Table("token", "", "odds", "bits", "entropy", "rank", "likeliest", box=None)
    for at, one in sorted(known, key=lambda pair: -(pair[1].bits or 0.0))[:MOST_SURPRISING]:
        likeliest = "  ".join(f"{a.text} {a.probability:.0%}" for a in one.alternatives)
        table.add_row(
            str(at), escape(one.text), f"{one.probability:.2%}", f"{one.bits:.1f}",
            f"{one.entropy:.1f}", f"{one.rank:,}", escape(likeliest),
        )  # fmt: skip
    console.print("the most surprising:", style="dim")
    console.print(table)
    layers = " → ".join(f"{value:.1f}" for value in logit_lens(reading).bits())
    console.print(f"bits a token after the embedding and each layer: {layers}")
    found = repetition(reading)
    if found.loop:
        start, period, end = found.loop.start + 1, found.loop.period, found.loop.end
        console.print(
            f"from token {start} to {end} the same stretch comes again and again (length {period})"
        )
    copiers = "  ".join(f"L{h.layer} H{h.head} {h.copying:.0%}" for h in found.copiers())
    console.print(f"heads that copy most: {copiers or 'none above twice the chance'}")


def _show_comparison(console: Console, comparison: Comparison) -> None:
    table = Table("", "bits a character", "bits", "tokens", box=None)
    for side, name in enumerate(comparison.names):
        table.add_row(
            escape(name), f"{comparison.bits_per_character[side]:.3f}",
            f"{comparison.bits[side]:.0f}", f"{comparison.tokens[side]:,}",
        )  # fmt: skip
    console.print("side by side, markup left out (one text is one example):", style="dim")
    console.print(table)


def _figures(
    readings: list[Reading], comparison: Comparison | None, out: Path, size: int
) -> dict[str, Any]:
    from dataclasses import asdict

    from minimind.inspect import logit_lens, repetition, token_odds

    models = []
    for reading in readings:
        found = repetition(reading)
        models.append(
            {
                "name": reading.name,
                "generated_from": reading.generated,
                "tokens": [asdict(one) for one in token_odds(reading)],
                "lens_bits": logit_lens(reading).bits(),
                "repetition": asdict(found),
            }
        )
    figures: dict[str, Any] = {"page": str(out), "bytes": size, "models": models}
    if comparison:
        figures["beside"] = asdict(comparison) | {
            "bits_per_character": comparison.bits_per_character
        }
    return figures
