"""Request middleware: access, bounded bodies, errors in OpenAI's format, log and metrics, around every route."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from secrets import token_hex
from typing import Any

from h11 import LocalProtocolError
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from clearstory.http.bodies import discard_body, read_body, replay_body
from clearstory.server.access_policy import CORS_HEADERS, AccessPolicy, check_content_type
from clearstory.server.context import RequestRecord, ServerLimits
from clearstory.server.errors import RequestError, to_request_error
from clearstory.server.metrics import ServerMetrics
from clearstory.server.request_log import RequestLog

PUBLIC_PATHS = frozenset({"/health"})
"""Paths that need no API key."""

CLIENT_GONE = 499
"""Status in the log and the metrics of a request whose client disconnected before its response started."""


@dataclass
class SentResponse:
    """Sends a response with the headers of every response, and tracks whether it has started.

    Args:
        send: the ASGI function.
        record: its status is set.
        origin: the foreign origin whose pages may read the response; None for pages of this server only.
    """

    send: Send
    record: RequestRecord
    origin: str | None = None
    begun: bool = False

    async def __call__(self, message: Message) -> None:
        """Send one message."""
        if message["type"] == "http.response.start":
            self.begun = True
            self.record.status = message["status"]
            headers = MutableHeaders(scope=message)
            headers["X-Request-Id"] = self.record.id
            headers["X-Content-Type-Options"] = "nosniff"
            headers.setdefault("Cache-Control", "no-store")
            if self.origin is None:
                headers["Cross-Origin-Resource-Policy"] = "same-origin"
            else:
                headers["Access-Control-Allow-Origin"] = self.origin
                headers["Access-Control-Expose-Headers"] = "X-Request-Id"
                headers["Vary"] = "Origin"
        with suppress(LocalProtocolError):  # an invalid body: the protocol has answered with 400, and closes
            await self.send(message)


@dataclass
class RequestMiddleware:
    """ASGI middleware that checks the policy and the limits, and sends every error as JSON.

    Args:
        app: the routes.
        policy: which requests are answered.
        limits: sizes of requests.
        metrics: counts requests.
        paths: paths of routes without parameters, as the log and the metrics name them.
        log: writes a line for each request; None for no log.
    """

    app: ASGIApp
    policy: AccessPolicy
    limits: ServerLimits
    metrics: ServerMetrics
    paths: frozenset[str] = frozenset()
    log: RequestLog | None = None
    prefix: str = field(default_factory=lambda: token_hex(4))
    numbers: Any = field(default_factory=lambda: count(1))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return
        record = RequestRecord(f"req-{self.prefix}-{next(self.numbers)}")
        record.route = scope["path"] if scope["path"] in self.paths else record.route
        scope.setdefault("state", {})["record"] = record
        sent, failure = SentResponse(send, record), None
        try:
            await self.answer(scope, receive, sent, record)
        except asyncio.CancelledError:  # the time for draining is over; the connection is closed
            record.error = "stopped"
        except ConnectionError:  # the client went away, or was too slow
            record.cancelled = True
        except Exception as error:
            refusal = to_request_error(error)
            record.error = refusal.code
            failure = error if refusal.status == 500 else None
            if not sent.begun:
                await error_response(refusal)(scope, receive, sent)
            # Otherwise the response ends in its middle, and the connection is closed.
        finally:
            record.status = record.status or CLIENT_GONE
            seconds = time.monotonic() - record.started
            self.metrics.observe(record, seconds)
            if self.log is not None:
                self.log.request(record, seconds, failure)

    async def answer(self, scope: Scope, receive: Receive, sent: SentResponse, record: RequestRecord) -> None:
        """Check a request, read its body and run its route until the client disconnects."""
        headers = Headers(scope=scope)
        try:
            self.policy.check_host(headers)
            sent.origin = self.policy.allowed_origin(headers)
            if sent.origin is not None and scope["method"] == "OPTIONS" and "access-control-request-method" in headers:
                await Response(status_code=204, headers=CORS_HEADERS)(scope, receive, sent)
                return
            if scope["path"] not in PUBLIC_PATHS:
                self.policy.check_key(headers)
        except RequestError:
            await discard_body(receive)
            raise
        body = await read_body(receive, self.limits.max_body_bytes)
        if body is None:
            raise RequestError(
                f"the request is larger than {self.limits.max_body_bytes:,} bytes; send a smaller one",
                code="request_too_large",
                status=413,
            )
        if scope["method"] == "POST":
            check_content_type(headers)
        if self.log is not None and self.log.contents:
            record.contents = body
        if not await run_while_connected(self.app(scope, replay_body(body, wait_forever), sent), receive):
            record.cancelled = True


async def run_while_connected(work: Awaitable[None], receive: Receive) -> bool:
    """Run a task until it ends, or cancel it when the client disconnects; returns whether it ended by itself.

    Raises the errors of the task.
    """
    task = asyncio.ensure_future(work)
    watch = asyncio.ensure_future(wait_for_disconnect(receive))
    try:
        await asyncio.wait((task, watch), return_when=asyncio.FIRST_COMPLETED)
        ended = task.done()
    finally:
        watch.cancel()
        task.cancel()
    if not ended:
        await asyncio.wait((task,))
    if not task.cancelled() and (error := task.exception()) is not None and ended:
        raise error
    return ended


async def wait_for_disconnect(receive: Receive) -> None:
    """Return when the client has disconnected."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def wait_forever() -> Message:
    """Never returns: routes receive nothing more, since the middleware watches the connection."""
    return await asyncio.get_running_loop().create_future()  # type: ignore[no-any-return]


def error_response(error: RequestError) -> Response:
    """An error as a response."""
    body = json.dumps(error.body())
    return Response(body, error.status, headers=error.headers(), media_type="application/json")
