"""Bodies in, streams out, and what happens when the client leaves in between."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from minimind.serve.errors import ApiError, internal_error, timed_out, unavailable
from minimind.serve.responses import DONE, event, to_json
from minimind.serve.running import AbortedError, Run
from minimind.serve.server import Server, log

_DISCARDED = 8
"""Up to so many times the limit of a body that is too large is read and thrown away: a client that
is still sending when the connection closes never sees why."""


def error_response(error: ApiError) -> Response:
    """Return the response that tells a client of an error."""
    return Response(
        to_json(error.body), error.status, headers=error.headers, media_type="application/json"
    )


async def read_body(request: Request, server: Server) -> bytes:
    """Read a JSON body.

    A page in a browser can't send `application/json` to another origin without asking first; that
    is why no other type is taken.

    Raises:
        ApiError: 408 it didn't come in time, 413 it is too large, 415 it is of another type.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if kind != "application/json" or encoding != "identity":
        got = kind if encoding == "identity" else f"{kind}, {encoding}"
        raise ApiError(
            415, f"The body must be plain application/json, not '{got}'.", code="unsupported_type"
        )
    settings = server.settings
    try:
        async with asyncio.timeout(settings.body_timeout):
            body = await _read_up_to(request, settings.max_body)
    except TimeoutError:
        message = f"The body did not come within {settings.body_timeout:g} seconds."
        raise ApiError(408, message, code="timeout", headers={"Connection": "close"}) from None
    if body is None:
        raise ApiError(
            413,
            f"The body is larger than this server's limit of {settings.max_body} bytes "
            "(--max-body).",
            code="body_too_large",
            headers={"Connection": "close"},
        )
    return body


async def _read_up_to(request: Request, limit: int) -> bytes | None:
    """Return the body, or None when it is larger than `limit`, however it is sent."""
    announced = request.headers.get("content-length", "")
    size, chunks = 0, []
    if announced.isdigit() and int(announced) > limit * _DISCARDED:
        return None
    async for chunk in request.stream():
        size += len(chunk)
        if size <= limit:
            chunks.append(chunk)
        elif size > limit * _DISCARDED:
            return None
    return b"".join(chunks) if size <= limit else None


@asynccontextmanager
async def until_disconnected(receive: Receive, run: Run) -> AsyncIterator[None]:
    """Abort `run` when the client leaves within this block."""

    async def watch() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        run.abort("disconnected")

    watcher = asyncio.create_task(watch())
    try:
        yield
    finally:
        watcher.cancel()
        with suppress(asyncio.CancelledError):
            await watcher


def aborted(error: AbortedError, server: Server) -> ApiError:
    """Return what the client is told."""
    if error.reason == "timeout":
        return timed_out(server.settings.request_timeout)
    if error.reason == "shutdown":
        return unavailable("The server shut down before the answer was done.", code="shutting_down")
    return ApiError(499, "The client closed the connection.", code="disconnected")


async def answer(request: Request, server: Server, run: Run, work: Awaitable[object]) -> Response:
    """Return a whole response, or an error; the run ends when the client leaves."""
    try:
        async with until_disconnected(request.receive, run):
            return Response(to_json(await work), media_type="application/json")
    except AbortedError as error:
        return error_response(aborted(error, server))


class EventStream(Response):
    """Server-sent events, `[DONE]` at the end; an error in between is an event and the last one."""

    media_type = "text/event-stream"

    def __init__(
        self, server: Server, run: Run, chunks: AsyncIterator[object], end: Callable[[], None]
    ) -> None:
        """Prepare the stream.

        Args:
            server: the server.
            run: aborted when the client leaves.
            chunks: each becomes an event.
            end: called when the stream is over, however it ends.
        """
        super().__init__(headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._server, self._run, self._chunks, self._end = server, run, chunks, end
        self._last = b""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it; its last event goes with the last byte, when the metrics know of the request."""
        start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        try:
            async with until_disconnected(receive, self._run):
                await send(start)
                async for data in self._events():
                    await send({"type": "http.response.body", "body": data, "more_body": True})
        finally:
            self._end()
        await send({"type": "http.response.body", "body": self._last, "more_body": False})

    async def _events(self) -> AsyncIterator[bytes]:
        try:
            async for chunk in self._chunks:
                yield event(chunk)
            self._last = DONE
        except AbortedError as error:
            if error.reason != "disconnected":
                self._last = event(aborted(error, self._server).body)
        except Exception:
            log.exception("a stream failed")
            self._last = event(internal_error().body)
