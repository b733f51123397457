"""Texts as they are generated: from the thread of a model to the event loop, and on as server-sent events."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Self

from starlette.responses import Response

from clearstory.server.errors import to_request_error
from clearstory.serving.requests import TextEvent, TextRequest

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from clearstory.serving.engine_thread import EngineThread

DONE = b"data: [DONE]\n\n"
"""The event that ends a stream in OpenAI's API."""


class TextStream:
    """The events of several texts that one model generates, in the order in which they come.

    Events that come while the last ones are sent are delivered together. `close` cancels the texts that are not
    finished; it must be called in any case, as `async with` does.

    Args:
        engine: the thread of the model.
        requests: the texts.
    """

    def __init__(self, engine: EngineThread, requests: Sequence[TextRequest]) -> None:
        self.engine, self.requests = engine, requests
        self.loop = asyncio.get_running_loop()
        self.arrived = asyncio.Event()
        self.pending: deque[tuple[int, TextEvent | Exception]] = deque()
        self.waking = False
        self.handles: dict[int, Any] = {}

    def submit(self) -> None:
        """Submit all texts. Raises what the thread raises; none is submitted then."""
        try:
            for index, request in enumerate(self.requests):
                self.handles[index] = self.engine.submit(request, partial(self.deliver, index))
        except BaseException:
            self.close()
            raise

    def deliver(self, index: int, event: TextEvent | Exception) -> None:
        """Take an event of a text, in the thread of the model."""
        self.pending.append((index, event))
        if not self.waking:
            self.waking = True
            self.loop.call_soon_threadsafe(self.wake)

    def wake(self) -> None:
        """Let the task that waits go on."""
        self.waking = False
        self.arrived.set()

    async def __aenter__(self) -> Self:
        self.submit()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    async def __aiter__(self) -> AsyncIterator[list[tuple[int, TextEvent]]]:
        while self.handles:
            await self.arrived.wait()
            self.arrived.clear()
            events: list[tuple[int, TextEvent]] = []
            while self.pending:
                index, event = self.pending.popleft()
                if isinstance(event, Exception):
                    self.handles.pop(index, None)
                    raise event
                if event.finish is not None:
                    self.handles.pop(index, None)
                events.append((index, event))
            if events:
                yield events

    def close(self) -> None:
        """Cancel the texts that are not finished."""
        while self.handles:
            _, handle = self.handles.popitem()
            self.engine.cancel(handle)


async def single_result(
    submit: Callable[[Callable[[Any], None]], Any], cancel: Callable[[Any], None] | None = None
) -> Any:
    """What the thread of a model delivers for a request with one result. Raises it where it is an Exception.

    `submit` submits the request with the function that takes the result; `cancel` is called with what it returns.
    """
    loop = asyncio.get_running_loop()
    result: asyncio.Future[Any] = loop.create_future()

    def deliver(value: Any) -> None:
        loop.call_soon_threadsafe(set_result, result, value)

    handle = submit(deliver)
    try:
        return await result
    except asyncio.CancelledError:
        if cancel is not None:
            cancel(handle)
        raise


def set_result(result: asyncio.Future[Any], value: Any) -> None:
    """Give a future its result or its error, if it still waits."""
    if result.done():
        return
    if isinstance(value, Exception):
        result.set_exception(value)
    else:
        result.set_result(value)


class EventStream(Response):
    """A response of server-sent events.

    Args:
        stream: the texts, cancelled when the response ends in whatever way.
        first: its first events.
        rest: the others.
    """

    media_type = "text/event-stream"

    def __init__(self, stream: TextStream, first: bytes, rest: AsyncIterator[bytes]) -> None:
        super().__init__(headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self.stream, self.first, self.rest = stream, first, rest

    @classmethod
    async def begin(cls, stream: TextStream, chunks: AsyncIterator[bytes]) -> EventStream:
        """The response, as soon as its first events are there: errors before them have a status of their own."""
        try:
            stream.submit()
            return cls(stream, await anext(chunks), chunks)
        except BaseException:
            stream.close()
            raise

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            await self.send_events(send)
        finally:
            self.stream.close()

    async def send_events(self, send: Send) -> None:
        """Send all events. An error is the last of them, and is raised after it."""
        chunk: bytes | None = self.first
        failure: Exception | None = None
        while chunk is not None:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
            try:
                chunk = None if failure else await anext(self.rest, None)
            except Exception as error:
                failure = error
                chunk = sse_event(to_request_error(error).body())
        await send({"type": "http.response.body", "body": b"", "more_body": False})
        if failure is not None:
            raise failure


def sse_event(value: Any) -> bytes:
    """A value as a server-sent event. ASCII alone, since some clients take U+2028 for the end of a line."""
    return b"data: " + encode(value).encode() + b"\n\n"


def json_response(value: Any) -> Response:
    """A value as a JSON response."""
    return Response(encode(value), media_type="application/json")


async def json_list_response(head: Mapping[str, Any], name: str, items: Iterable[Any]) -> Response:
    """A JSON response with a long list last: other requests are answered between its items, each of which is encoded
    without a pause.
    """
    parts = []
    for item in items:
        parts.append(encode(item))
        await asyncio.sleep(0)
    body = f'{encode(head)[:-1]},"{name}":[{",".join(parts)}]}}'
    return Response(body, media_type="application/json")


encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode
"""JSON in ASCII, without white space."""
