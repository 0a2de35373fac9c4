"""Exam questions with four answers, from the layouts in which the benchmarks come.

| layout | where | columns |
|---|---|---|
| C-Eval's own csv | `val/SUBJECT_val.csv`, `dev/SUBJECT_dev.csv` | question, A, B, C, D, answer |
| CMMLU's own csv | `test/SUBJECT.csv`, `dev/SUBJECT.csv` | Question, A, B, C, D, Answer |
| JSON lines, .zst too | `ceval*.jsonl` ... | question, A to D, answer, subject, split |
| AGIEval's own JSON lines | `gaokao-*.jsonl` ... | passage, question, options, label |
| the hub | `datasets` | as the csv |

A malformed row ends the reading with the file and the line: a benchmark that quietly lost
questions is another benchmark.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minimind.errors import DataError

LETTERS = "ABCD"
_SPLITS = ("dev", "val", "test")


@dataclass(frozen=True, slots=True, kw_only=True)
class ExamRow:
    """One question.

    Attributes:
        question: with its passage, where there is one.
        choices: the answers' texts, A first.
        answer: the number of the right one.
        subject: as the benchmark names it.
        split: `dev` (worked examples), `val` or `test`.
    """

    question: str
    choices: tuple[str, ...]
    answer: int
    subject: str
    split: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmark:
    """One exam.

    Attributes:
        name: as in `--tasks`.
        title: for people.
        asked: the split whose questions are asked.
        hub: its id on the hub, or "" where only files are read.
        licence: as declared.
    """

    name: str
    title: str
    asked: str
    hub: str = ""
    licence: str = ""


BENCHMARKS = {
    "ceval": Benchmark(
        name="ceval", title="C-Eval (val)", asked="val", hub="ceval/ceval-exam",
        licence="CC-BY-NC-SA-4.0",
    ),
    "cmmlu": Benchmark(
        name="cmmlu", title="CMMLU (test)", asked="test", hub="haonan-li/cmmlu",
        licence="CC-BY-NC-SA-4.0",
    ),
    "agieval": Benchmark(name="agieval", title="AGIEval, Chinese", asked="test", licence="MIT"),
    "lawbench": Benchmark(
        name="lawbench", title="LawBench, four choices", asked="test", licence="Apache-2.0"
    ),
}  # fmt: skip


def read_exam(benchmark: Benchmark, paths: Sequence[Path]) -> list[ExamRow]:
    """Return all rows of a benchmark from local files or folders, in a stable order.

    Args:
        benchmark: which.
        paths: files, folders of one benchmark, or folders with several.

    Raises:
        DataError: nothing of it is there, or a row is malformed (file and line).
    """
    files = [file for path in paths for file in _files(benchmark, path)]
    rows = [row for file in files for row in _read_file(file, benchmark)]
    if not rows:
        shown = ", ".join(map(str, paths)) or "(no --data)"
        raise DataError(
            f"--data {shown}: nothing of {benchmark.title} is there. {where(benchmark)}"
        )
    return rows


def where(benchmark: Benchmark) -> str:
    """Say which files to put where."""
    folder = f"FOLDER/{benchmark.name}"
    csvs = f"{folder}/{benchmark.asked}/SUBJECT.csv and {folder}/dev/SUBJECT.csv"
    return (
        f"Give --data FOLDER with {csvs} (the benchmark's own csv), or with "
        f"FOLDER/{benchmark.name}.jsonl, one question a line: "
        '{"question", "A", "B", "C", "D", "answer", "subject", "split"} (.jsonl.zst too)'
    )


def _files(benchmark: Benchmark, path: Path) -> list[Path]:
    """Return the files of a benchmark that a path stands for."""
    if not path.exists():
        raise DataError(f"--data {path}: there is no such file or folder")
    if path.is_file():
        return [path]
    named = [entry for entry in sorted(path.iterdir()) if _is_named(entry, benchmark.name)]
    folders = [entry for entry in named if entry.is_dir()] or [path]
    if files := [entry for entry in named if entry.is_file() and _is_json(entry)]:
        return files
    found = []
    for folder in folders:
        found += [file for split in _SPLITS for file in sorted((folder / split).glob("*.csv"))]
        if folder != path:
            found += [file for file in sorted(folder.iterdir()) if _is_json(file)]
    return found


def _is_named(path: Path, name: str) -> bool:
    return re.sub(r"[-_ ]", "", path.name.lower()).startswith(name)


def _is_json(path: Path) -> bool:
    return path.name.endswith((".jsonl", ".jsonl.zst"))


def _read_file(path: Path, benchmark: Benchmark) -> Iterator[ExamRow]:
    rows = _csv_rows(path) if path.suffix == ".csv" else _json_rows(path)
    split = path.parent.name if path.parent.name in _SPLITS else benchmark.asked
    subject = re.sub(r"_(dev|val|test)$", "", path.name.partition(".")[0])
    for place, row in rows:
        yield exam_row(row, place=place, subject=subject, split=split)


def _text(path: Path) -> str:
    import zstandard

    try:
        raw = path.read_bytes()
        if path.suffix == ".zst":
            raw = zstandard.ZstdDecompressor().stream_reader(io.BytesIO(raw)).read()
        return raw.decode("utf-8-sig")
    except (OSError, UnicodeDecodeError, zstandard.ZstdError) as error:
        raise DataError(f"{path}: can't be read ({error})") from error


def _csv_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    reader = csv.DictReader(io.StringIO(_text(path), newline=""), strict=True)
    try:
        for row in reader:
            place = f"{path}:{reader.line_num}"
            if None in row or None in row.values():
                raise DataError(
                    f"{place}: not as many cells as the heading has "
                    f"({', '.join(reader.fieldnames or ())}): quote cells that hold commas"
                )
            yield place, row
    except csv.Error as error:
        line = reader.reader.line_num  # DictReader's own is that of the last good row
        raise DataError(f"{path}:{line}: no csv: {error}") from error


def _json_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for number, line in enumerate(_text(path).split("\n"), 1):
        if not line.strip():
            continue
        place = f"{path}:{number}"
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(f"{place}: not JSON ({error})") from error
        if not isinstance(row, dict):
            raise DataError(f"{place}: not a JSON object but a {type(row).__name__}")
        yield place, row


def exam_row(row: Mapping[str, Any], *, place: str, subject: str, split: str) -> ExamRow:
    """Read one row of any of the layouts.

    Args:
        row: its cells.
        place: what an error calls it.
        subject: where the row names none.
        split: where the row names none.

    Raises:
        DataError: something is missing; says what and where.
    """
    cells = {str(key).lower(): value for key, value in row.items()}
    choices = _choices(cells, place)
    letter = str(cells.get("answer", cells.get("label", ""))).strip().strip("()").upper()
    if letter not in LETTERS[: len(choices)] or len(letter) != 1:
        raise DataError(
            f"{place}: the answer is {letter!r} instead of one of {LETTERS[: len(choices)]}"
        )
    question = str(cells.get("question") or "").strip()
    if not question:
        raise DataError(f"{place}: no question in it (columns: {', '.join(map(str, row))})")
    if passage := str(cells.get("passage") or "").strip():
        question = f"{passage}\n{question}"
    return ExamRow(
        question=question,
        choices=choices,
        answer=LETTERS.index(letter),
        subject=str(cells.get("subject") or subject),
        split=str(cells.get("split") or split),
    )


def _choices(cells: Mapping[str, Any], place: str) -> tuple[str, ...]:
    options = cells.get("options")
    if isinstance(options, list) and 2 <= len(options) <= len(LETTERS):
        return tuple(re.sub(r"^\(?[A-D][).、.]\s*", "", str(option)) for option in options)
    missing = [letter for letter in LETTERS if not str(cells.get(letter.lower()) or "").strip()]
    if missing:
        raise DataError(f"{place}: answer {' and '.join(missing)} is missing or empty")
    return tuple(str(cells[letter.lower()]).strip() for letter in LETTERS)


def from_hub(benchmark: Benchmark) -> list[ExamRow]:
    """Read a benchmark from the hub by `datasets`.

    Raises:
        DataError: it isn't on the hub, or the hub can't be reached: says what to put where.
    """
    from minimind.errors import require

    if not benchmark.hub:
        raise DataError(f"{benchmark.title} is read from files only. {where(benchmark)}")
    datasets = require("datasets", extra="eval")
    rows = []
    try:
        for subject in datasets.get_dataset_config_names(benchmark.hub):
            for split in ("dev", benchmark.asked):
                for number, row in enumerate(
                    datasets.load_dataset(benchmark.hub, subject, split=split), 1
                ):
                    place = f"{benchmark.hub}/{subject}/{split}:{number}"
                    rows.append(exam_row(row, place=place, subject=subject, split=split))
    except DataError:
        raise
    except Exception as error:  # whatever the hub client raises: offline, 404, proxy, cache
        raise DataError(
            f"{benchmark.title} can't be had from the hub ({benchmark.hub}: "
            f"{type(error).__name__}: {str(error).splitlines()[0][:200] if str(error) else ''}). "
            f"{where(benchmark)}"
        ) from error
    return rows
