"""The routes. `create_app(server)` is a whole ASGI application; `run.py` puts it on a socket."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from minimind.serve import responses
from minimind.serve.chat import chat_completions
from minimind.serve.completions import completions
from minimind.serve.errors import ApiError
from minimind.serve.gate import Gate
from minimind.serve.http import error_response
from minimind.serve.openapi import MODEL_PARAMETER, describe, document
from minimind.serve.protocol import ChatCompletionRequest, CompletionRequest
from minimind.serve.responses import Health, ModelList, to_json
from minimind.serve.server import Server


def create_app(server: Server) -> FastAPI:
    """Return the application of a server."""
    # No pages of documentation: they load scripts from another host. /openapi.json is enough.
    app = FastAPI(docs_url=None, redoc_url=None)
    keyed = bool(server.settings.api_keys)
    app.openapi = lambda: _cached_document(app, keyed=keyed)
    app.exception_handler(ApiError)(_api_error)
    app.exception_handler(HTTPException)(_http_error)
    app.add_middleware(Gate, server=server)
    if server.settings.cors_origins:
        app.add_middleware(  # outermost: errors are readable too, and a preflight needs no key
            CORSMiddleware,
            allow_origins=list(server.settings.cors_origins),
            allow_methods=["GET", "POST"],
            allow_headers=["*"],
            expose_headers=["x-request-id", "retry-after"],
        )
    _add_completions(app, server)
    _add_models(app, server)
    _add_state(app, server)
    return app


def _add_completions(app: FastAPI, server: Server) -> None:
    chat = describe(body=ChatCompletionRequest, answer=responses.ChatCompletion, stream=True)
    text = describe(body=CompletionRequest, answer=responses.TextCompletion, stream=True)

    @app.post("/v1/chat/completions", openapi_extra=chat, response_model=None)
    async def create_chat_completion(request: Request) -> Response:
        return await chat_completions(request, server)

    @app.post("/v1/completions", openapi_extra=text, response_model=None)
    async def create_completion(request: Request) -> Response:
        return await completions(request, server)


def _add_models(app: FastAPI, server: Server) -> None:
    many = describe(answer=ModelList, also=(503,))
    one = describe(answer=responses.ModelCard, also=(404, 503)) | {"parameters": [MODEL_PARAMETER]}

    @app.get("/v1/models", openapi_extra=many, response_model=None)
    async def list_models() -> Response:
        await server.look_again()
        models: ModelList = {"object": "list", "data": [m.card for m in server.registry]}
        return _json(models)

    @app.get("/v1/models/{model:path}", openapi_extra=one, response_model=None)
    async def retrieve_model(request: Request) -> Response:
        return _json((await server.find(request.path_params["model"])).card)


def _add_state(app: FastAPI, server: Server) -> None:
    health_extra = describe(answer=Health)
    unready = {"application/json": {"schema": {"$ref": "#/components/schemas/Health"}}}
    health_extra["responses"]["503"] = {"description": "not ready", "content": unready}

    @app.get("/health", openapi_extra=health_extra, response_model=None)
    async def health() -> Response:
        state: Health = {"status": server.status, "models": [m.id for m in server.registry]}
        return _json(state, status=200 if server.status == "ready" else 503)

    @app.get("/metrics", openapi_extra=describe(answer=None), response_model=None)
    async def metrics() -> Response:
        return Response(server.metrics.render(), media_type=CONTENT_TYPE_LATEST)


def _json(value: Any, *, status: int = 200) -> Response:
    return Response(to_json(value), status, media_type="application/json")


async def _api_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return error_response(error)


async def _http_error(request: Request, error: Exception) -> Response:
    """Word what the router refuses: an unknown path, a wrong method."""
    assert isinstance(error, HTTPException)
    where = f"{request.method} {request.url.path[:200]}"
    message, code = f"There is no {where}.", "not_found"
    if error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "another method")
        message, code = f"{where} is not allowed; use {allowed}.", "method_not_allowed"
    elif error.status_code != 404:
        message, code = str(error.detail), "http_error"
    return error_response(
        ApiError(error.status_code, message, code=code, headers=dict(error.headers or {}))
    )


def _cached_document(app: FastAPI, *, keyed: bool) -> dict[str, Any]:
    if app.openapi_schema is None:
        app.openapi_schema = document(app, keyed=keyed)
    return app.openapi_schema
