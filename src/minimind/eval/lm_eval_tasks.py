"""Tasks of lm-evaluation-harness in our command: `--tasks lm_eval:NAME`.

lm-eval makes the prompts and judges; what it logs item by item becomes outcomes, so that intervals,
contamination and paired comparison are the same as for our own tasks.

`lm_eval:ceval-valid` and `lm_eval:cmmlu` also work from local files (`--data`), and ask without the
space that lm-eval by default puts between `答案：` and the letter (`target_delimiter: ""`): Chinese
has none there. `lm_eval --model minimind` on lm-eval's own task files has the space.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from minimind.errors import DataError, TokenizerError, UserError, did_you_mean, require
from minimind.eval.subject import ModelSubject
from minimind.eval.tasks.base import (
    Item,
    Metric,
    Outcome,
    Progress,
    Subject,
    Task,
    TaskOptions,
    no_progress,
)
from minimind.eval.tasks.exam_files import BENCHMARKS, LETTERS, Benchmark, ExamRow, read_exam

PREFIX = "lm_eval:"
EXAMS = {"ceval-valid": "ceval", "cmmlu": "cmmlu"}
"""lm-eval's groups that are read from local files, and our name of the benchmark."""


def make_lm_eval(name: str, options: TaskOptions) -> Task:
    """Make a task, group or tag of lm-eval, by its name there.

    Raises:
        UserError: there is none of that name; the nearest is offered.
        DataError: its data can't be had.
    """
    return LmEvalTask(name, options)


class LmEvalTask:
    """A task, group or tag of lm-evaluation-harness.

    Attributes:
        name: `lm_eval:NAME`.
        metrics: known after the first run: what its items were judged by.
    """

    def __init__(self, name: str, options: TaskOptions) -> None:
        manager = require("lm_eval.tasks", extra="eval").TaskManager
        self.name = PREFIX + name
        self.metrics: tuple[Metric, ...] = ()
        self.options = options
        self._spec = name
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        exam = next((exam for group, exam in EXAMS.items() if name.startswith(group)), None)
        if exam is None:
            self._manager = manager()
        else:
            self._folder = tempfile.TemporaryDirectory()
            ours = Path(self._folder.name)
            shipped = _write_exam(BENCHMARKS[exam], ours, options)
            # Only their own folder: reading all of lm-eval's task files takes many seconds.
            self._manager = manager(include_path=[shipped, ours], include_defaults=False)
        if name not in self._manager.all_tasks:
            near = did_you_mean(name, self._manager.all_tasks)
            raise UserError(f"--tasks {self.name}: lm-eval has no such task.{near}")
        self._tasks: dict[str, Any] = {}

    def items(self) -> list[Item]:
        """Return the documents of all its tasks."""
        try:
            self._tasks = dict(self._manager.load([self._spec])["tasks"])
        except Exception as error:  # datasets and hub clients raise anything
            shown = str(error).splitlines()[0][:200] if str(error) else ""
            raise DataError(
                f"--tasks {self.name}: its data can't be had ({type(error).__name__}: {shown}). "
                "lm-eval's data comes from the hub: connect once, so that it is kept in the "
                "cache; C-Eval and CMMLU can be given as files with --data FOLDER"
            ) from error
        return [
            _item(name, number, task, doc)
            for name, task in self._tasks.items()
            for number, doc in enumerate(task.eval_docs)
        ]

    def run(
        self, subject: Subject, items: Sequence[Item], *, progress: Progress = no_progress
    ) -> Mapping[str, Sequence[Outcome]]:
        """Let lm-eval ask these documents."""
        if not isinstance(subject, ModelSubject):
            raise UserError(f"{self.name} asks loaded models only, not {subject.name}")
        if self.options.chat and not subject.has_chat_template:
            raise TokenizerError(f"{subject.name} has no chat template: leave out --chat")
        wanted: dict[str, list[int]] = {}
        for item in items:
            wanted.setdefault(item.extra["task"], []).append(item.extra["number"])
        evaluate = require("lm_eval.evaluator", extra="eval").simple_evaluate
        model = require("minimind.eval.lm_eval_model", extra="eval").MiniMindLM
        found = evaluate(
            model=model(str(subject.directory), subject=subject),
            tasks=sorted(wanted), samples=wanted, task_manager=self._manager,
            num_fewshot=self.options.shots or None, apply_chat_template=self.options.chat,
            fewshot_as_multiturn=self.options.chat, bootstrap_iters=0, log_samples=True,
            random_seed=self.options.seed, fewshot_random_seed=self.options.seed,
        )  # fmt: skip
        progress(len(items))
        return self._outcomes(found["samples"], items)

    def _outcomes(
        self, samples: Mapping[str, Sequence[Mapping[str, Any]]], items: Sequence[Item]
    ) -> dict[str, list[Outcome]]:
        known = {item.id: item for item in items}
        results: dict[str, list[Outcome]] = {}
        for task, rows in samples.items():
            for row in rows:
                item = known[f"{task}/{row['doc_id']}"]
                for metric in row["metrics"]:
                    number = _number(row[metric])
                    if number is not None:
                        name = self._metric_name(metric, str(row["filter"]))
                        value, weight = number
                        results.setdefault(name, []).append(
                            Outcome(item=item.id, value=value, weight=weight, group=item.group)
                        )
        self.metrics = tuple(self._metric(name, results[name], items) for name in results)
        return results

    def _metric_name(self, metric: str, kept: str) -> str:
        shots = f"_{self.options.shots}shot" if self.options.shots else ""
        chat = "_chat" if self.options.chat else ""
        kept = "" if kept == "none" else f"_{kept}"
        return f"{self._spec}{shots}{chat}_{metric}{kept}"

    def _metric(self, name: str, outcomes: Sequence[Outcome], items: Sequence[Item]) -> Metric:
        share = all(one.value in (0.0, 1.0) and one.weight == 1 for one in outcomes)
        weighted = any(one.weight != 1 for one in outcomes)
        choices = [len(item.choices) for item in items]
        chances = [1 / count for count in choices if count]
        chance = sum(chances) / len(chances) if share and len(chances) == len(items) else None
        return Metric(
            name=name, unit="items", chance=chance, percent=share,
            kind="share" if share else "ratio" if weighted else "mean",
            note=f"lm-evaluation-harness, {self.options.shots or 'its own'} shots",
        )  # fmt: skip


def _number(value: Any) -> tuple[float, float] | None:
    """Return (value, weight) of what lm-eval logs for one item; None for what has no mean.

    Perplexities are logged as (log-likelihood, units).
    """
    if isinstance(value, bool | int | float):
        return float(value), 1.0
    if isinstance(value, tuple | list) and len(value) == 2:
        first, second = value
        if isinstance(first, int | float) and isinstance(second, int | float):
            return float(first), float(second)
    return None


def _item(name: str, number: int, task: Any, doc: Any) -> Item:
    question = task.doc_to_text(doc)
    choices = _choices(task, doc)
    text = "\n".join([question if isinstance(question, str) else "", *choices])
    return Item(
        id=f"{name}/{number}",
        text=text,
        group=name,
        context=question if isinstance(question, str) else "",
        choices=choices,
        extra={"task": name, "number": number},
    )


def _choices(task: Any, doc: Any) -> tuple[str, ...]:
    if task.OUTPUT_TYPE != "multiple_choice":
        return ()
    found = task.doc_to_choice(doc)
    return tuple(map(str, found)) if isinstance(found, list | tuple) else ()


def _write_exam(benchmark: Benchmark, folder: Path, options: TaskOptions) -> Path:
    """Write task files that lay local rows, or just the delimiter, over lm-eval's own.

    Returns:
        The folder of lm-eval's own.
    """
    import lm_eval.tasks

    shipped = Path(str(lm_eval.tasks.__file__)).parent / benchmark.name
    rows: dict[str, list[ExamRow]] = {}
    if options.data:
        for row in read_exam(benchmark, options.data):
            rows.setdefault(row.subject, []).append(row)
    for path in sorted(shipped.glob("*_*.yaml")):
        if path.name.startswith("_"):
            continue
        subject = path.stem.partition("_")[2]
        lines = [f"include: {json.dumps(str(path))}", f"task: {path.stem}", 'target_delimiter: ""']
        if options.data:
            if subject not in rows:
                continue
            lines += _local(folder, subject, rows[subject])
        (folder / path.name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return shipped


def _local(folder: Path, subject: str, rows: Sequence[ExamRow]) -> list[str]:
    files = {}
    for split in sorted({row.split for row in rows}):
        target = folder / f"{subject}.{split}.jsonl"
        target.write_text(
            "".join(_row(row) for row in rows if row.split == split), encoding="utf-8"
        )
        files[split] = str(target)
    return [
        "dataset_path: json",
        "dataset_name: null",
        f"dataset_kwargs: {json.dumps({'data_files': files})}",
    ]


def _row(row: ExamRow) -> str:
    """Write a row with the columns of either benchmark."""
    letters = dict(zip(LETTERS, row.choices, strict=False))
    answer = LETTERS[row.answer]
    plain = {"question": row.question, "Question": row.question, "answer": answer, "Answer": answer}
    return json.dumps(plain | letters, ensure_ascii=False) + "\n"
