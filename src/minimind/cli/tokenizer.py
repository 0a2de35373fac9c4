"""`minimind tokenizer train | show | encode | report`."""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console
from rich.text import Text
from tyro.conf import Positional

from minimind.errors import DataError
from minimind.tokenizer import SPECIAL_TOKENS, Tokenizer

LEARNT_STYLE, CONTEXT_STYLES = "bold green", ("cyan", "magenta")


@dataclass(frozen=True, kw_only=True)
class Train:
    """Train a tokenizer on files of text.

    Attributes:
        files: .jsonl or .txt (.zst, .gz), globs or folders; rows with `text` or a conversation.
            In .txt each line is a document.
        out: directory to write it to.
        vocab_size: tokens, the 16 special ones and the 256 bytes included.
        jieba: keep merges inside words; `--no-jieba` is plain BPE.
        held_out_share: this share of the documents, chosen by hash, is not looked at.
        max_share: no file gives more than this share of the characters; a bigger one is thinned.
    """

    files: Positional[tuple[str, ...]]
    out: Path
    vocab_size: int = 12_000
    jieba: bool = True
    held_out_share: float = 0.01
    max_share: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Show:
    """Print a vocabulary as people read it (in tokenizer.json it is in byte-level spelling).

    Attributes:
        path: a directory with a tokenizer.json, or `default`.
        contains: only tokens with this text.
        longest: only the N longest, by characters.
        sample: only N at random.
        seed: of the sample.
        json: one JSON object a line: id, text (null for half a character), bytes in hex.
    """

    path: Positional[str] = "default"
    contains: str = ""
    longest: int | None = None
    sample: int | None = None
    seed: int = 0
    json: bool = False


@dataclass(frozen=True, kw_only=True)
class Encode:
    """Print text cut into tokens, each with its id.

    Attributes:
        text: the text; `-` reads it from standard input.
        tokenizer: a directory with a tokenizer.json, or `default`.
        chat: the text is JSON: a list of messages, or a row with `messages` or `conversations`
            (and `tools`). What SFT would learn is between ⟦ and ⟧, in green.
        json: print `{"ids", "mask"}`.
    """

    text: Positional[str]
    tokenizer: str = "default"
    chat: bool = False
    json: bool = False


@dataclass(frozen=True, kw_only=True)
class Report:
    """Measure characters and bytes per token on the held-out documents of files.

    Attributes:
        files: as for `train`.
        tokenizer: one or several; they are shown side by side.
        held_out_share: the share that `train` left out; 1 measures every document.
        json: print the rows as JSON.
    """

    files: Positional[tuple[str, ...]]
    tokenizer: tuple[str, ...] = ("default",)
    held_out_share: float = 0.01
    json: bool = False


Command = (
    Annotated[Train, tyro.conf.subcommand("train")]
    | Annotated[Show, tyro.conf.subcommand("show")]
    | Annotated[Encode, tyro.conf.subcommand("encode")]
    | Annotated[Report, tyro.conf.subcommand("report")]
)


def main(argv: list[str]) -> int | None:
    """Run the verb."""
    command: Any = tyro.cli(Command, prog="minimind tokenizer", args=argv)  # pyright: ignore
    console = Console(highlight=False)
    match command:
        case Show():
            show(command, console)
        case Encode():
            encode(command, console)
        case _:
            from minimind.cli import tokenizer_corpus  # reading a corpus brings torch

            tokenizer_corpus.run(command, console)
    return None


def show(command: Show, console: Console) -> None:
    """Print the vocabulary."""
    tokenizer = Tokenizer.load(command.path)
    tokens = [(i, tokenizer.token_bytes(i)) for i in range(tokenizer.vocab_size)]
    if not command.json:
        console.print(_summary(tokens), markup=False)
    if command.contains:
        tokens = [(i, raw) for i, raw in tokens if command.contains in (_whole(raw) or "")]
    if command.longest is not None:
        tokens.sort(key=lambda token: (-len(_whole(token[1]) or ""), token[0]))
        tokens = tokens[: command.longest]
    if command.sample is not None:
        count = min(command.sample, len(tokens))
        tokens = sorted(random.Random(command.seed).sample(tokens, count))
    for token_id, raw in tokens:
        if command.json:
            row = {"id": token_id, "text": _whole(raw), "bytes": raw.hex()}
            print_json(console, row)
        else:
            half = "" if _whole(raw) is not None else "  ½ part of a character"
            console.print(f"{token_id:>6}  {_readable(raw)}{half}", markup=False)


def _summary(tokens: list[tuple[int, bytes]]) -> str:
    kinds = {"half characters": 0, "hanzi": 0, "words of 2 hanzi": 0, "3": 0, "4 and more": 0,
             "Latin letters": 0, "other": 0}  # fmt: skip
    for _, raw in tokens[len(SPECIAL_TOKENS) :]:
        text = _whole(raw)
        if text is None:
            kinds["half characters"] += 1
        elif all("\u3400" <= char <= "\u9fff" for char in text):
            kinds[("hanzi", "words of 2 hanzi", "3", "4 and more")[min(len(text), 4) - 1]] += 1
        elif text.strip().isascii() and text.strip().isalpha():
            kinds["Latin letters"] += 1
        else:
            kinds["other"] += 1
    counts = ", ".join(f"{kind}: {count:,}" for kind, count in kinds.items())
    return f"{len(tokens):,} tokens: special: {len(SPECIAL_TOKENS)}, {counts}"


def encode(command: Encode, console: Console) -> None:
    """Print text, or a conversation with its mask, cut into tokens."""
    tokenizer = Tokenizer.load(command.tokenizer)
    text = sys.stdin.read() if command.text == "-" else command.text
    if command.chat:
        messages, tools = _conversation(text)
        rendered = tokenizer.render(messages, tools=tools)
        ids, mask = rendered.ids, rendered.mask
    else:
        ids, mask = tokenizer.encode(text), None
    if command.json:
        print_json(console, {"ids": ids} | ({"mask": mask} if mask is not None else {}))
        return
    console.print(coloured(tokenizer, ids, mask), soft_wrap=True)
    size = f"{len(ids)} tokens"
    if mask is None:
        ratio = f", {len(text) / len(ids):.2f} characters a token" if ids else ""
        console.print(f"{size}, {len(text)} characters{ratio}", style="dim")
    else:
        console.print(f"{size}, {sum(mask)} of them learnt (green, between ⟦ and ⟧)", style="dim")


def coloured(tokenizer: Tokenizer, ids: Sequence[int], mask: Sequence[bool] | None) -> Text:
    """Return tokens in alternating colours, each with its id; learnt ones green within ⟦ ⟧."""
    shown, learning = Text(), False
    for place, token_id in enumerate(ids):
        learnt = mask is not None and mask[place]
        if learnt != learning:
            shown.append("⟦" if learnt else "⟧", style=LEARNT_STYLE)
        learning = learnt
        style = LEARNT_STYLE if learnt else CONTEXT_STYLES[place % 2]
        readable = _readable(tokenizer.token_bytes(token_id))
        shown.append(readable.rstrip("⏎"), style=style).append(str(token_id), style="dim")
        breaks = len(readable) - len(readable.rstrip("⏎"))
        shown.append("⏎" * breaks + ("\n" if breaks else " "), style="dim")
    return shown.append("⟧", style=LEARNT_STYLE) if learning else shown


def _conversation(text: str) -> tuple[Any, Any]:
    try:
        row = json.loads(text)
    except ValueError as error:
        raise DataError(
            f"encode --chat: not JSON ({error}); give a list of messages such as "
            '[{"role": "user", "content": "你好"}]'
        ) from error
    if not isinstance(row, dict):
        return row, None
    return row.get("messages") or row.get("conversations") or [], row.get("tools")


def _whole(raw: bytes) -> str | None:
    """Return the text of a token, or None if it is part of a character."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return None


def _readable(raw: bytes) -> str:
    """Return a token in one line: spaces ␣, line ends ⏎, bytes of half characters as <e4 bd>."""
    text = _whole(raw)
    if text is None:
        return f"<{raw.hex(' ')}>"
    text = text.replace(" ", "␣").replace("\n", "⏎")
    return "".join(c if c.isprintable() or c == "\u3000" else f"\\x{ord(c):02x}" for c in text)


def print_json(console: Console, value: object) -> None:
    """Print a value as one line of JSON."""
    text = json.dumps(value, ensure_ascii=False)
    console.print(text, markup=False, soft_wrap=True)
