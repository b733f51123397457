"""Connection limits: connections that send no complete request in time, or do not read the response, are closed.

uvicorn closes connections that are idle between two requests, but has no time limit for the rest of a header or a body.
A request with an incomplete header does not reach the application, so the protocol itself limits the time from the
start of waiting until the request is complete. The time to compute the response is not limited.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any
from weakref import WeakKeyDictionary

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

REQUEST_SECONDS = 15.0
"""Seconds in which a request must arrive, header and body; the largest body is 1 MiB."""

IDLE_SECONDS = 10
"""Seconds that a connection is kept open between two requests."""

SEND_SECONDS = 25.0
"""Seconds within which a client must read a full send buffer."""

MAX_CONNECTIONS = 500
"""Maximum number of open connections. If exceeded, the one idle for longest is closed; a browser opens six."""

MAX_HEADER_BYTES = 2**16
"""Maximum size of a request header in bytes."""


class WaitingConnections:
    """The connections of one server that wait for a request, the longest first, and how many are being closed.

    Beyond MAX_CONNECTIONS each new one closes another: finding it must not take the time of all.
    """

    def __init__(self) -> None:
        self.order: dict[TimedProtocol, None] = {}
        self.aborted = 0

    def close_oldest(self, newest: TimedProtocol) -> None:
        """Close the connection that has waited longest, if any other than `newest` does."""
        while (oldest := next((each for each in self.order if each is not newest), None)) is not None:
            del self.order[oldest]
            if not oldest.transport.is_closing():
                self.aborted += 1
                oldest.was_aborted = True
                oldest.transport.abort()
                return


WAITING: WeakKeyDictionary[ServerState, WaitingConnections] = WeakKeyDictionary()
"""The waiting connections of each server of this process."""


class TimedProtocol(H11Protocol):
    """uvicorn's HTTP/1.1 protocol with a time limit for each request to arrive and for each response to be read."""

    was_aborted = False
    waiting: WaitingConnections
    request_timer: asyncio.TimerHandle | None = None
    send_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Start the time limit of the first request, and make room if too many connections are open."""
        super().connection_made(transport)
        self.waiting = WAITING.setdefault(self.server_state, WaitingConnections())
        self.start_request_timer()
        if len(self.connections) - self.waiting.aborted > MAX_CONNECTIONS:
            self.waiting.close_oldest(self)

    def data_received(self, data: bytes) -> None:
        """Stop the time limit once the request is complete; start it when a new one begins."""
        super().data_received(data)
        if self.transport.is_closing():
            self.stop_timers()
        elif self.conn.their_state in (h11.IDLE, h11.SEND_BODY):
            self.start_request_timer()
        else:
            self.stop_request_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop all time limits."""
        self.stop_timers()
        self.waiting.order.pop(self, None)
        self.waiting.aborted -= self.was_aborted
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        """The connection waits for its next request."""
        super().on_response_complete()
        if self.timeout_keep_alive_task is not None and not self.transport.is_closing():
            self.waiting.order[self] = None

    def pause_writing(self) -> None:
        """The client reads more slowly than the response is written: start the time limit for it."""
        super().pause_writing()
        self.send_timer = self.send_timer or self.loop.call_later(SEND_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        """The client has read the buffer: stop the time limit."""
        super().resume_writing()
        self.stop_send_timer()

    def start_request_timer(self) -> None:
        """Start the time limit of the request, unless it is running: single bytes do not extend it."""
        if self.request_timer is None:
            self.waiting.order.pop(self, None)
            self.waiting.order[self] = None
            self.request_timer = self.loop.call_later(REQUEST_SECONDS, self.close_slow)

    def close_slow(self) -> None:
        """Close a connection whose request did not arrive in time, with status 408 if it had started."""
        self.request_timer = None
        if self.transport.is_closing():
            return
        begun = self.conn.their_state is h11.SEND_BODY or bool(self.conn.trailing_data[0])
        if begun and self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.write(self.error_response(408, "Request Timeout", slow_request()))
        self.transport.close()
        self.send_timer = self.send_timer or self.loop.call_later(SEND_SECONDS, self.transport.abort)

    def timeout_keep_alive_handler(self) -> None:
        """Close an idle connection, even if its client never reads the last response."""
        super().timeout_keep_alive_handler()
        self.send_timer = self.send_timer or self.loop.call_later(SEND_SECONDS, self.transport.abort)

    def send_400_response(self, msg: str) -> None:
        """Answer a request that is not valid HTTP, and close the connection."""
        self.transport.write(self.error_response(400, "Bad Request", "this is not a valid HTTP/1.1 request"))
        self.transport.close()

    def error_response(self, status: int, reason: str, sentence: str) -> bytes:
        """A complete response of the protocol itself, without the application."""
        body = self.error_body(status, sentence)
        head = f"HTTP/1.1 {status} {reason}\r\nContent-Type: application/json\r\nConnection: close\r\n"
        return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body

    def error_body(self, status: int, sentence: str) -> bytes:
        """The body of that response as JSON."""
        return json.dumps({"error": sentence}).encode()

    def stop_timers(self) -> None:
        """Stop all time limits."""
        self.stop_request_timer()
        self.stop_send_timer()

    def stop_request_timer(self) -> None:
        """Stop the time limit of the request, which has arrived."""
        self.waiting.order.pop(self, None)
        if self.request_timer is not None:
            self.request_timer.cancel()
            self.request_timer = None

    def stop_send_timer(self) -> None:
        """Stop the time limit of sending."""
        if self.send_timer is not None:
            self.send_timer.cancel()
            self.send_timer = None


def slow_request() -> str:
    """The error message for a request that did not arrive in time."""
    return f"the request did not arrive completely within {REQUEST_SECONDS:.0f} seconds; send it again"
