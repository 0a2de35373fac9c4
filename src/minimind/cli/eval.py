"""`minimind eval CHECKPOINT [OTHERS] --tasks ...`: what a model can do, and how sure that is."""

from __future__ import annotations

import json
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import tyro
from rich.console import Console

from minimind.errors import UserError

if TYPE_CHECKING:
    from rich.progress import Progress

    from minimind.eval.comparison import Difference
    from minimind.eval.harness import Asked, Scored
    from minimind.eval.subject import ModelSubject

QUICK_LIMIT = 200
"""Items a task when no --tasks are named: a first look, in minutes on a laptop."""


@dataclass(frozen=True, kw_only=True)
class Args:
    """Measure checkpoints: every score with its n, 95 % interval and what chance would give.

    Several checkpoints are asked the same items; each further one is compared with the first,
    item by item. A checkpoint is ours, imported, or any Hugging Face directory.

    Attributes:
        checkpoints: directories of checkpoints or runs, RUN:best, or NAME=PATH to name one.
        tasks: what to measure (`--list` shows them); lm_eval:NAME is a task of
            lm-evaluation-harness. Default: the quick ones, on 200 items each.
        data: files or folders with benchmark data (csv, .jsonl, .jsonl.zst).
        shots: worked examples before a question.
        chat: ask through the chat template instead of as plain text.
        limit: at most so many items a task, drawn with --seed.
        seed: of whatever is drawn.
        training_data: look for the items in these files instead of those that run.toml names.
        contamination: look for the items in the training documents.
        cited: show published figures beside the measured ones, marked as cited.
        out: write results to this eval.json. Default: eval.json of each checkpoint's run.
        json: print the results as JSON.
        list: show all tasks.
        kit: one page on a domain kit, before and after: a preset with [kit] or a TOML file. The
            base is added by itself; --data has C-Eval and CMMLU, --out is the page's folder.
        rows: for --kit: files of the domain's rows. Default: those that run.toml names.
        development: for --kit: ask the fifth of the held-out questions that settings are chosen
            by; the page is made of the others.
        device: auto takes a GPU where there is one.
        precision: of the forward pass.
        batch_tokens: tokens read at once.
    """

    checkpoints: tyro.conf.Positional[tuple[str, ...]] = ()
    tasks: tuple[str, ...] = ()
    data: tuple[Path, ...] = ()
    shots: int = 0
    chat: bool = False
    limit: int | None = None
    seed: int = 0
    training_data: tuple[Path, ...] = ()
    contamination: bool = True
    cited: bool = True
    out: Path | None = None
    json: bool = False
    list: bool = False
    kit: str | None = None
    rows: tuple[str, ...] = ()
    development: bool = False
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    precision: Literal["fp32", "bf16"] = "fp32"
    batch_tokens: int = 8192


def main(argv: list[str]) -> int:
    """Run `minimind eval`."""
    args = tyro.cli(Args, args=argv, prog="minimind eval")
    if args.list:
        _show_tasks()
        return 0
    _check(args)
    if args.kit is not None:
        from minimind.cli.eval_kit import evaluate_kit

        return evaluate_kit(args)
    from minimind.cli.eval_table import show
    from minimind.eval.harness import prepare

    notes = Console(stderr=True, highlight=False)
    names = _task_names(args)
    limit = args.limit if args.tasks or args.limit else QUICK_LIMIT
    with notes.status("reading the tasks' data"):
        asked = prepare(names, _options(args), limit=limit)
    results, parameters = _measure(args, asked, notes)
    differences = _compare(results, args.seed)
    if args.json:
        print(json.dumps(_as_json(results, differences), ensure_ascii=False, indent=1))
    else:
        cited_tasks = [one.task.name for one in asked] if args.cited else []
        show(asked, results, differences, cited_tasks=cited_tasks, parameters=parameters)
    return 0


def _check(args: Args) -> None:
    """Refuse what can't be before anything heavy is loaded."""
    if not args.checkpoints:
        raise UserError("give a checkpoint: minimind eval RUN (minimind eval --list shows tasks)")
    for flag, value in (("shots", args.shots), ("batch-tokens", args.batch_tokens - 1)):
        if value < 0:
            raise UserError(f"--{flag}: {value} is too small")
    names = [name for name, _ in map(named, args.checkpoints)]
    if twice := {name for name in names if names.count(name) > 1}:
        raise UserError(
            f"two checkpoints are called {', '.join(sorted(twice))}: name them, "
            "for example before=RUN1 after=RUN2"
        )


def named(argument: str) -> tuple[str, str]:
    """Return (name, path) of `NAME=PATH` or of a path."""
    name, equals, path = argument.partition("=")
    if equals and "/" not in name:
        return name, path
    parts = [part for part in Path(argument).parts if part not in {"checkpoints", "."}]
    last = parts[-1] if parts else argument
    return ("/".join(parts[-2:]) if last.startswith("step-") else last), argument


def _task_names(args: Args) -> tuple[str, ...]:
    from minimind.eval.tasks import TASKS

    if args.tasks:
        return tuple(name for part in args.tasks for name in part.split(",") if name)
    return tuple(name for name, entry in TASKS.items() if entry.quick)


def _options(args: Args) -> Any:
    from minimind.checkpoint import resolve
    from minimind.eval.contamination_sources import training_data
    from minimind.eval.tasks.base import TaskOptions

    known = training_data(resolve(named(args.checkpoints[0])[1]))
    share = max((stage.share for stage in known.stages), default=0.0)
    return TaskOptions(
        data=args.data, shots=args.shots, chat=args.chat, seed=args.seed,
        training=args.training_data or known.files(), validation_share=share,
    )  # fmt: skip


def _measure(
    args: Args, asked: list[Asked], notes: Console
) -> tuple[dict[str, list[Scored]], dict[str, int]]:
    """Ask every subject everything; write each one's files as soon as it is done."""
    from minimind.cli.eval_table import progress_bars
    from minimind.eval.harness import ask, save

    results: dict[str, list[Scored]] = {}
    parameters: dict[str, int] = {}
    for argument in args.checkpoints:
        name, path = named(argument)
        with notes.status(f"loading {name}"):
            subject = _load(args, name, path)
        parameters[name] = subject.parameters
        if args.contamination:
            _look_for_items(args, asked, name, path, notes)
        results[name] = []
        bars = nullcontext() if not notes.is_terminal else progress_bars(notes)
        with bars as progress:
            for one in asked:
                results[name] += ask(subject, one, progress=_bar(progress, name, one))
        target = args.out or _eval_file(path)
        if target is not None:
            save(target, name, results[name])
            notes.print(f"{name}: written to {target}", style="dim")
    return results, parameters


def _load(args: Args, name: str, path: str) -> ModelSubject:
    from minimind.eval.subject import Options, load_subject

    options = Options(precision=args.precision, batch_tokens=args.batch_tokens)
    return load_subject(path, name=name, device=pick_device(args.device), options=options)


def pick_device(device: str) -> str:
    """Return the device that `auto` means here."""
    import torch

    if device != "auto":
        return device
    gpus = ("cuda", torch.cuda.is_available()), ("mps", torch.backends.mps.is_available())
    return next((gpu for gpu, there in gpus if there), "cpu")


def _look_for_items(args: Args, asked: list[Asked], name: str, path: str, notes: Console) -> None:
    from minimind.eval.contamination_sources import named_files, training_data
    from minimind.eval.harness import find_contamination

    data = named_files(args.training_data) if args.training_data else training_data(path)
    for reason in data.unread:
        notes.print(f"{name}: contamination is known in part only: {reason}", style="yellow")
    if data.stages:
        with notes.status(f"looking for the items in what {name} was trained on"):
            find_contamination(asked, name, data)


def _bar(progress: Progress | None, name: str, asked: Asked) -> Any:
    from minimind.eval.tasks.base import no_progress

    if progress is None:
        return no_progress
    bar = progress.add_task(f"{name}: {asked.task.name}", total=len(asked.items))
    return lambda count: progress.advance(bar, count)


def _eval_file(path: str) -> Path | None:
    """Return RUN/eval.json of a checkpoint of ours; None for a directory that is no run."""
    from minimind.checkpoint import resolve

    directory = resolve(path)
    inside_run = directory.parent.name == "checkpoints"
    return directory.parent.parent / "eval.json" if inside_run else None


def _compare(results: dict[str, list[Scored]], seed: int) -> dict[str, dict[str, Difference]]:
    """Compare every further subject with the first, by name and metric."""
    from minimind.eval.comparison import compare

    names = list(results)
    first = {one.metric.name: one for one in results[names[0]]}
    return {
        name: {
            one.metric.name: compare(
                one.metric, one.outcomes, first[one.metric.name].outcomes, seed=seed
            )
            for one in results[name]
            if one.metric.name in first
        }
        for name in names[1:]
    }


def _as_json(
    results: dict[str, list[Scored]], differences: dict[str, dict[str, Difference]]
) -> dict[str, Any]:
    from dataclasses import asdict

    from minimind.eval.statistics import against_chance

    def one_json(one: Scored) -> dict[str, Any]:
        clean = {"clean": one.clean.to_dict()} if one.clean is not None else {}
        verdict = against_chance(one.measure) if one.metric.chance is not None else ""
        return {**one.measure.to_dict(), "verdict": verdict, "seconds": one.seconds, **clean}

    return {
        "results": {
            name: {one.metric.name: one_json(one) for one in scored}
            for name, scored in results.items()
        },
        "compared_with_the_first": {
            name: {metric: asdict(difference) for metric, difference in own.items()}
            for name, own in differences.items()
        },
    }


def _show_tasks() -> None:
    from minimind.eval.tasks import TASKS

    console = Console(highlight=False)
    width = max(map(len, TASKS))
    for name, entry in TASKS.items():
        quick = "  (quick)" if entry.quick else ""
        console.print(f"  {name:<{width}}  {entry.summary}{quick}", markup=False)
    console.print(
        "\n  lm_eval:NAME  any task of lm-evaluation-harness (pip install 'minimind[eval]'), for "
        "example\n                lm_eval:ceval-valid, lm_eval:hellaswag; `lm_eval ls tasks` "
        "lists them",
        markup=False,
    )
