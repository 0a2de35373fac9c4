"""What every export shares: a target that is whole or not there, checks, and their summary."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from minimind.checkpoint.files import disk_error
from minimind.errors import ExportError, VerificationError

Progress = Callable[[str, int, int], None]
"""Told (what is being done, done so far, out of how many)."""

_TEMP = ".minimind-export-"


def no_progress(what: str, done: int, total: int) -> None:
    """Tell nobody."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One comparison of an export with the checkpoint.

    Attributes:
        name: what was compared.
        passed: whether it is within its bound.
        detail: one line for people.
        figures: the same in numbers.
    """

    name: str
    passed: bool
    detail: str
    figures: dict[str, float | int | str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What an export made.

    Attributes:
        path: the file or directory.
        format: for example `hf` or `gguf`.
        dtype: of the weights, in the format's words.
        tensors: how many were written.
        parameters: how many numbers they hold.
        bytes: size on disk, all files together.
        files: their names.
        checks: empty when verification was switched off.
        notes: what the user should know.
    """

    path: str
    format: str
    dtype: str
    tensors: int
    parameters: int
    bytes: int
    files: tuple[str, ...]
    checks: tuple[Check, ...] = ()
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return it as builtins."""
        return asdict(self)


def require_all(checks: Sequence[Check], *, target: Path) -> None:
    """Refuse an export with a failed check.

    Raises:
        VerificationError: names each that failed, with its figures.
    """
    failed = [f"{check.name}: {check.detail}" for check in checks if not check.passed]
    if failed:
        raise VerificationError(
            f"{target} was not written: the result differs from the checkpoint. "
            + "; ".join(failed)
            + ". --no-verify keeps such an export."
        )


@contextmanager
def whole_or_nothing(target: Path, *, force: bool = False) -> Iterator[Path]:
    """Give a name beside `target` to write to, and rename it to `target` at the end.

    Whatever goes wrong in between, nothing is left; a killed export leaves only a hidden
    temporary, which the next export of the same target removes.

    Args:
        target: the file or directory to make.
        force: replace what is there, if an export could have made it.

    Raises:
        ExportError: something is there already, or the disk is full or can't be written.
    """
    _check_target(target, force=force)
    temp = target.parent / f".{target.name}{_TEMP}{os.getpid()}"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        for leftover in target.parent.glob(f".{_literal(target.name)}{_TEMP}*"):
            remove(leftover)
        yield temp
        _put_in_place(temp, target)
    except OSError as error:
        raise ExportError(_explain(target, error)) from error
    finally:
        remove(temp)


def remove(path: Path) -> None:
    """Remove a file or a directory, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def size_of(path: Path) -> int:
    """Return the bytes of a file, or of all files below a directory."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def _literal(name: str) -> str:
    return "".join(f"[{char}]" if char in "*?[" else char for char in name)


def _check_target(target: Path, *, force: bool) -> None:
    if not target.exists():
        return
    if not force:
        raise ExportError(f"{target} is there already: give another name, or --force to replace it")
    ours = target.is_file() or any(
        (target / name).is_file() for name in ("config.json", "adapter_config.json")
    )
    if not ours and any(target.iterdir()):
        raise ExportError(
            f"--force: {target} is a directory that no export made (no config.json in it); it is "
            "not deleted. Give another name"
        )


def _put_in_place(temp: Path, target: Path) -> None:
    """Rename `temp` to `target`; what was there makes way only now."""
    if temp.is_dir() and target.exists():
        old = target.parent / f".{target.name}{_TEMP}old"
        remove(old)
        target.rename(old)
        temp.rename(target)
        remove(old)
    else:
        temp.replace(target)


def _explain(target: Path, error: OSError) -> str:
    return (
        f"{target} could not be written: {disk_error(target, error)}. "
        "Nothing of it is left. Make room or choose another place."
    )
