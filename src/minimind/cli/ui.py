"""`minimind ui CHECKPOINT`: a chat page in the browser, its own server or another behind it."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal
from urllib.parse import urlsplit

import tyro

from minimind.errors import ConfigError, RunError, UserError, require

if TYPE_CHECKING:
    import socket

    from minimind.ui.app import PageServer
    from minimind.ui.client import Server

KEY_VARIABLE = "MINIMIND_API_KEY"


@dataclass(frozen=True, kw_only=True)
class Args:
    """Chat with checkpoints in the browser, and see how likely each token of an answer was.

    Give checkpoints, and a server for them is started and ended with the page; or give --server,
    the address of one that runs already (minimind serve, vLLM, any that speaks OpenAI's protocol).
    Ctrl-C ends it.

    Attributes:
        models: CHECKPOINT or NAME=CHECKPOINT each: a run, a checkpoint directory, RUN:best, or a
            .gguf file.
        server: the address of a running server, as http://127.0.0.1:8000/v1.
        api_key_env: the environment variable with the key of --server.
        adapter: NAME=DIRECTORY of a LoRA adapter. Repeatable.
        backend: what generates: torch (ours), or llama.cpp for .gguf files.
        tokenizer: directory with the tokenizer of a .gguf file; its own vocabulary otherwise.
        device: auto takes a GPU where there is one.
        dtype: of the weights; auto keeps what was saved.
        slots: answers that run at once, for each model.
        host: the address of the page; 0.0.0.0 lets others in.
        port: of the page; by default 7860 or the next that is free.
        open: open the page in the browser.
    """

    models: Annotated[
        tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="[NAME=]CHECKPOINT ...")
    ] = ()
    server: str | None = None
    api_key_env: str | None = None
    adapter: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    backend: Literal["torch", "llama.cpp"] = "torch"
    tokenizer: str | None = None
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    dtype: Literal["auto", "fp32", "bf16"] = "auto"
    slots: int = 4
    host: str = "127.0.0.1"
    port: int | None = None
    open: bool = False


class OwnServer:
    """`minimind serve` in a process of its own, on a free port of this machine.

    A process, because decoding and drawing the page would otherwise share one interpreter lock.
    """

    def __init__(self, args: Args) -> None:
        flags = ["--port", "0", "--drain-timeout", "0", "--slots", str(args.slots)]
        flags += ["--backend", args.backend, "--device", args.device, "--dtype", args.dtype]
        flags += ["--tokenizer", args.tokenizer] if args.tokenizer else []
        for adapter in args.adapter:
            flags += ["--adapter", adapter]
        self.url: str | None = None
        self._bound, self._ready, self._ended = (threading.Event() for _ in range(3))
        self._process = subprocess.Popen(
            [sys.executable, "-m", "minimind.cli.ui_server", *args.models, *flags],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C is for us; the server ends when its stdin closes
        )
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("listening on "):
                self.url = line.split()[2] + "/v1"
                self._bound.set()
            elif line.startswith("ready after "):
                self._ready.set()
        for event in (self._ended, self._bound, self._ready):  # nobody should wait any longer
            event.set()

    def wait_until_bound(self) -> str:
        """Return the address of its /v1.

        Raises:
            UserError: it ended because of what it was given; it has said why on stderr.
            RunError: it ended for another reason.
        """
        self._bound.wait()
        if self.url is None:
            self._fail()
        assert self.url is not None
        return self.url

    def wait_until_ready(self) -> None:
        """Return when the models are loaded.

        Raises:
            UserError, RunError: as `wait_until_bound`.
        """
        self._ready.wait()
        self.check()

    def check(self) -> None:
        """Raise where it has ended."""
        if self._ended.is_set():
            self._fail()

    def _fail(self) -> None:
        self.end()
        code = self._process.returncode
        message = f"the server ended (exit code {code}); it says why above"
        raise UserError(message) if code == UserError.exit_code else RunError(message)

    def end(self) -> None:
        """End it, and return when it has ended."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            self._process.wait(15)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _check(args: Args) -> None:
    if args.server is None and not args.models:
        raise ConfigError("give at least one CHECKPOINT, or --server URL of one that runs already")
    if args.server is not None and (args.models or args.adapter):
        raise ConfigError("give either checkpoints or --server: the models of a server are its own")
    if args.server is None and args.api_key_env is not None:
        raise ConfigError("--api-key-env is the key of --server; a server of our own needs none")
    if args.port is not None and not 0 <= args.port <= 65535:
        raise ConfigError(f"--port {args.port}: must be from 0 to 65535")
    if importlib.util.find_spec("gradio") is None:
        require("gradio", extra="ui")


def server_url(given: str) -> str:
    """Return the address of a server's /v1.

    Raises:
        ConfigError: it is no http address.
    """
    parts = urlsplit(given)
    if parts.scheme not in {"http", "https"} or not parts.netloc:
        raise ConfigError(f"--server {given}: give an address as http://127.0.0.1:8000/v1")
    return given.rstrip("/") if parts.path.strip("/") else f"{given.rstrip('/')}/v1"


def _key(variable: str | None) -> str | None:
    """Return the key, which is in no command line, because others can read those."""
    if variable is None:
        return os.environ.get(KEY_VARIABLE, "").strip() or None
    key = os.environ.get(variable, "").strip()
    if not key:
        raise ConfigError(f"--api-key-env {variable}: this environment variable is empty")
    return key


@contextmanager
def _running(page: PageServer, sock: socket.socket) -> Iterator[threading.Event]:
    """Run the page on a thread; the event is set when it has ended."""
    ended = threading.Event()

    def run() -> None:
        try:
            page.run(sockets=[sock])
        finally:
            ended.set()

    threading.Thread(target=run, daemon=True).start()
    try:
        yield ended
    finally:
        page.should_exit = True
        ended.wait(5)  # Thread.join would return at once after a Ctrl-C that came within it


def _first_token(server: Server) -> None:
    """Have each model make one token: the first one of all is slower than those after it."""

    async def make() -> None:
        hello = [{"role": "user", "content": "你好"}]
        for model in await server.models():
            async for _ in server.chat(model.id, hello, {"max_tokens": 1}):
                pass

    from minimind.ui.client import ServerError

    try:
        asyncio.run(make())
    except ServerError as error:
        raise RunError(f"the server made no first token: {error}") from error


def main(argv: list[str]) -> None:
    """Run `minimind ui`."""
    started = time.perf_counter()
    args = tyro.cli(Args, args=argv, prog="minimind ui")
    _check(args)
    url = None if args.server is None else server_url(args.server)
    key = _key(args.api_key_env)
    own = None if url else OwnServer(args)  # it starts while we import Gradio
    try:
        _show(args, own, url, key=key, started=started)
    except KeyboardInterrupt:
        print("\nended", flush=True)
    finally:
        if own is not None:
            own.end()


def _show(
    args: Args, own: OwnServer | None, url: str | None, *, key: str | None, started: float
) -> None:
    from minimind.ui.app import LOOPBACK, PageServer, bind, create_app
    from minimind.ui.client import Server

    def seconds() -> str:
        return f"{time.perf_counter() - started:.1f} s after the command"

    sock = bind(args.host, args.port)
    server = Server(url=own.wait_until_bound() if own else url or "", key=key)
    local = args.host in LOOPBACK
    if not local:
        print(f"warning: --host {args.host}: whoever reaches this machine can use the page and, "
              "through it, the server", file=sys.stderr)  # fmt: skip
    page = PageServer(create_app(server, loopback_only=local))
    with sock, _running(page, sock) as ended:
        while not page.started and not ended.wait(0.01):
            pass
        address = f"http://{args.host}:{sock.getsockname()[1]}"
        print(f"page: {address} ({seconds()}); Ctrl-C ends it", flush=True)
        if args.open:
            import webbrowser

            webbrowser.open(address)
        if own:
            own.wait_until_ready()
            _first_token(server)
            print(f"first token: {seconds()}; server: {server.url}", flush=True)
        else:
            print(f"server: {server.url}", flush=True)
        while not ended.wait(0.5):
            if own:
                own.check()
