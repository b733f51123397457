"""App: the table of routes, and the ASGI app that answers them."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from clearstory import __version__
from clearstory.errors import BadInput, nearest
from clearstory.http.json_values import parse_object
from clearstory.server.access_policy import AccessPolicy
from clearstory.server.chat_completions import ChatCompletionRequest, chat_completions
from clearstory.server.completions import CompletionRequest, completions
from clearstory.server.context import RequestContext, RequestRecord, ServerLimits
from clearstory.server.embeddings import EmbeddingRequest, embeddings
from clearstory.server.errors import RequestError, shorten
from clearstory.server.fields import parse_fields
from clearstory.server.masks import MaskRequest, fill_masks
from clearstory.server.metrics import MEDIA_TYPE, ServerMetrics
from clearstory.server.models import list_models, retrieve_model, status
from clearstory.server.openapi import ApiRoute, openapi_schema
from clearstory.server.request_log import RequestLog
from clearstory.server.request_middleware import RequestMiddleware
from clearstory.server.streaming import json_response
from clearstory.server.tokenizing import DetokenizeRequest, TokenizeRequest, detokenize, tokenize, tokenizer_info

if TYPE_CHECKING:
    from clearstory.serving.engine_thread import EngineThread


async def health(context: RequestContext) -> Response:
    """Whether requests are answered: status 200, or 503 if the thread of a model has ended."""
    ended = [name for name, engine in context.engines.items() if not engine.thread.is_alive()]
    if ended:
        raise RequestError(f"the thread of {', '.join(ended)} has ended; restart the server", status=503)
    return json_response({"status": "ok", "version": __version__})


async def metrics(context: RequestContext) -> Response:
    """All metrics."""
    return Response(context.metrics.text(), media_type=MEDIA_TYPE)


async def openapi(context: RequestContext) -> Response:
    """OpenAPI description of all routes."""
    return json_response(openapi_schema(ROUTES))


ROUTES = (
    ApiRoute(
        "POST", "/v1/chat/completions", chat_completions, "Answer a conversation.", ChatCompletionRequest, streams=True
    ),
    ApiRoute("POST", "/v1/completions", completions, "Continue prompts.", CompletionRequest, streams=True),
    ApiRoute("POST", "/v1/embeddings", embeddings, "Compute an embedding vector for each text.", EmbeddingRequest),
    ApiRoute("POST", "/fill-mask", fill_masks, "Predict the tokens at each [MASK] of texts.", MaskRequest),
    ApiRoute("GET", "/v1/models", list_models, "List the models that are served."),
    ApiRoute("GET", "/v1/models/{model:path}", retrieve_model, "Get information about a model."),
    ApiRoute("POST", "/tokenize", tokenize, "Encode a text or a conversation as token ids.", TokenizeRequest),
    ApiRoute("POST", "/detokenize", detokenize, "Decode token ids as text.", DetokenizeRequest),
    ApiRoute("GET", "/tokenizer_info", tokenizer_info, "Get the configuration of the tokenizer."),
    ApiRoute("GET", "/status", status, "Count requests and tokens, now and since the start."),
    ApiRoute("GET", "/health", health, "Check whether requests are answered.", public=True),
    ApiRoute("GET", "/metrics", metrics, "Metrics in the text format of Prometheus.", media_type="text/plain"),
    ApiRoute("GET", "/openapi.json", openapi, "This OpenAPI description."),
)
"""Every route of the server."""


def server_app(
    engines: Mapping[str, EngineThread],
    *,
    policy: AccessPolicy | None = None,
    limits: ServerLimits | None = None,
    log: RequestLog | None = None,
) -> Starlette:
    """ASGI app that serves these engines, by model name; by default without a log. It does not stop the engines."""
    limits, measured, created = limits or ServerLimits(), ServerMetrics(engines), int(time.time())

    def context_of(record: RequestRecord) -> RequestContext:
        return RequestContext(engines, limits, record, measured, created)

    app = Starlette(
        routes=[Route(each.path, endpoint(each, context_of), methods=[each.method]) for each in ROUTES],
        exception_handlers={HTTPException: unknown_route},
    )
    app.router.redirect_slashes = False
    app.add_middleware(
        RequestMiddleware,
        policy=policy or AccessPolicy(),
        limits=limits,
        metrics=measured,
        paths=frozenset(each.path for each in ROUTES),
        log=log,
    )
    return app


def endpoint(
    route: ApiRoute, context_of: Callable[[RequestRecord], RequestContext]
) -> Callable[[Request], Awaitable[Response]]:
    """The function that Starlette calls for a route."""

    async def answer(request: Request) -> Response:
        record: RequestRecord = request.scope["state"]["record"]
        record.route = route.path.replace(":path}", "}")
        for name in request.query_params:
            raise RequestError(
                f"{route.path} has no query parameter '{shorten(name, 80)}'; omit it",
                param=shorten(name, 80),
                code="unknown_parameter",
            )
        context = context_of(record)
        if route.fields is None:
            return await route.function(context, **request.path_params)
        try:
            body = parse_object(await request.body())
        except BadInput as error:
            raise RequestError(str(error), code="invalid_json") from None
        return await route.function(context, parse_fields(route.fields, body))

    return answer


async def unknown_route(request: Request, error: Exception) -> Any:
    """Raises RequestError for a path or a method that does not exist."""
    status = error.status_code if isinstance(error, HTTPException) else 404
    path = shorten(request.url.path, 200)
    if status == 405:
        allowed = (error.headers or {}).get("Allow", "") if isinstance(error, HTTPException) else ""
        methods = ", ".join(sorted({each.strip() for each in allowed.split(",")} - {"HEAD"}))
        raise RequestError(
            f"{path} supports {methods}, not {request.method}",
            code="method_not_allowed",
            status=405,
            methods=", ".join(sorted(each.strip() for each in allowed.split(","))),
        )
    known = {each.path.replace(":path}", "}") for each in ROUTES}
    raise RequestError(f"the path {path} does not exist; {nearest(path, known)}", code="unknown_path", status=404)
