"""GET /v1/models, /v1/models/{model} and /status: the served models and their statistics."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from starlette.responses import Response

from clearstory.server.streaming import json_response

if TYPE_CHECKING:
    from clearstory.server.context import RequestContext


async def list_models(context: RequestContext) -> Response:
    """The served models; the first is the default of routes whose model is optional."""
    return json_response({"object": "list", "data": [describe(context, name) for name in context.engines]})


async def retrieve_model(context: RequestContext, model: str) -> Response:
    """One model."""
    context.engine(model)
    return json_response(describe(context, model))


def describe(context: RequestContext, name: str) -> dict[str, Any]:
    """A model in OpenAI's format, with its context as in vLLM, its family and its capabilities."""
    served = context.engines[name].served
    return {
        "id": name,
        "object": "model",
        "created": context.created,
        "owned_by": "clearstory",
        "max_model_len": served.model.context,
        "family": served.family,
        "capabilities": served.abilities,
    }


async def status(context: RequestContext) -> Response:
    """Statistics of the models: requests and tokens, now and since the start."""
    models = [{"id": name, **asdict(engine.statistics())} for name, engine in context.engines.items()]
    return json_response({"seconds": time.time() - context.created, "models": models})
