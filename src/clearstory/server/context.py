"""Context of a request: the server's models and limits, and the counts for the log and the metrics."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from clearstory.server.errors import model_not_found

if TYPE_CHECKING:
    from clearstory.server.metrics import ServerMetrics
    from clearstory.serving.engine_thread import EngineThread
    from clearstory.serving.requests import TextEvent


@dataclass
class RequestRecord:
    """Data of one request for the log and the metrics.

    Args:
        id: the request's number as a text, sent to the client in the header X-Request-Id.
        route: the path of its route; "unmatched" for a path that does not exist.
        started: when it arrived, in seconds of the monotonic clock.
        model: the name of the model.
        status: HTTP status of the response.
        prompt_tokens: tokens of its prompts.
        cached_tokens: prompt tokens that were found in the prefix cache or shared.
        generated_tokens: tokens generated.
        first_token: when the first token was generated.
        last_token: when the last token was generated.
        cancelled: whether the client disconnected before the end.
        error: the code of the error that was sent, or the name of the exception.
        contents: the request's body, kept only if contents are logged.
    """

    id: str
    route: str = "unmatched"
    started: float = field(default_factory=time.monotonic)
    model: str | None = None
    status: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    generated_tokens: int = 0
    first_token: float | None = None
    last_token: float | None = None
    cancelled: bool = False
    error: str | None = None
    contents: bytes | None = None

    def count_prompt(self, n_tokens: int, n_cached: int = 0) -> None:
        """Add a prompt that was read."""
        self.prompt_tokens += n_tokens
        self.cached_tokens += n_cached

    def count_events(self, events: Iterable[TextEvent]) -> None:
        """Add generated tokens, with their time; the first event of a text also counts its prompt."""
        self.last_token = time.monotonic()
        if self.first_token is None:
            self.first_token = self.last_token
        for event in events:
            self.generated_tokens += 1
            if event.prompt is not None:
                self.count_prompt(event.prompt.n_tokens, event.prompt.n_cached)


@dataclass(frozen=True)
class ServerLimits:
    """Limits of requests.

    Args:
        max_body_bytes: maximum size of a request body.
        max_tokens: maximum number of tokens of one text; None: the model's context.
    """

    max_body_bytes: int = 2 * 2**20
    max_tokens: int | None = None


@dataclass(frozen=True)
class RequestContext:
    """Arguments of a route in addition to the fields of the request.

    A route is `async def route(context: RequestContext, fields: TheDataclass) -> Response`; with GET it gets its path
    parameters as keyword arguments instead of fields. When the client disconnects, the task of the route and of its
    response is cancelled: a `finally` must cancel submitted requests. Errors are raised; the server sends them.

    Args:
        engines: the threads of the served models, by name; the first is the default.
        limits: limits of requests.
        record: data of this request for the log and the metrics; the route counts prompts and events in it.
        metrics: the metrics of the server.
        created: when the server started, in Unix seconds: the `created` of its models.
    """

    engines: Mapping[str, EngineThread]
    limits: ServerLimits
    record: RequestRecord
    metrics: ServerMetrics
    created: int

    def engine(self, model: str) -> EngineThread:
        """The thread of a model. Raises RequestError with status 404 for a name that is not served."""
        if model not in self.engines:
            raise model_not_found(model, ", ".join(self.engines))
        self.record.model = model
        return self.engines[model]
