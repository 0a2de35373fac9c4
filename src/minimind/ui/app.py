"""The page on a socket: the application, what browsers may do with it, and its server."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # read when gradio is imported

import gradio as gr
import uvicorn
from fastapi import FastAPI
from starlette.datastructures import MutableHeaders
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from minimind.errors import UserError
from minimind.ui.answering import Sampling
from minimind.ui.client import Server
from minimind.ui.handlers import Handlers
from minimind.ui.page import build, theme
from minimind.ui.words import system_language

STYLE = Path(__file__).parent / "style.css"
LOOPBACK = ("127.0.0.1", "localhost")
PORT, PORTS = 7860, 40
"""Gradio's own port, and how many after it are tried."""

POLICY = "; ".join((
    "default-src 'self'",
    "script-src 'self' 'unsafe-inline' 'unsafe-eval'",  # Gradio's start-up and HTML components
    "style-src 'self' 'unsafe-inline'",
    "img-src 'self' data: blob:",
    "font-src 'self' data:",
    "worker-src 'self' blob:",
    "object-src 'none'",
    "base-uri 'self'",
    "form-action 'self'",
    "frame-ancestors 'none'",
))  # fmt: skip
"""Whatever a model writes, the page can't be made to ask another host for anything."""


class Guard:
    """Adds the policy to every response."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["Content-Security-Policy"] = POLICY
                headers["Referrer-Policy"] = "no-referrer"
                headers["X-Content-Type-Options"] = "nosniff"
            await send(message)

        await self._app(scope, receive, guarded)


def create_app(
    server: Server, *, sampling: Sampling | None = None, loopback_only: bool = True
) -> FastAPI:
    """Return the page as an application.

    Args:
        server: answers.
        sampling: where the controls stand at first.
        loopback_only: refuse requests for another name than this machine's own; without that a page
            on the internet could point its name at 127.0.0.1 and read along.
    """
    handlers = Handlers(server)
    blocks = build(system_language(), handlers.attach, sampling=sampling)
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(Guard)
    if loopback_only:
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(LOOPBACK))
    options: dict[str, Any] = {"footer_links": [], "run_history": False, "ssr_mode": False,
        "mcp_server": False, "pwa": False, "show_error": True,
        "theme": theme(), "css": STYLE.read_text(encoding="utf-8")}  # fmt: skip
    return gr.mount_gradio_app(app, blocks, path="/", **options)


def bind(host: str, port: int | None) -> socket.socket:
    """Return a listening socket; without a port, Gradio's or one of the next.

    Raises:
        UserError: the address can't be had.
    """
    wanted = [port] if port is not None else [*range(PORT, PORT + PORTS), 0]
    failed: OSError | None = None
    for number in wanted:
        try:
            family, kind, _, _, address = socket.getaddrinfo(host, number, type=socket.SOCK_STREAM)[
                0
            ]
        except OSError as error:
            raise UserError(f"--host {host}: {error.strerror or error}") from error
        sock = socket.socket(family, kind)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(address)
            sock.listen(128)
            return sock
        except OSError as error:
            sock.close()
            failed = error
    raise UserError(
        f"--host {host} --port {port}: {failed.strerror if failed else 'taken'}; take another "
        "port, or 0 for a free one"
    )


class PageServer(uvicorn.Server):
    """uvicorn that leaves signals to whoever runs it."""

    def __init__(self, app: FastAPI) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                log_level="warning",
                server_header=False,
                ws="none",
                timeout_graceful_shutdown=1,  # open pages hold a stream for as long as they live
            )
        )

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Install none."""
        yield
