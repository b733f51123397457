"""Bodies: requests of bounded size, read before they are handled."""

from __future__ import annotations

from starlette.types import Message, Receive

DISCARDED_BYTES = 2**24
"""How much of a body that is not wanted is read: a client that still sends when its connection is closed loses the
response.
"""


async def read_body(receive: Receive, limit: int) -> bytes | None:
    """A request's body; None if it exceeds `limit` bytes, of which up to DISCARDED_BYTES more are read and dropped.

    Raises ConnectionError if the client disconnects before the end: a partial body is not a request.
    """
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise ConnectionError
        part: bytes = message.get("body", b"")
        size += len(part)
        parts.append(part)
        if size > limit:
            parts.clear()
        if size > limit + DISCARDED_BYTES:
            return None
        if not message.get("more_body", False):
            return b"".join(parts) if size <= limit else None


async def discard_body(receive: Receive) -> None:
    """Read and drop a body of at most DISCARDED_BYTES, before a request is refused."""
    await read_body(receive, 0)


def replay_body(body: bytes, receive: Receive) -> Receive:
    """A receive function that first returns a body that was already read, then the following messages."""
    replayed = False

    async def next_message() -> Message:
        nonlocal replayed
        if replayed:
            return await receive()
        replayed = True
        return {"type": "http.request", "body": body, "more_body": False}

    return next_message
