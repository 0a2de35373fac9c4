"""What a kit did to its base: gain in the domain, what was forgotten, manners, size and time."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from minimind import checkpoint
from minimind.checkpoint.kit import FILE as CARD
from minimind.config import KitConfig, RunConfig
from minimind.errors import ConfigError, DataError, UserError
from minimind.eval.comparison import Difference, compare
from minimind.eval.contamination_sources import TrainingData, TrainingFiles
from minimind.eval.harness import Asked, Scored, ask, find_contamination, prepare
from minimind.eval.held_out import draw
from minimind.eval.subject import Options, load_subject
from minimind.eval.tasks.base import Progress, Task, TaskOptions, no_progress
from minimind.kits.probes import ProbeTask
from minimind.kits.questions import KitQuestions, Part
from minimind.kits.rows import DOMAIN, SAFETY
from minimind.settings import load_run_config

BASE = "base"
EXAMS = ("cmmlu", "ceval")

OnTask = Callable[[str, str, int], Progress]  # (model, task, items) -> where progress goes


def no_task(_model: str, _task: str, _items: int, /) -> Progress:
    """Show nothing."""
    return no_progress


@dataclass(frozen=True, kw_only=True)
class Asking:
    """How much is asked.

    Attributes:
        rows: the domain's files; empty: those of the first run's `data.train`.
        exams: files or folders with C-Eval and CMMLU; empty: not asked.
        limit: items a task, drawn with `seed`; probes are always asked in full.
        seed: of the draws.
        options: of the forward passes.
        device: where.
        contamination: look for the questions in the rows that were trained on.
        part: of the held-out questions; settings are chosen by `development` ones.
    """

    rows: tuple[str, ...] = ()
    exams: tuple[Path, ...] = ()
    limit: int | None = None
    seed: int = 0
    options: Options = field(default_factory=Options)
    device: str = "cpu"
    contamination: bool = True
    part: Part = "test"


@dataclass(frozen=True, kw_only=True)
class Tuned:
    """One model of the page.

    Attributes:
        name: how the page calls it.
        directory: of the checkpoint.
        weights: bytes of what it adds: the adapters, or the whole model.
        parameters: trained numbers, adapters or all.
        seconds: of its training, from metrics.jsonl; None where that is gone.
        steps: of its training.
        replay: share of the bytes read that were general rows; None where the run doesn't say.
        adapters: whether it is adapters on the base.
        scored: by the metric's name.
    """

    name: str
    directory: Path
    weights: int
    parameters: int
    seconds: float | None = None
    steps: int | None = None
    replay: float | None = None
    adapters: bool = False
    scored: Mapping[str, Scored] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class KitResult:
    """Everything that the page tells.

    Attributes:
        kit: which.
        base: before.
        tuned: after; the first is the one that the page is about.
        differences: `tuned - base` by tuned name, then by metric, on the same items.
        domain: metrics of the domain, in order.
        general: metrics of what may be forgotten.
        probes: metrics of the manners.
        notes: what could not be asked, and why.
    """

    kit: KitConfig
    base: Tuned
    tuned: tuple[Tuned, ...]
    differences: Mapping[str, Mapping[str, Difference]]
    domain: tuple[str, ...]
    general: tuple[str, ...]
    probes: tuple[str, ...]
    notes: tuple[str, ...] = ()


def kit_of(name: str) -> KitConfig:
    """Return the kit of a preset or TOML file.

    Raises:
        ConfigError: there is none, or it has no [kit] table.
    """
    kit = load_run_config([name]).kit
    if kit is None or not kit.name:
        raise ConfigError(f"--kit {name}: it has no [kit] table with a name (docs/kits.md)")
    return kit


def base_of(directory: Path) -> Path:
    """Return the checkpoint that a kit's run began from.

    Raises:
        UserError: the run doesn't say, or it is gone.
    """
    if (directory / "adapter_config.json").exists():
        return checkpoint.base_of(directory)
    origin = _settings(directory).init.checkpoint
    if origin is None:
        raise UserError(f"{directory} began from random weights: a kit is laid on a checkpoint")
    return checkpoint.resolve(origin)


def measure(
    kit: KitConfig, runs: Mapping[str, str], asking: Asking, *, on_task: OnTask = no_task
) -> KitResult:
    """Ask the base and every run the same.

    Args:
        kit: which.
        runs: checkpoints or runs of the kit by name, all on the base of the first.
        asking: how much.
        on_task: where progress goes.

    Raises:
        UserError: the runs have different bases, or a run isn't of this kit.
        DataError: the domain's rows are gone.
    """
    directories = {name: checkpoint.resolve(path) for name, path in runs.items()}
    first = next(iter(directories.values()))
    base = base_of(first)
    for name, directory in directories.items():
        _check(name, directory, base, kit)
    asked, notes = _asked(kit, next(iter(directories.items())), asking)
    for one in asked["domain"]:  # what the first was trained on is left out for all of them
        if found := next(iter(one.found.values()), None):
            one.found |= dict.fromkeys((BASE, *directories), found)
    models = {BASE: base, **directories}
    tuned = (_tuned(name, path, is_base=name == BASE) for name, path in models.items())
    before, *after = (replace(one, scored=_ask(one, asked, asking, on_task)) for one in tuned)
    return KitResult(
        kit=kit, base=before, tuned=tuple(after),
        differences={one.name: _differences(one, before, asking.seed) for one in after},
        domain=_names(asked["domain"]), general=_names(asked["general"]),
        probes=_names(asked["probes"]), notes=notes,
    )  # fmt: skip


def _check(name: str, directory: Path, base: Path, kit: KitConfig) -> None:
    own = base_of(directory)
    if checkpoint.fingerprint(own) != checkpoint.fingerprint(base):
        raise UserError(
            f"{name} was trained on {own}, the first one on {base}: compare kits of one base"
        )
    card = checkpoint.read_card(directory)
    if card is not None and card.name != kit.name:
        raise UserError(f"{directory / CARD} is of kit {card.name!r}, not {kit.name!r}")


def _settings(directory: Path) -> RunConfig:
    path = directory / "run.toml"
    if not path.exists():
        raise UserError(f"{path} is missing: it says what the kit was trained on")
    return load_run_config([str(path)])


def _asked(
    kit: KitConfig, run_of: tuple[str, Path], asking: Asking
) -> tuple[dict[str, list[Asked]], tuple[str, ...]]:
    """Make all tasks, parted into what the page's sections show."""
    first_name, first = run_of
    run = _settings(first)
    rows = asking.rows or tuple(name for name in run.data.train if Path(name).name == DOMAIN)
    if not rows:
        raise DataError(f"{first}/run.toml names no {DOMAIN} in data.train: give --rows FILE")
    options = TaskOptions(seed=asking.seed, data=asking.exams)
    share, part = run.data.validation_share, asking.part
    questions = _limited(KitQuestions(kit=kit.name, files=rows, share=share, part=part), asking)
    domain = [questions, *prepare(kit.tasks, options, limit=asking.limit)]
    notes: list[str] = []
    for exam in EXAMS if asking.exams else ():
        (one,) = prepare([exam], options)
        own = [item for item in one.items if item.group in kit.subjects]
        if own:
            items = draw(own, limit=asking.limit, seed=asking.seed)
            domain.append(Asked(one.task, items, total=len(own)))
        else:
            notes.append(f"{exam}: none of the kit's subjects is in the data given")
    if asking.contamination:
        notes += _look_for([questions], first_name, run)
    general = prepare(kit.general, options, limit=asking.limit)
    probes = [Asked(task, task.items(), total=len(task.items())) for task in _probe_tasks(kit)]
    return {"domain": domain, "general": general, "probes": probes}, tuple(notes)


def _look_for(asked: list[Asked], name: str, run: RunConfig) -> list[str]:
    """Look for the questions in the run's own rows; say why where that can't be."""
    files = TrainingFiles(tuple(run.data.train), "chat", run.data.validation_share)
    try:
        find_contamination(asked, name, TrainingData((files,)))
    except DataError as error:
        return [f"the training rows were not looked through: {error}"]
    return []


def _probe_tasks(kit: KitConfig) -> list[ProbeTask]:
    if not kit.probes:
        return []
    return [ProbeTask(kit=kit), *([ProbeTask(kit=kit, system=True)] if kit.system else [])]


def _limited(task: Task, asking: Asking) -> Asked:
    items = task.items()
    return Asked(task, draw(items, limit=asking.limit, seed=asking.seed), total=len(items))


def _ask(
    tuned: Tuned, asked: Mapping[str, list[Asked]], asking: Asking, on_task: OnTask
) -> dict[str, Scored]:
    subject = load_subject(
        str(tuned.directory), name=tuned.name, device=asking.device, options=asking.options
    )
    return {
        scored.metric.name: scored
        for part in asked.values()
        for one in part
        for scored in ask(subject, one, progress=on_task(tuned.name, one.task.name, len(one.items)))
    }


def _differences(after: Tuned, before: Tuned, seed: int) -> dict[str, Difference]:
    return {
        name: compare(scored.metric, scored.outcomes, before.scored[name].outcomes, seed=seed)
        for name, scored in after.scored.items()
        if name in before.scored
    }


def _names(asked: Sequence[Asked]) -> tuple[str, ...]:
    return tuple(metric.name for one in asked for metric in one.task.metrics)


def _tuned(name: str, directory: Path, *, is_base: bool) -> Tuned:
    from minimind.checkpoint.store import ADAPTER, WEIGHTS, read_tensors

    adapters = (directory / "adapter_config.json").exists()
    tensors = read_tensors(directory / (ADAPTER if adapters else WEIGHTS))
    weights, numbers = checkpoint.weights_size(directory), sum(t.numel() for t in tensors.values())
    plain = Tuned(
        name=name, directory=directory, weights=weights, parameters=numbers, adapters=adapters
    )
    if is_base:
        return plain
    run = _settings(directory)
    seconds, steps = _trained(directory)
    return replace(plain, seconds=seconds, steps=steps, replay=_replay(run))


def _trained(directory: Path) -> tuple[float | None, int | None]:
    """Return seconds and steps of the last line of metrics.jsonl."""
    path = directory.parent.parent / "metrics.jsonl"
    try:
        last = json.loads(path.read_text(encoding="utf-8").splitlines()[-1])
        return float(last["seconds"]), int(last["step"])
    except (OSError, ValueError, KeyError, IndexError):
        return None, None


def _replay(run: RunConfig) -> float | None:
    """Return which share of the bytes was read from files that are not the kit's."""
    if (weights := run.data.weights) is None:
        return None
    own = {DOMAIN, SAFETY}
    files = zip(weights, run.data.train, strict=True)
    return sum(w for w, name in files if Path(name).name not in own) / sum(weights)
