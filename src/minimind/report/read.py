"""A directory becomes a `Run`; a part that is absent or broken is noted, never an error.

a quickstart     stages.json  eval.json  data/ledger.json  pretrain/  sft/  dpo/
a training run   metrics.jsonl  run.toml  ledger.json  samples.txt  eval.json  checkpoints/
several          a folder of such
"""

from __future__ import annotations

import json
import math
import re
import struct
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from minimind.errors import DataError, UserError
from minimind.eval.results import Evaluation, Stages
from minimind.report.writer import Kind, Run, Training
from minimind.train.bands import Band, Verdict, find_band, judge, optim_settings
from minimind.train.metrics import read_metrics

STAGES = ("pretrain", "sft", "dpo")
Missing = list[tuple[str, Mapping[str, str]]]


def read_run(directory: Path, *, price: float | None = None, currency: str = "") -> Run:
    """Read what a run left; what is absent or broken is noted in `missing`.

    Args:
        directory: of a quickstart, of one training run, or of several.
        price: of an hour of the machine, for the cost.
        currency: shown beside the cost.

    Raises:
        DataError: there is no such folder.
    """
    if not directory.is_dir():
        raise DataError(
            f"{directory} is not a run: give the folder that a quickstart or a training run wrote"
        )
    kind, names = _kind(directory)
    missing: Missing = []
    stages = Stages()
    if kind == "quickstart":
        try:
            stages = Stages.load(directory / "stages.json")
            if not stages.stages:
                _note(missing, directory / "stages.json", directory, "what_stages")
        except DataError as error:
            missing.append(("broken_file", {"error": str(error), "what": "what_stages"}))
    evaluation = _evaluation(directory, kind, names, missing)
    trainings = {}
    for name in names:
        training = _training(directory if kind == "run" else directory / name, name, missing)
        if training.steps or training.settings:
            trainings[name] = training
        if not training.steps:
            path = training.directory / "metrics.jsonl"
            _note(missing, path, directory, "what_metrics", stage=name)
    ledger = _data_ledger(directory)
    if not ledger and not any(training.ledger for training in trainings.values()):
        _note(missing, directory / "ledger.json", directory, "what_ledger")
    return Run(
        directory=directory, kind=kind, stages=stages, evaluation=evaluation, trainings=trainings,
        ledger=ledger, missing=tuple(missing), context=_context(directory), price=price,
        currency=currency,
    )  # fmt: skip


def _kind(directory: Path) -> tuple[Kind, tuple[str, ...]]:
    if any((directory / name).exists() for name in ("metrics.jsonl", "run.toml")):
        return "run", (directory.resolve().name,)
    found = [
        path.name
        for path in sorted(directory.iterdir())
        if any((path / name).is_file() for name in ("metrics.jsonl", "run.toml"))
    ]
    whole = any((directory / name).exists() for name in ("stages.json", "settings.json"))
    if whole or set(found) <= set(STAGES):
        return "quickstart", STAGES
    return "runs", tuple(found)


def _note(missing: Missing, path: Path, directory: Path, what: str, **about: str) -> None:
    file = path.relative_to(directory).as_posix()
    missing.append(("missing_file", {"file": file, "what": what, **about}))


def _evaluation(
    directory: Path, kind: Kind, names: tuple[str, ...], missing: Missing
) -> Evaluation:
    """Read eval.json of the folder and of the runs in it; of two, the folder's word goes first."""
    whole = Evaluation()
    folders = [directory] if kind == "run" else [directory, *(directory / name for name in names)]
    for folder in folders:
        try:
            one = Evaluation.load(folder / "eval.json")
        except DataError as error:
            missing.append(("broken_file", {"error": str(error), "what": "what_eval"}))
            continue
        for subject, measures in one.results.items():
            # A folder of runs: `runs/a` and `runs/b` may both call their model the same.
            name = subject if folder is directory or kind == "quickstart" else folder.name
            whole = whole.adding(name, {**measures, **whole.results.get(name, {})})
        whole = whole.sampling(*one.samples)
    broken = any(about.get("what") == "what_eval" for _, about in missing)
    if not whole.results and not broken:
        _note(missing, directory / "eval.json", directory, "what_eval")
    return whole


def _training(directory: Path, name: str, missing: Missing) -> Training:
    lines = [line for line in _metrics(directory / "metrics.jsonl") if "step" in line]
    toml, settings = "", {}
    try:
        toml = (directory / "run.toml").read_text(encoding="utf-8")
        settings = tomllib.loads(toml)
    except FileNotFoundError:
        if lines:
            _note(missing, directory / "run.toml", directory, "what_settings", stage=name)
    except (OSError, ValueError) as error:
        about = {"error": f"{directory / 'run.toml'}: {error}", "what": "what_settings"}
        missing.append(("broken_file", {**about, "stage": name}))
    band, verdict = _on_track(directory, name, lines, settings, missing)
    return Training(
        name=name, directory=directory, lines=lines, settings=settings, toml=toml,
        ledger=_object(directory / "ledger.json"), said=_said(directory / "samples.txt"),
        parameters=_parameters(directory), band=band, verdict=verdict,
    )  # fmt: skip


def _on_track(
    directory: Path, name: str, lines: Sequence[Mapping[str, Any]], settings: Mapping[str, Any],
    missing: Missing,
) -> tuple[Band | None, Verdict | None]:  # fmt: skip
    """Return the band of a run and where the run is beside it."""
    if not settings or not lines:
        return None, None
    wish = str(settings.get("log", {}).get("band", "auto"))
    try:
        band = find_band(directory, wish=wish)
        if band is None:
            return None, None
        return band, judge(band, lines, settings=optim_settings(directory))
    except UserError as error:
        if wish != "auto":  # nobody asked for it, and what it lacks is named elsewhere
            missing.append(("no_band", {"stage": name, "error": str(error)}))
        return None, None


def _metrics(path: Path) -> list[dict[str, Any]]:
    try:
        lines = read_metrics(path)
    except (OSError, UnicodeDecodeError):
        return []
    return [cast(dict[str, Any], line) for line in lines if isinstance(line, dict)]


def _object(path: Path) -> Mapping[str, Any]:
    try:
        plain = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return plain if isinstance(plain, dict) else {}


def _said(path: Path) -> tuple[tuple[int, str, str], ...]:
    """Read samples.txt: `## step N`, then `> prompt`, its continuation, an empty line."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ()
    said = []
    for part in re.split(r"^## step (?=\d+$)", text, flags=re.MULTILINE)[1:]:
        step, _, rest = part.partition("\n")
        for sample in re.split(r"^> ", rest, flags=re.MULTILINE)[1:]:
            prompt, _, spoken = sample.partition("\n")
            said.append((int(step), prompt, spoken.strip()))
    return tuple(said)


def _parameters(directory: Path) -> int:
    """Count the numbers of the newest checkpoint by the header of its safetensors file."""
    for path in sorted(directory.glob("checkpoints/*/model.safetensors"), reverse=True):
        try:
            with path.open("rb") as file:
                (length,) = struct.unpack("<Q", file.read(8))
                header = json.loads(file.read(length))
            return sum(
                math.prod(tensor["shape"])
                for name, tensor in header.items()
                if name != "__metadata__"
            )
        except (OSError, ValueError, KeyError, TypeError, struct.error):
            continue
    return 0


def _data_ledger(directory: Path) -> list[Mapping[str, Any]]:
    """Return the rows of a data set's ledger: in the folder, or of the data set inside it."""
    for path in (directory / "ledger.json", directory / "data" / "ledger.json"):
        try:
            rows = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if isinstance(rows, list):
            return [row for row in rows if isinstance(row, dict)]
    return []


def _context(directory: Path) -> int:
    """Return the context of the newest checkpoint, or 0."""
    found = [
        *directory.glob("*/checkpoints/*/config.json"),
        *directory.glob("checkpoints/*/config.json"),
    ]
    for config in sorted(found, reverse=True):
        try:
            return int(json.loads(config.read_text(encoding="utf-8"))["max_position_embeddings"])
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return 0
