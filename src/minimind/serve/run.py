"""A server on a socket: listening at once, loading beside it, draining when asked to end."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import ipaddress
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import uvicorn

from minimind.errors import RunError, UserError
from minimind.serve.adapters import AdapterFolder
from minimind.serve.app import create_app
from minimind.serve.loading import Loader, LoadSettings
from minimind.serve.registry import Registry
from minimind.serve.server import Server, ServeSettings

BACKLOG = 2048


@dataclass(frozen=True, kw_only=True)
class Listening:
    """Where a server listens, and how it ends.

    Attributes:
        host: a name or address; loopback unless others may come.
        port: 0 takes a free one.
        drain: seconds that running requests get after the first signal.
        log_level: of uvicorn; `info` writes a line for each request.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    drain: float = 30.0
    log_level: str = "warning"


def is_loopback(host: str) -> bool:
    """Tell whether only this machine can reach `host`."""
    if host == "localhost":
        return True
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    return False


def bind(host: str, port: int) -> socket.socket:
    """Return a listening socket.

    Raises:
        UserError: the address can't be had.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        sock = socket.socket(family, socket.SOCK_STREAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        sock.listen(BACKLOG)
        sock.setblocking(False)
    except OSError as error:
        raise UserError(
            f"--host {host} --port {port}: {error.strerror or error}; take another port, or 0 for "
            "a free one"
        ) from error
    return sock


class _Uvicorn(uvicorn.Server):
    """uvicorn without its signal handlers: ours drain first."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class Service:
    """One server from its start to its end."""

    def __init__(self, settings: ServeSettings, listening: Listening) -> None:
        self.server = Server(settings)
        self._listening = listening
        self._stop = asyncio.Event()
        self._signals = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        config = uvicorn.Config(
            create_app(self.server),
            lifespan="off",
            ws="none",
            log_level=listening.log_level,
            access_log=listening.log_level in {"info", "debug", "trace"},
            server_header=False,
            timeout_keep_alive=75,  # longer than clients keep a connection, or they race with us
            timeout_graceful_shutdown=1,  # what is left after our own draining
        )
        self._uvicorn = _Uvicorn(config)

    async def serve(
        self, sock: socket.socket, load: Callable[[], Registry], ready: Callable[[], None]
    ) -> bool:
        """Serve until a signal, or until loading fails.

        Args:
            sock: listens already.
            load: returns the registry; runs on a thread while /health says `loading`.
            ready: called when requests are answered.

        Returns:
            Whether every running request was done before the end.

        Raises:
            whatever `load` raised.
        """
        self._loop = asyncio.get_running_loop()
        self._handle_signals(self._loop)
        serving = asyncio.create_task(self._uvicorn.serve(sockets=[sock]))
        loading = asyncio.create_task(asyncio.to_thread(self._load, load))
        stop = asyncio.create_task(self._stop.wait())
        in_time = True
        try:
            await asyncio.wait({loading, stop, serving}, return_when="FIRST_COMPLETED")
            if loading.done():
                loading.result()  # raises what went wrong
                ready()
            await asyncio.wait({stop, serving}, return_when="FIRST_COMPLETED")
            if self._signals:
                in_time = await self._drain()
        finally:
            stop.cancel()
            self._uvicorn.should_exit = True
            self._uvicorn.force_exit = self._signals > 1
            await serving
            self.server.close()
        return in_time

    def stop(self) -> None:
        """End as a signal does; from any thread. Nothing happens when it doesn't run."""
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: it has ended
                self._loop.call_soon_threadsafe(self._on_signal)

    def _load(self, load: Callable[[], Registry]) -> None:
        registry = load()
        gc.collect()
        gc.freeze()  # the models stay; no collection should walk them while tokens wait
        self.server.ready(registry)

    async def _drain(self) -> bool:
        """Let requests finish, up to the limit or the second signal."""
        draining = asyncio.create_task(self.server.drain(self._listening.drain))
        while not draining.done() and self._signals < 2:
            await asyncio.wait({draining}, timeout=0.05)
        if draining.done():
            return draining.result()
        draining.cancel()
        self.server.abort_all("shutdown")
        await asyncio.sleep(0.05)
        return False

    def _on_signal(self) -> None:
        self._signals += 1
        self.server.status = "draining"
        self._stop.set()

    def _handle_signals(self, loop: asyncio.AbstractEventLoop) -> None:
        if threading.current_thread() is not threading.main_thread():
            return  # signals are the main thread's; whoever runs us in another calls `stop`
        for number in (signal.SIGINT, signal.SIGTERM):
            try:
                loop.add_signal_handler(number, self._on_signal)
            except NotImplementedError:  # Windows
                signal.signal(number, lambda *_: loop.call_soon_threadsafe(self._on_signal))


def serve(
    models: Sequence[str],
    adapters: Sequence[str] = (),
    *,
    settings: ServeSettings,
    listening: Listening,
    loading: LoadSettings,
    on_bound: Callable[[str], None],
    on_ready: Callable[[Server], None],
    adapter_folder: Path | None = None,
) -> None:
    """Serve models until SIGINT or SIGTERM; a second signal doesn't wait for running requests.

    Args:
        models: `PATH` or `NAME=PATH` each.
        adapters: `NAME=PATH` each.
        settings: limits.
        listening: address.
        loading: how models run.
        on_bound: called with the URL once it listens.
        on_ready: called once the models are loaded.
        adapter_folder: adapters in it are served, also those that come later.

    Raises:
        UserError: the address is taken, a model can't be loaded.
        RunError: requests were cut off at the end.
    """
    sock = bind(listening.host, listening.port)
    host, port = sock.getsockname()[:2]
    on_bound(f"http://{f'[{host}]' if ':' in host else host}:{port}")

    async def main() -> bool:
        service = Service(settings, listening)
        loader = Loader(loading)
        if adapter_folder is not None:
            service.server.folder = AdapterFolder(adapter_folder, loader.load_adapter)

        def load() -> Registry:
            registry = loader.load(models, adapters)
            folder = service.server.folder
            return registry if folder is None else folder.look(registry)

        return await service.serve(
            sock,
            load,
            lambda: on_ready(service.server),
        )

    with contextlib.closing(sock):
        in_time = asyncio.run(main())
    if not in_time:
        raise RunError("requests were still running at the end and were cut off")
