"""What every request passes before a route: its id, its host, its key, whether the server is open.

Plain ASGI: a middleware that is a coroutine around each response would cost streams their speed.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from minimind.serve.errors import ApiError, internal_error
from minimind.serve.http import error_response
from minimind.serve.server import Server, log

CLIENT_LEFT = 499
_ROUTES = ("/v1/chat/completions", "/v1/completions", "/v1/models", "/health", "/metrics")


class Gate:
    """Refuses what may not enter, counts everything, and lets no traceback out."""

    def __init__(self, app: ASGIApp, *, server: Server) -> None:
        self._app = app
        self._server = server
        self._keys = [hashlib.sha256(key.encode()).digest() for key in server.settings.api_keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            return
        status, uncounted = CLIENT_LEFT, True
        request_id = f"req_{secrets.token_hex(16)}".encode()

        def count() -> None:
            nonlocal uncounted
            if uncounted:
                uncounted = False
                self._server.metrics.answered(_route(scope["path"]), status)

        async def counted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["x-request-id"] = request_id.decode()
            elif not message.get("more_body", False):
                count()  # before its last byte: who has an answer finds it counted
            await send(message)

        try:
            refusal = self._refusal(scope["path"], Headers(scope=scope))
            if refusal:
                await error_response(refusal)(scope, receive, counted)
            else:
                await self._app(scope, receive, counted)
        except ClientDisconnect:
            pass
        except Exception:
            log.exception("request %s to %s failed", request_id.decode(), scope["path"])
            if status == CLIENT_LEFT:  # nothing was sent so far
                await error_response(internal_error())(scope, receive, counted)
        finally:
            count()

    def _refusal(self, path: str, headers: Headers) -> ApiError | None:
        allowed = self._server.settings.allowed_hosts
        host = _without_port(headers.get("host", ""))
        if allowed is not None and host not in allowed:
            return ApiError(
                403,
                f"This server doesn't answer to the name '{host[:80]}'; start it with "
                "--allowed-host NAME if it should.",
                code="host_not_allowed",
            )
        if path == "/health":
            return None
        if self._keys and not self._has_key(headers):
            given = "authorization" in headers
            return ApiError(
                401,
                "Incorrect API key provided."
                if given
                else "You didn't provide an API key: send it as 'Authorization: Bearer KEY'.",
                code="invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )
        return self._server.refusal() if path.startswith("/v1/") else None

    def _has_key(self, headers: Headers) -> bool:
        scheme, _, key = headers.get("authorization", "").partition(" ")
        # Digests have one length, and every key is compared: time tells nothing of them.
        digest = hashlib.sha256(key.strip().encode("utf-8", "surrogateescape")).digest()
        matches = [hmac.compare_digest(digest, known) for known in self._keys]
        return scheme.lower() == "bearer" and any(matches)


def _route(path: str) -> str:
    """Name the route of a path; unknown ones share a name, or they could fill the memory."""
    if path.startswith("/v1/models/"):
        return "/v1/models/{model}"
    return path if path in _ROUTES else "other"


def _without_port(host: str) -> str:
    if host.startswith("["):
        return host.partition("]")[0] + "]"
    return host.partition(":")[0].lower()
