"""A folder of adapters that is looked at again: what is put there is served without a restart.

Each folder in it that holds an adapter of a served base (a run, or a directory in PEFT's format) is
a model by that folder's name. The folder is read when models are listed and when a request names a
model that isn't known, at most once a second, on a thread; running answers don't notice. What was
loaded stays until the server ends, also when its folder goes.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path

from minimind import checkpoint
from minimind.errors import ConfigError, UserError
from minimind.serve.registry import Registry, Served

log = logging.getLogger("minimind.serve")

EVERY_SECONDS = 1.0


class AdapterFolder:
    """Finds and loads adapters.

    Args:
        folder: where they lie.
        load: (name, path) -> a served adapter; raises `UserError` for one that isn't of any base.

    Raises:
        ConfigError: there is no such folder.
    """

    def __init__(self, folder: Path, load: Callable[[str, str], Served]) -> None:
        if not folder.is_dir():
            raise ConfigError(f"--adapter-folder {folder}: there is no such folder")
        self.folder = folder
        self._load = load
        self._refused: dict[str, int] = {}
        self._looked = -EVERY_SECONDS

    @property
    def due(self) -> bool:
        """Tell whether enough time has passed since the last look."""
        return time.monotonic() - self._looked >= EVERY_SECONDS

    def look(self, registry: Registry) -> Registry:
        """Return the registry with what is new in the folder; itself if nothing is.

        What can't be served is logged once, and tried again when its folder changes.
        """
        found: dict[str, Served] = {}
        known = {served.id for served in registry}
        for entry in sorted(self.folder.iterdir()):
            if entry.name in known or not entry.is_dir():
                continue
            newest = _adapter_in(entry)
            if newest is None or self._refused.get(entry.name) == newest.stat().st_mtime_ns:
                continue
            changed = newest.stat().st_mtime_ns
            try:
                found[entry.name] = self._load(entry.name, str(newest))
            except UserError as error:
                self._refused[entry.name] = changed
                log.warning("adapter %s is not served: %s", entry, error)
            else:
                log.info("adapter %s is served as %s", newest, entry.name)
        self._looked = time.monotonic()
        return registry.adding(found) if found else registry


def _adapter_in(entry: Path) -> Path | None:
    """Return the newest directory of adapters of a run, or the directory itself."""
    candidates = [entry, *reversed(checkpoint.list_checkpoints(entry))]
    return next((path for path in candidates if (path / "adapter_config.json").is_file()), None)
