"""The report's files: one HTML page in both languages, and Markdown with its pictures.

RUN/report.html  report.md  report.zh-CN.md  report-curves-pretrain.en.svg ...
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console

from minimind.eval.statistics import Language
from minimind.report.blocks import Block, Figure, print_blocks, to_markdown
from minimind.report.compare import compare_blocks
from minimind.report.page import to_page
from minimind.report.read import read_run
from minimind.report.sections import report_blocks
from minimind.report.svg import standalone
from minimind.report.writer import Run

__all__ = ["print_report", "read_run", "write_comparison", "write_documents", "write_report"]

SUFFIX: Mapping[Language, str] = {"en": ".md", "zh": ".zh-CN.md"}


def write_report(
    run: Run | Path,
    *,
    out: Path | None = None,
    languages: Sequence[Language] = ("en", "zh"),
) -> list[Path]:
    """Write report.html, report.md and report.zh-CN.md with their pictures; return their paths.

    Args:
        run: from `read_run`, or a directory to read.
        out: where the files go; the run's own folder unless given.
        languages: which reports; the page shows the first of them first.

    Raises:
        DataError: there is no such folder.
    """
    run = read_run(run) if isinstance(run, Path) else run
    documents: dict[Language, list[Block]] = {
        language: report_blocks(run, language=language) for language in languages
    }
    return write_documents(documents, out or run.directory, "report")


def write_comparison(
    a: Run, b: Run, *, out: Path, languages: Sequence[Language] = ("en", "zh")
) -> list[Path]:
    """Write compare.html, compare.md and compare.zh-CN.md of two runs; return their paths."""
    documents: dict[Language, list[Block]] = {
        language: compare_blocks(a, b, language=language) for language in languages
    }
    return write_documents(documents, out, "compare")


def print_report(run: Run, console: Console, *, language: Language = "en") -> None:
    """Show the report in a terminal."""
    print_blocks(console, report_blocks(run, language=language))


def write_documents(
    documents: Mapping[Language, Sequence[Block]], out: Path, name: str
) -> list[Path]:
    """Write NAME.html, NAME.md and NAME.zh-CN.md with their pictures; return their paths."""
    out.mkdir(parents=True, exist_ok=True)
    page = out / f"{name}.html"
    page.write_text(to_page(documents, first=next(iter(documents))), encoding="utf-8")
    paths = [page]
    for language, blocks in documents.items():
        pictures = {}
        for figure in (block for block in blocks if isinstance(block, Figure)):
            path = out / f"{name}-{figure.name}.{language}.svg"
            path.write_text(standalone(figure.plots), encoding="utf-8")
            pictures[figure.name] = path.name
        text = out / f"{name}{SUFFIX[language]}"
        text.write_text(to_markdown(blocks, pictures=pictures), encoding="utf-8")
        paths.append(text)
    return paths
