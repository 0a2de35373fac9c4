"""Which checkpoint of a run: the newest whole one, the best one, and which are kept."""

from __future__ import annotations

import json
import re
import warnings
from pathlib import Path

from minimind.checkpoint.files import discard, verify, write_atomically
from minimind.errors import CheckpointError, did_you_mean

TRAINER_STATE = "trainer_state.pt"
OPTIMIZER = "optimizer"
"""Folder of the optimizer's state of a sharded run (`train.sharded_state`)."""
_BEST = "best.json"


class DamagedCheckpointWarning(UserWarning):
    """A checkpoint is damaged and an older one is used instead."""


def checkpoint_path(run_directory: Path, step: int) -> Path:
    """Return where the checkpoint of a step lies: RUN/checkpoints/step-000200."""
    return run_directory / "checkpoints" / f"step-{step:06d}"


def step_of(directory: Path) -> int:
    """Return the number of a `step-000200` directory."""
    return int(directory.name.removeprefix("step-"))


def list_checkpoints(run_directory: Path) -> list[Path]:
    """Return the checkpoint directories of a run, oldest first, whole or not."""
    found = (run_directory / "checkpoints").glob("step-*")
    return sorted((p for p in found if re.fullmatch(r"step-\d+", p.name)), key=step_of)


def resolve(path: str | Path, *, trainer_state: bool = False) -> Path:
    """Return the directory of a whole checkpoint.

    Args:
        path: a checkpoint directory (ours, or a Hugging Face one), a run directory (its newest
            whole checkpoint: a damaged one is named in a warning and skipped), or `RUN:best`.
        trainer_state: also checksum the optimizer's state, which only a resume reads.

    Raises:
        CheckpointError: there is none, or all are damaged.
    """
    skip = frozenset() if trainer_state else frozenset({TRAINER_STATE, OPTIMIZER})
    text = str(path)
    if text.endswith(":best"):
        directory = best(Path(text.removesuffix(":best")))
        verify(directory, skip=skip)
        return directory
    directory = Path(path)
    if is_checkpoint(directory):
        verify(directory, skip=skip)
        return directory
    candidates = list_checkpoints(directory)
    for candidate in reversed(candidates):
        try:
            if not is_checkpoint(candidate):
                raise CheckpointError(
                    f"{candidate} has neither config.json nor adapter_config.json"
                )
            verify(candidate, skip=skip)
        except CheckpointError as error:
            warnings.warn(f"{error} Falling back.", DamagedCheckpointWarning, stacklevel=2)
            continue
        return candidate
    raise CheckpointError(_nothing_there(directory, damaged=candidates))


def is_checkpoint(directory: Path) -> bool:
    """Tell whether a directory holds a model (config.json) or an adapter."""
    return any((directory / name).is_file() for name in ("config.json", "adapter_config.json"))


def record_best(run_directory: Path, *, step: int, validation_loss: float) -> None:
    """Note that the checkpoint of `step` has the lowest validation loss so far."""
    name = checkpoint_path(run_directory, step).name
    record = {"checkpoint": name, "step": step, "validation_loss": validation_loss}
    write_atomically(run_directory / "checkpoints" / _BEST, json.dumps(record) + "\n")


def best_loss(run_directory: Path) -> float | None:
    """Return the validation loss of the best checkpoint, or None where none is recorded."""
    record = _read_best(run_directory)
    return None if record is None else float(record["validation_loss"])


def best(run_directory: Path) -> Path:
    """Return the directory of the checkpoint with the lowest validation loss.

    Raises:
        CheckpointError: none is recorded, or it is gone.
    """
    record = _read_best(run_directory)
    if record is None:
        raise CheckpointError(
            f"{run_directory} has no best checkpoint: none was saved after a validation. "
            f"{run_directory} alone means the newest one."
        )
    directory = run_directory / "checkpoints" / str(record["checkpoint"])
    if not is_checkpoint(directory):
        raise CheckpointError(f"{directory}, the best checkpoint of the run, is gone or damaged.")
    return directory


def prune(
    run_directory: Path, *, keep_last: int, keep_best: bool = True, newest: int | None = None
) -> list[Path]:
    """Remove all but the last `keep_last` checkpoints and the best; return what was removed.

    Args:
        run_directory: RUN.
        keep_last: how many of the newest stay.
        keep_best: the best by validation stays too.
        newest: the step that the run is at. Past it lie only damaged ones that a resume fell back
            from: they don't count, and go.
    """
    own = [p for p in list_checkpoints(run_directory) if newest is None or step_of(p) <= newest]
    kept = set(own[-max(1, keep_last) :])
    record = _read_best(run_directory) if keep_best else None
    if record is not None:
        kept.add(run_directory / "checkpoints" / str(record["checkpoint"]))
    removed = [path for path in list_checkpoints(run_directory) if path not in kept]
    for path in removed:
        discard(path)
    return removed


def _read_best(run_directory: Path) -> dict[str, float | str] | None:
    path = run_directory / "checkpoints" / _BEST
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise CheckpointError(f"{path} is damaged: {error}. Delete it.") from error


def _nothing_there(directory: Path, *, damaged: list[Path]) -> str:
    if damaged:
        names = ", ".join(path.name for path in damaged)
        return f"every checkpoint of {directory} is damaged ({names}): start the run again."
    if not directory.exists():
        siblings = directory.parent.iterdir() if directory.parent.is_dir() else ()
        names = [sibling.name for sibling in siblings if sibling.is_dir()]
        near = did_you_mean(directory.name, names)
        return f"there is no checkpoint or run {str(directory)!r}.{near}"
    return (
        f"{directory} is not a checkpoint (no config.json) and not a run with saved checkpoints "
        "(no checkpoints/step-*)."
    )
