"""`minimind report RUN [RUN_B]` and `minimind report band RUN RUN RUN --out FILE`."""

from __future__ import annotations

import locale
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console

from minimind.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Args:
    """The report of a run: one HTML page that needs no network, and Markdown; English and Chinese.

    It reads only what the run left on disk, so it can be made while the run goes on, and again
    later. Two runs are compared. `minimind report band --help`: the loss bands of healthy runs.

    Attributes:
        runs: a quickstart's folder, one training run, or a folder of runs; two to compare them.
        out: where the files go; by default into the (first) run's folder.
        language: what the page shows first; by default Chinese where the locale is.
        price: what an hour of the machine costs, for the cost.
        currency: of the price.
        show: print the report in the terminal as well.
    """

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN [RUN_B]")]
    out: Path | None = None
    language: Literal["auto", "zh", "en"] = "auto"
    price: float | None = None
    currency: str = ""
    show: bool = False


@dataclass(frozen=True, kw_only=True)
class BandArgs:
    """Make a loss band from runs that differ in their seed only.

    `log.band` of a run names such a file; those in the package are found by model and data.

    Attributes:
        runs: training runs, at least two; three or more also tell how the band judges each of them
            when it is left out.
        out: the JSON file to write.
        name: of the band; by default that of the file.
        command: how the runs were made, kept in the file.
    """

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN RUN ...")]
    out: Path
    name: str = ""
    command: str = ""


def main(argv: list[str]) -> int | None:
    """Run `minimind report`."""
    if argv[:1] == ["band"]:
        return _band(tyro.cli(BandArgs, args=argv[1:], prog="minimind report band"))
    args = tyro.cli(Args, args=argv, prog="minimind report")
    if not 1 <= len(args.runs) <= 2:
        raise ConfigError(f"minimind report takes one run, or two to compare, not {len(args.runs)}")
    if args.price is not None and args.price < 0:
        raise ConfigError(f"--price {args.price}: must not be negative")
    from minimind.report.files import print_report, read_run, write_comparison, write_report

    console = Console()
    runs = [read_run(path, price=args.price, currency=args.currency) for path in args.runs]
    language = _language(args.language)
    languages = (language, "en" if language == "zh" else "zh")
    out = args.out or args.runs[0]
    if len(runs) == 2:
        written = write_comparison(runs[0], runs[1], out=out, languages=languages)
    else:
        written = write_report(runs[0], out=out, languages=languages)
        if args.show:
            print_report(runs[0], console, language=language)
    for path in written:
        console.print(str(path), highlight=False, soft_wrap=True, markup=False)
    return None


def _band(args: BandArgs) -> None:
    from minimind.train.band_making import left_out, make_band
    from minimind.train.bands import save_band

    band = make_band(args.runs, name=args.name or args.out.stem, command=args.command)
    save_band(band, args.out)
    first, last = band.points[0], band.points[-1]
    console = Console()
    console.print(
        f"{args.out}: {len(band.seeds)} seeds, {len(band.points)} points from "
        f"{first.tokens / 1e6:.2f}M to {last.tokens / 1e6:.2f}M tokens; at the end "
        f"{last.low:.3f}-{last.high:.3f} around {last.median:.3f}",
        highlight=False, soft_wrap=True, markup=False,
    )  # fmt: skip
    if len(args.runs) > 2:
        console.print(
            f"each run beside the band of the others: {left_out(args.runs):.0%} of points inside",
            highlight=False, soft_wrap=True, markup=False,
        )  # fmt: skip


def _language(wish: str) -> Literal["zh", "en"]:
    if wish == "auto":
        name = locale.setlocale(locale.LC_CTYPE, "") or ""
        return "zh" if name.lower().startswith(("zh", "chinese")) else "en"
    return "zh" if wish == "zh" else "en"
