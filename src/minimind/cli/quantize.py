"""`minimind quantize CHECKPOINT OUT`: int8, int4, bitsandbytes; what each costs and saves."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import tyro
from rich.console import Console
from rich.table import Table

from minimind.errors import ConfigError

if TYPE_CHECKING:
    from minimind.eval.quantisation import Cost

METHODS = Literal["int8", "int4", "bnb-int8", "bnb-nf4"]
HEADINGS = ("weights", "disk MB", "RAM MB", "bits/B", "change % [95 %]", "tok/s", "compiled")


class Say(Protocol):
    """Shows what is being done."""

    def __call__(self, what: str, /) -> None:
        """Show one line."""
        ...


@dataclass(frozen=True, kw_only=True)
class Args:
    """Round the weights of a checkpoint to 8 or 4 bits, and measure what that costs.

    Writes OUT/METHOD, a checkpoint for chat, generate and serve, for each method, and the table
    as OUT/quantize.json and OUT/quantize.md.

    Attributes:
        checkpoint: a checkpoint directory, a run directory (its newest), or RUN:best. Adapters are
            merged.
        out: the folder to write to.
        method: one or more; those of bitsandbytes need pip install 'minimind[quantize]'.
        group_size: int4: weights that share a scale (32, 64, 128, 256); larger is smaller, and
            worse.
        dtype: of what isn't quantised, and of the activations.
        text: what to measure on, JSONL or .txt (a document a line). Default: what the checkpoint's
            run held out.
        documents: measure on so many of them at most, drawn with a seed.
        measure: measure bits per byte and speed.
        compile: also time compiled decoding (about 20 s each to compile).
        force: replace directories that are there.
        json: print the table as JSON.
    """

    checkpoint: tyro.conf.Positional[str]
    out: tyro.conf.Positional[Path]
    method: tuple[METHODS, ...] = ("int8", "int4")
    group_size: int = 32
    dtype: Literal["bf16", "fp32"] = "bf16"
    text: str | None = None
    documents: int = 200
    measure: bool = True
    compile: bool = False
    force: bool = False
    json: bool = False


def main(argv: list[str]) -> int:
    """Run `minimind quantize`."""
    args = tyro.cli(Args, args=argv, prog="minimind quantize")
    methods = list(dict.fromkeys(args.method))
    _check(args, methods)
    with _progress() as say:
        costs = _quantize(args, methods, say)
    values = {
        "checkpoint": args.checkpoint,
        "group_size": args.group_size,
        "dtype": args.dtype,
        "weights": [cost.to_json() for cost in costs],
    }
    _write(args.out, values, costs)
    console = Console(highlight=False, soft_wrap=True)
    if args.json:
        console.print_json(data=values)
    else:
        console.print(_table(costs))
        console.print(f"{args.out}: {', '.join(methods)}, quantize.json, quantize.md", style="dim")
    return 0


def _check(args: Args, methods: Sequence[str]) -> None:
    if not methods:
        raise ConfigError("--method: name at least one, for example --method int8 int4")
    if args.documents < 1:
        raise ConfigError(f"--documents {args.documents}: must be at least 1")
    from minimind.model.quantize import check_method

    for method in methods:
        check_method(method, group_size=args.group_size)
        if (args.out / method).exists() and not args.force:
            raise ConfigError(
                f"{args.out / method} is there already: choose another OUT, or add --force"
            )


def _quantize(args: Args, methods: Sequence[str], say: Say) -> list[Cost]:
    import torch

    from minimind import checkpoint
    from minimind.checkpoint.quantize import load_plain, quantize_checkpoint
    from minimind.eval import quantisation
    from minimind.eval.held_out import draw

    say("reading")
    directory = checkpoint.resolve(args.checkpoint)
    plain, tokenizer = load_plain(directory)
    documents = []
    if args.measure:
        documents = draw(
            quantisation.held_out_text(directory, text=args.text), limit=args.documents
        )

    def row(
        name: str, path: Path, model: Any, *, saved: bool, plain_bits: list[float] | None
    ) -> tuple[Cost, list[float] | None]:
        bits, speed = None, None
        if args.measure:
            say(f"{name}: bits per byte")
            bits = quantisation.document_bits(model, tokenizer, documents)
            say(f"{name}: speed")
            speed = quantisation.decoding_speed(model, compiled=args.compile)
        cost = quantisation.measure(
            name, path, model, disk_bytes=checkpoint.weights_size(path) if saved else None,
            bits=bits, plain_bits=plain_bits, documents=documents, speed=speed,
        )  # fmt: skip
        return cost, bits

    names = {torch.float32: "fp32", torch.bfloat16: "bf16"}
    dtype = plain.output_weight.dtype
    first, plain_bits = row(
        names.get(dtype, str(dtype)), directory, plain, saved=True, plain_bits=None
    )
    costs = [first]
    if dtype == torch.float32:
        half = plain.bfloat16()
        costs.append(row("bf16", directory, half, saved=False, plain_bits=plain_bits)[0])
    del plain
    for method in methods:
        say(f"{method}: rounding")
        path = quantize_checkpoint(
            directory, args.out / method, method=method, group_size=args.group_size,
            dtype=torch.bfloat16 if args.dtype == "bf16" else torch.float32,
        )  # fmt: skip
        # Read back: what is measured is what was written.
        model, _ = checkpoint.load(path)
        costs.append(row(method, path, model, saved=True, plain_bits=plain_bits)[0])
    return costs


def _cells(cost: Cost) -> list[str]:
    def number(value: float | None, form: str) -> str:
        return "" if value is None else format(value, form)

    change = ""
    if cost.change is not None and cost.change_low is not None and cost.change_high is not None:
        low, high = 100 * cost.change_low, 100 * cost.change_high
        change = f"{100 * cost.change:+.2f} [{low:+.2f}, {high:+.2f}]"
    return [
        cost.name,
        number(None if cost.disk_bytes is None else cost.disk_bytes / 1e6, ",.2f"),
        number(cost.memory_bytes / 1e6, ",.2f"),
        number(cost.bits_per_byte, ".4f"),
        change,
        number(cost.speed.eager if cost.speed else None, ",.0f"),
        number(cost.speed.compiled if cost.speed else None, ",.0f"),
    ]


def _table(costs: Sequence[Cost]) -> Table:
    table = Table(padding=(0, 0))
    rows = [_cells(cost) for cost in costs]
    shown = [column for column in range(len(HEADINGS)) if any(row[column] for row in rows)]
    for column in shown:
        justify = "right" if column else "left"
        table.add_column(HEADINGS[column], justify=justify, no_wrap=True)
    for row in rows:
        table.add_row(*(row[column] for column in shown))
    return table


def _write(out: Path, values: dict[str, Any], costs: Sequence[Cost]) -> None:
    from minimind.checkpoint.files import write_atomically

    rows = [HEADINGS, ["---", *["---:"] * (len(HEADINGS) - 1)], *map(_cells, costs)]
    lines = [f"| {' | '.join(row)} |\n" for row in rows]
    write_atomically(out / "quantize.json", json.dumps(values, indent=2, ensure_ascii=False) + "\n")
    write_atomically(out / "quantize.md", "".join(lines))


@contextmanager
def _progress() -> Iterator[Say]:
    """Show one line on stderr that says what is being done; silent where nobody looks."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda _what: None
        return
    with console.status("reading") as status:
        yield status.update
