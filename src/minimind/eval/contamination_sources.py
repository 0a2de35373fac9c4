"""What a checkpoint was trained on, as far as its run.toml files say."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minimind.checkpoint import resolve
from minimind.data.formats import Kind
from minimind.errors import CheckpointError, DataError
from minimind.eval.held_out import training_texts


@dataclass(frozen=True, slots=True)
class TrainingFiles:
    """The files of one stage.

    Attributes:
        patterns: files, folders, globs.
        kind: of their rows.
        share: what `data.validation_share` held out.
    """

    patterns: tuple[str, ...]
    kind: Kind
    share: float = 0.0


@dataclass(frozen=True, slots=True)
class TrainingData:
    """The files of all stages up to a checkpoint.

    Attributes:
        stages: from the last one back to pretraining.
        unread: what can't be read here, and why: sources that are streamed, files that are gone, a
            base model of someone else.
    """

    stages: tuple[TrainingFiles, ...] = ()
    unread: tuple[str, ...] = ()

    def texts(self) -> Iterator[tuple[str, str]]:
        """Yield (text, place) of every training document."""
        for stage in self.stages:
            yield from training_texts(stage.patterns, stage.kind, share=stage.share)

    def files(self) -> tuple[Path, ...]:
        """Return the patterns as paths."""
        return tuple(Path(pattern) for stage in self.stages for pattern in stage.patterns)


def named_files(paths: tuple[Path, ...]) -> TrainingData:
    """Return the files of `--training-data`; each is read as the kind that its rows are.

    Raises:
        DataError: one isn't there.
    """
    for path in paths:
        if not path.exists():
            raise DataError(f"--training-data {path}: there is no such file or folder")
    kinds: tuple[Kind, ...] = ("text", "chat", "preference")
    return TrainingData(
        tuple(TrainingFiles((str(path),), kind) for path in paths for kind in kinds)
    )


def training_data(checkpoint: str | Path) -> TrainingData:
    """Follow a checkpoint back through its stages (`init.checkpoint`).

    Args:
        checkpoint: as in `checkpoint.resolve`.

    Raises:
        CheckpointError: there is no such checkpoint.
    """
    stages: list[TrainingFiles] = []
    unread: list[str] = []
    directory: Path | None = resolve(checkpoint)
    seen: set[Path] = set()
    while directory is not None and directory not in seen:
        seen.add(directory)
        settings = _settings(directory)
        if settings is None:
            unread.append(f"{directory} has no run.toml: what it was trained on isn't known")
            break
        data = settings.get("data", {})
        found = []
        for pattern in map(str, data.get("train", [])):
            path = _moved(pattern, settings, directory)
            if path is None:
                unread.append(f"{pattern} isn't here")
            else:
                found.append(path)
        if found:
            share = 0.0 if data.get("validation") else float(data.get("validation_share", 0.0))
            stages.append(TrainingFiles(tuple(found), data.get("kind", "text"), share))
        directory = _before(settings, directory, unread)
    return TrainingData(tuple(stages), tuple(unread))


def _settings(directory: Path) -> dict[str, Any] | None:
    for folder in (directory, directory.parent.parent):
        path = folder / "run.toml"
        if path.is_file():
            try:
                return tomllib.loads(path.read_text(encoding="utf-8"))
            except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
                raise DataError(f"{path}: {error}") from error
    return None


def _before(settings: dict[str, Any], directory: Path, unread: list[str]) -> Path | None:
    """Return the checkpoint that a run began with."""
    begun = settings.get("init", {}).get("checkpoint")
    if not begun:
        return None
    moved = _moved(str(begun), settings, directory)
    try:
        return resolve(moved or begun)
    except CheckpointError:
        unread.append(f"{begun}, which it began with, isn't here: nor is what that was trained on")
        return None


def _moved(path: str, settings: dict[str, Any], directory: Path) -> str | None:
    """Return where a path of run.toml is now: as it says, or beside the run if that was moved."""
    if _there(path):
        return path
    out = str(settings.get("out", ""))
    run = directory.parent.parent if directory.parent.name == "checkpoints" else directory
    if out and path.startswith(out):
        other = str(run.parent) + path[len(out) :]
        if _there(other):
            return other
    return None


def _there(path: str) -> bool:
    return Path(path).exists() or any(Path().glob(path) if not path.startswith("/") else ())
