"""Texts as they are generated: from the thread of a model to the event loop, and as server-sent events to the client."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Self

from starlette.responses import Response

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


class EventStream(Response):
    """A response of server-sent events: the data of each, as JSON, and [DONE]."""

    media_type = "text/event-stream"

    def __init__(self, chunks: AsyncIterator[bytes]) -> None:
        super().__init__(headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self.chunks = chunks

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async for chunk in self.chunks:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def sse_event(value: Any) -> bytes:
    """A value as a server-sent event. ASCII alone, since some clients take U+2028 for the end of a line."""
    return f"data: {json.dumps(value, separators=(',', ':'))}\n\n".encode()
