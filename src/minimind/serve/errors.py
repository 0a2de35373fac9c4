"""What goes wrong in a request, as OpenAI's error object and the status code that belongs to it."""

from __future__ import annotations

from typing_extensions import TypedDict  # pydantic needs this one before Python 3.12


class ErrorBody(TypedDict):
    """`message` for people; `param` the field at fault; `code` for programs."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorResponse(TypedDict):
    """The body of every answer that isn't a 2xx."""

    error: ErrorBody


_TYPES = {429: "rate_limit_error", 500: "server_error", 503: "server_error", 504: "timeout_error"}


class ApiError(Exception):
    """A request that can't be answered.

    Attributes:
        status: HTTP status code.
        body: what the client gets.
        headers: additional response headers.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.headers = headers or {}
        kind = _TYPES.get(status, "invalid_request_error")
        self.body: ErrorResponse = {
            "error": {"message": message, "type": kind, "param": param, "code": code}
        }


def bad_request(message: str, *, param: str | None = None, code: str | None = None) -> ApiError:
    """400: the client must change the request."""
    return ApiError(400, message, param=param, code=code)


def context_length_exceeded(message: str, *, param: str) -> ApiError:
    """400 with the code that OpenAI's clients look for."""
    return bad_request(message, param=param, code="context_length_exceeded")


def queue_full(message: str, *, retry_after: int) -> ApiError:
    """429; OpenAI's clients wait for `Retry-After` seconds and try again."""
    headers = {"Retry-After": str(retry_after)}
    return ApiError(429, message, code="rate_limit_exceeded", headers=headers)


def unavailable(message: str, *, code: str) -> ApiError:
    """503: the server is loading or draining."""
    return ApiError(503, message, code=code, headers={"Retry-After": "2"})


def timed_out(seconds: float) -> ApiError:
    """504; a client that tried again at once would only add to the load, and is told not to."""
    return ApiError(
        504,
        f"The request took longer than this server's limit of {seconds:g} seconds. Ask for fewer "
        "tokens, or start the server with a higher --request-timeout.",
        code="timeout",
        headers={"X-Should-Retry": "false"},
    )


def internal_error() -> ApiError:
    """500 that says nothing of the inside; the server's log has the rest."""
    return ApiError(
        500, "The server failed while answering this request; its log says why.", code="internal"
    )
