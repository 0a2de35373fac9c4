"""The state of a running server: its settings, its models, what is running, whether it drains."""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

from minimind.serve.adapters import AdapterFolder
from minimind.serve.errors import ApiError, unavailable
from minimind.serve.metrics import Metrics
from minimind.serve.registry import Registry, Served
from minimind.serve.running import Abort, Bridge, Run
from minimind.serve.scoring import scoring_thread

log = logging.getLogger("minimind.serve")

Status = Literal["loading", "ready", "draining"]


@dataclass(frozen=True, kw_only=True)
class ServeSettings:
    """Limits and doors of a server.

    Attributes:
        api_keys: any of these opens; empty: no key is asked for.
        allowed_hosts: values of the Host header, without ports; None: any.
        cors_origins: web pages of these origins may read answers; `*`: of all.
        max_body: bytes of a request.
        body_timeout: seconds in which a request's body must have come.
        request_timeout: seconds for the whole of a request.
    """

    api_keys: tuple[str, ...] = ()
    allowed_hosts: frozenset[str] | None = None
    cors_origins: tuple[str, ...] = ()
    max_body: int = 1 << 20
    body_timeout: float = 30.0
    request_timeout: float = 600.0


class Server:
    """What the routes share.

    Attributes:
        settings: see `ServeSettings`.
        status: `loading` until the models are there, `draining` once it was asked to end.
        registry: the models.
        folder: of adapters that are served as they come; None: those at the start are all.
        metrics: see `Metrics`.
        scoring: the thread that scores prompts; at most `scores_waiting` requests use it.
    """

    def __init__(self, settings: ServeSettings) -> None:
        self.settings = settings
        self.status: Status = "loading"
        self.registry = Registry({})
        self.folder: AdapterFolder | None = None
        self._looking = asyncio.Lock()
        self.metrics = Metrics(lambda: self.registry.backends)
        self.scoring: ThreadPoolExecutor = scoring_thread()
        self.scores_waiting = 0
        self._runs: set[Run] = set()
        self._bridge: Bridge | None = None

    def ready(self, registry: Registry) -> None:
        """Open for requests, unless the end was asked for in the meantime."""
        self.registry = registry
        if self.status == "loading":
            self.status = "ready"

    async def find(self, name: str) -> Served:
        """Return a model by name; one that isn't known is looked for in the adapters' folder.

        Raises:
            ApiError: 404.
        """
        if name not in self.registry:
            await self.look_again()
        return self.registry.get(name)

    async def look_again(self) -> None:
        """Serve what is new in the folder of adapters, if there is one."""
        if self.folder is None or self.status != "ready":
            return
        async with self._looking:
            if self.folder.due:
                self.registry = await asyncio.to_thread(self.folder.look, self.registry)

    def refusal(self) -> ApiError | None:
        """Return why no new request is taken now, or None."""
        if self.status == "loading":
            return unavailable("The server is loading its models.", code="loading")
        if self.status == "draining":
            return unavailable("The server is shutting down.", code="shutting_down")
        return None

    def begin(self, *, eager: bool) -> Run:
        """Begin a run; `end` must follow."""
        if self._bridge is None:
            self._bridge = Bridge(asyncio.get_running_loop())
        run = Run(self._bridge, eager=eager, timeout=self.settings.request_timeout)
        self._runs.add(run)
        return run

    def end(self, run: Run, *, model: str, choices: int) -> None:
        """Free what a run still holds, and observe its times. Idempotent."""
        run.close()
        if run in self._runs:
            self._runs.discard(run)
            self.metrics.ran(model, run, choices=choices)

    def abort_all(self, reason: Abort) -> None:
        """End every run."""
        for run in list(self._runs):
            run.abort(reason)

    @property
    def running(self) -> int:
        """How many requests are being answered."""
        return len(self._runs)

    async def drain(self, seconds: float) -> bool:
        """Take no new requests; wait until those that run are done, or abort them.

        Returns:
            Whether all were done in time.
        """
        self.status = "draining"
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        while self._runs and loop.time() < deadline:
            await asyncio.sleep(0.02)
        in_time = not self._runs
        self.abort_all("shutdown")
        for _ in range(50):  # the aborted streams send their error event
            if not self._runs:
                break
            await asyncio.sleep(0.02)
        return in_time

    def close(self) -> None:
        """End threads."""
        self.scoring.shutdown(wait=False, cancel_futures=True)
        self.registry.close()
