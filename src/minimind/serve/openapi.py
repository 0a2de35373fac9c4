"""The OpenAPI document: requests from pydantic's models, responses from typed dictionaries."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import TypeAdapter

from minimind.serve import responses
from minimind.serve.errors import ErrorResponse
from minimind.serve.protocol import ChatCompletionRequest, CompletionRequest

_TYPES: tuple[type, ...] = (
    ChatCompletionRequest,
    CompletionRequest,
    responses.ChatCompletion,
    responses.TextCompletion,
    responses.ModelList,
    responses.ModelCard,
    responses.Health,
    ErrorResponse,
)
_ERRORS = {
    400: "the request is malformed, or asks for what the model can't do",
    401: "no API key, or a wrong one",
    403: "a Host header that this server doesn't answer to",
    404: "no such model or route",
    405: "another method is needed",
    408: "the body came too slowly",
    413: "the body is too large",
    415: "the body is not application/json",
    429: "the queue is full; Retry-After says when to try again",
    500: "the server failed; its log says why",
    503: "the server is loading or shutting down",
    504: "the answer took longer than the server's limit",
}
_ALWAYS = (401, 403, 405, 500)
_POST = (400, 404, 408, 413, 415, 429, 503, 504)
_HEADERS = {
    401: {"WWW-Authenticate": {"schema": {"type": "string"}}},
    405: {"Allow": {"schema": {"type": "string"}}},
    429: {"Retry-After": {"schema": {"type": "string"}}},
    503: {"Retry-After": {"schema": {"type": "string"}}},
}


_EVENT = {
    "type": "object",
    "description": "One event: a chunk as OpenAI's clients know it, an error object, or [DONE].",
    "properties": {"data": {"type": "string"}},
    "required": ["data"],
}


def _reference(kind: type) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{kind.__name__}"}


def _error(status: int) -> dict[str, Any]:
    content = {"application/json": {"schema": _reference(ErrorResponse)}}
    return {
        "description": _ERRORS[status],
        "content": content,
        "headers": _HEADERS.get(status, {}),
    }


def describe(
    *,
    answer: type | None,
    body: type | None = None,
    stream: bool = False,
    also: tuple[int, ...] = (),
) -> dict[str, Any]:
    """Return `openapi_extra` for a route.

    Args:
        answer: shape of a 200; None: plain text.
        body: shape of the request.
        stream: a 200 may be a stream of events instead.
        also: errors beyond those of every route.
    """
    content: dict[str, Any] = {"text/plain": {"schema": {"type": "string"}}}
    if answer is not None:
        content = {"application/json": {"schema": _reference(answer)}}
    if stream:
        content["text/event-stream"] = {"schema": _EVENT}
    errors = sorted({*_ALWAYS, *also, *(_POST if body else ())})
    extra: dict[str, Any] = {
        "responses": {"200": {"description": "done", "content": content}}
        | {str(status): _error(status) for status in errors}
    }
    if body is not None:
        schema = {"application/json": {"schema": _reference(body)}}
        extra["requestBody"] = {"required": True, "content": schema}
    return extra


MODEL_PARAMETER = {
    "name": "model",
    "in": "path",
    "required": True,
    "schema": {"type": "string", "minLength": 1},
}


def document(app: FastAPI, *, keyed: bool) -> dict[str, Any]:
    """Return the document of all routes."""
    whole = get_openapi(
        title="MiniMind",
        version="1",
        summary="Chat completions and completions as OpenAI's clients know them.",
        routes=app.routes,
    )
    adapters = [(kind.__name__, "validation", TypeAdapter(kind)) for kind in _TYPES]
    template = "#/components/schemas/{model}"
    _, schemas = TypeAdapter.json_schemas(adapters, ref_template=template)  # pyright: ignore
    components: dict[str, Any] = {"schemas": schemas["$defs"]}
    if keyed:
        components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        whole["security"] = [{"key": []}]
    return whole | {"components": components}
