"""The server as the page sees it: which models there are, and answers that arrive in pieces."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx

TIMEOUT = httpx.Timeout(30.0, read=600.0)
"""An answer may wait in the server's queue; the server has a limit of its own."""
LIST_SECONDS = 30.0
"""For the list of models: on a machine that also trains, a server may be slow and yet there."""

OPTIONAL = ("logprobs", "top_logprobs", "stream_options")
"""Fields that a server may not know. Without them the answer still comes."""


class ServerError(Exception):
    """The server can't be reached, or said no.

    Attributes:
        kind: `unreachable`, `broken` (the connection ended within an answer), `foreign` (what
            answers isn't such a server), or `refused` (an error object of the server's).
        message: what the server, or the connection, said.
        status: HTTP status, 0 where there was none.
        code: of the error object.
        param: the field at fault.
    """

    def __init__(
        self, kind: str, message: str, *, status: int = 0, code: str = "", param: str = ""
    ) -> None:
        super().__init__(message)
        self.kind, self.message = kind, message
        self.status, self.code, self.param = status, code, param


@dataclass(frozen=True, kw_only=True)
class Model:
    """A model that requests can name; `parent` is the base of an adapter; `sees`: reads images."""

    id: str
    context: int | None = None
    parent: str | None = None
    sees: bool = False


@dataclass(frozen=True, kw_only=True)
class Token:
    """A token of an answer.

    Attributes:
        raw: its bytes; a token may be part of a character.
        logprob: in nats.
        alternatives: the likeliest (bytes, log-probability) pairs, best first.
    """

    raw: bytes
    logprob: float
    alternatives: tuple[tuple[bytes, float], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Piece:
    """What one event of a stream added.

    Attributes:
        text: of the answer.
        tokens: that begin in it.
        finish: why the answer is over, on the last piece.
        prompt_tokens: of the request, on the piece with the usage.
        completion_tokens: of the answer, on the piece with the usage.
    """

    text: str = ""
    tokens: tuple[Token, ...] = ()
    finish: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


@dataclass(kw_only=True)
class Server:
    """A server and what was learnt about it.

    Attributes:
        url: ends in /v1, as OpenAI's `base_url`.
        key: sent as a bearer token; never leaves this process otherwise.
        without: optional fields that a model's server refused, by model.
    """

    url: str
    key: str | None = field(default=None, repr=False)
    without: dict[str, set[str]] = field(default_factory=dict)

    def _client(self) -> httpx.AsyncClient:
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        # A loopback server must not be asked for through somebody's proxy.
        local = httpx.URL(self.url).host in {"127.0.0.1", "localhost", "::1"}
        return httpx.AsyncClient(headers=headers, timeout=TIMEOUT, trust_env=not local)

    async def models(self) -> list[Model]:
        """Return the models.

        Raises:
            ServerError: as the class says.
        """
        async with _worded(), self._client() as client:
            response = await client.get(f"{self.url}/models", timeout=LIST_SECONDS)
            if response.status_code != 200:
                raise _refusal(response.status_code, response.content)
            try:
                return [_model(card) for card in response.json()["data"]]
            except (ValueError, TypeError, KeyError) as error:
                raise ServerError("foreign", f"{self.url}/models: no list of models") from error

    async def chat(
        self, model: str, messages: Sequence[Mapping[str, Any]], options: Mapping[str, Any]
    ) -> AsyncGenerator[Piece, None]:
        """Stream an answer. Closing the iterator closes the connection, which ends the answer.

        Args:
            model: its id.
            messages: in OpenAI's shape.
            options: temperature and the like.

        Yields:
            pieces in order.

        Raises:
            ServerError: before or within the answer.
        """
        refused = self.without.setdefault(model, set())
        while True:
            extra = {"logprobs": True, "top_logprobs": 5, "stream_options": {"include_usage": True}}
            body = {"model": model, "messages": list(messages), "stream": True, **options}
            body |= {name: value for name, value in extra.items() if name not in refused}
            try:
                async for piece in self._stream(body):
                    yield piece
                return
            except ServerError as error:
                named = {name for name in OPTIONAL if name in f"{error.param} {error.message}"}
                if error.status not in {400, 422} or not named - refused:
                    raise
                refused |= named | ({"top_logprobs"} if "logprobs" in named else set())

    async def _stream(self, body: dict[str, Any]) -> AsyncGenerator[Piece, None]:
        async with (
            _worded(),
            self._client() as client,
            client.stream("POST", f"{self.url}/chat/completions", json=body) as response,
        ):
            if response.status_code != 200:
                raise _refusal(response.status_code, await response.aread())
            finished = False
            async for line in response.aiter_lines():
                if not line.startswith("data:"):
                    continue
                data = line[5:].strip()
                if data == "[DONE]":
                    return
                piece = _piece(data)
                finished = finished or piece.finish is not None
                yield piece
            if not finished:
                raise ServerError("broken", "the stream ended without [DONE]")


@contextlib.asynccontextmanager
async def _worded() -> AsyncIterator[None]:
    try:
        yield
    except (httpx.ConnectError, httpx.ConnectTimeout) as error:
        raise ServerError("unreachable", str(error) or type(error).__name__) from error
    except httpx.HTTPError as error:
        raise ServerError("broken", str(error) or type(error).__name__) from error


def _refusal(status: int, body: bytes) -> ServerError:
    """Return the error of a response: OpenAI's error object, or the beginning of what came."""
    try:
        error = json.loads(body)["error"]
        return ServerError(
            "refused",
            str(error["message"]),
            status=status,
            code=str(error.get("code") or ""),
            param=str(error.get("param") or ""),
        )
    except (ValueError, TypeError, KeyError, AttributeError):
        text = body[:300].decode("utf-8", "replace").strip()
        return ServerError("foreign", f"HTTP {status}: {text}", status=status)


def _model(card: dict[str, Any]) -> Model:
    context = card.get("max_model_len")
    parent = card.get("parent")
    return Model(
        id=str(card["id"]),
        context=context if isinstance(context, int) and context > 0 else None,
        parent=str(parent) if parent else None,
        sees="image" in (card.get("input_modalities") or ()),
    )


def _piece(data: str) -> Piece:
    try:
        chunk = json.loads(data)
        if chunk.get("error"):
            raise _refusal(0, data.encode())
        usage = chunk.get("usage") or {}
        choice = (chunk.get("choices") or [{}])[0]
        scored = (choice.get("logprobs") or {}).get("content") or []
        return Piece(
            text=_text(choice.get("delta") or {}),
            tokens=tuple(map(_token, scored)),
            finish=choice.get("finish_reason"),
            prompt_tokens=usage.get("prompt_tokens"),
            completion_tokens=usage.get("completion_tokens"),
        )
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ServerError("foreign", f"not a chunk of a chat: {data[:200]}") from error


def _text(delta: dict[str, Any]) -> str:
    return delta.get("content") or ""


def _token(entry: dict[str, Any]) -> Token:
    others = tuple((_raw(other), float(other["logprob"])) for other in entry["top_logprobs"])
    return Token(raw=_raw(entry), logprob=float(entry["logprob"]), alternatives=others)


def _raw(entry: dict[str, Any]) -> bytes:
    """Return the bytes of a token; some servers leave them out."""
    given = entry.get("bytes")
    return bytes(given) if given else str(entry["token"]).encode()
