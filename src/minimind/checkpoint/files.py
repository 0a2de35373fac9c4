"""Directories that are whole or not there: written aside, checksummed, fsynced, then renamed."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from minimind.errors import CheckpointError

MANIFEST = "manifest.json"
_TEMP = ".minimind-tmp-"


class DirectoryWriter:
    """Writes the files of one directory and remembers their sizes and sha256."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._files: dict[str, dict[str, int | str]] = {}

    def write(self, name: str, content: bytes | str) -> None:
        """Write one file and bring it to the disk."""
        data = content.encode() if isinstance(content, str) else content
        with (self.directory / name).open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        self._files[name] = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}

    def finish(self) -> None:
        """Adopt the files that others wrote here, then write the manifest."""
        for path in sorted(self.directory.rglob("*")):
            if path.is_dir():
                _fsync_directory(path)
            elif (name := path.relative_to(self.directory).as_posix()) not in self._files:
                self._adopt(path, name)
        listing = {"format": "minimind-checkpoint", "version": 1, "files": self._files}
        self.write(MANIFEST, json.dumps(listing, indent=2) + "\n")
        _fsync_directory(self.directory)

    def _adopt(self, path: Path, name: str) -> None:
        with path.open("rb+") as file:
            os.fsync(file.fileno())
        self._files[name] = {"size": path.stat().st_size, "sha256": sha256_of(path)}


@contextmanager
def atomic_directory(target: Path) -> Iterator[DirectoryWriter]:
    """Write `target` under a temporary name beside it and rename it when everything is on disk.

    A kill at any moment leaves `target` as it was. What earlier kills left is removed first: a
    folder of checkpoints has one writer.

    Raises:
        CheckpointError: the disk is full or can't be written; nothing is left behind.
    """
    temp = target.parent / f".{target.name}{_TEMP}{os.getpid()}"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(target.parent)
        temp.mkdir()
        writer = DirectoryWriter(temp)
        yield writer
        writer.finish()
        _replace(temp, target)
    except OSError as error:
        shutil.rmtree(temp, ignore_errors=True)
        raise CheckpointError(_explain(target, error)) from error
    except BaseException:
        shutil.rmtree(temp, ignore_errors=True)
        raise


def write_atomically(path: Path, text: str) -> None:
    """Replace a small file as a whole.

    Raises:
        CheckpointError: the disk is full or can't be written; the old file is as it was.
    """
    temp = path.with_name(f".{path.name}{_TEMP}{os.getpid()}")
    try:
        with temp.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temp.replace(path)
        _fsync_directory(path.parent)
    except OSError as error:
        temp.unlink(missing_ok=True)
        raise CheckpointError(_explain(path, error)) from error


def read_manifest(directory: Path) -> dict[str, dict[str, int | str]] | None:
    """Return {name: {"size", "sha256"}}, or None without a manifest (a foreign one)."""
    path = directory / MANIFEST
    if not path.exists():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))["files"]
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{path} is damaged: {error}. Use another checkpoint of the run."
        ) from error


def verify(directory: Path, *, skip: frozenset[str] = frozenset()) -> None:
    """Compare every file with the manifest; of those in `skip` only the size (they are large).

    `skip` has names of files and of folders.

    Raises:
        CheckpointError: names the file that is missing, truncated or altered.
    """
    for name, expected in (read_manifest(directory) or {}).items():
        path, size = directory / name, expected["size"]
        if not path.exists():
            raise CheckpointError(f"{path} is missing: the checkpoint is damaged.")
        found = path.stat().st_size
        if found != size:
            what = "truncated" if found < int(size) else "altered"
            raise CheckpointError(f"{path} is {what}: {found:,} bytes, {size:,} were written.")
        if name.partition("/")[0] not in skip and sha256_of(path) != expected["sha256"]:
            raise CheckpointError(f"{path} is corrupted: its sha256 is not the one in {MANIFEST}.")


def sha256_of(path: Path) -> str:
    """Return the hexadecimal sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def remove_leftovers(parent: Path) -> None:
    """Remove what kills left under temporary names in a folder that has one writer."""
    for path in parent.glob(f".*{_TEMP}*"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def discard(directory: Path) -> None:
    """Delete a directory so that a kill meanwhile leaves nothing that looks like a whole one."""
    aside = directory.parent / f".{directory.name}{_TEMP}gone"
    shutil.rmtree(aside, ignore_errors=True)
    directory.rename(aside)
    shutil.rmtree(aside)


def _replace(temp: Path, target: Path) -> None:
    """Rename `temp` to `target`; one that is there (a damaged one, written again) makes way."""
    if target.exists():
        old = target.parent / f".{target.name}{_TEMP}old"
        target.rename(old)
        temp.rename(target)
        shutil.rmtree(old, ignore_errors=True)
    else:
        temp.rename(target)
    _fsync_directory(target.parent)


def _fsync_directory(directory: Path) -> None:
    if os.name == "nt":  # Windows can't open a directory; NTFS journals renames itself
        return
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def disk_error(target: Path, error: OSError) -> str:
    """Return what the system says about `target`, and how much room its disk has."""
    place = target.parent
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free / 2**20
    return f"{error.strerror or error} ({free:,.0f} MiB free there)"


def _explain(target: Path, error: OSError) -> str:
    return (
        f"{target} could not be saved: {disk_error(target, error)}. "
        "Checkpoints saved before are untouched. Make room (delete old runs, or set "
        "save.keep_last lower) or choose another disk with --out, then continue with --resume."
    )
