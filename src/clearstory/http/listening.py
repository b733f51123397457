"""Listening: a socket bound to an address, and a uvicorn server with limits on its connections."""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
from concurrent.futures import ThreadPoolExecutor
from types import FrameType
from typing import Any

import uvicorn

from clearstory.errors import BadSetting
from clearstory.http.connection_limits import IDLE_SECONDS, MAX_HEADER_BYTES, TimedProtocol

QUEUED_CONNECTIONS = 512
"""Maximum number of connections that the operating system queues until they are accepted."""

SWITCH_SECONDS = 0.0005
"""After which a thread that runs Python lets the next one run. The thread of the connections releases the interpreter
lock at each system call, and gets it back after all threads that wait: with Python's 5 ms, while prompts are tokenized,
an answer took seconds."""

WORKERS = 2
"""Maximum number of threads that read prompts and grammars beside the thread of the connections."""

ACCEPTED_AT_A_TIME = 16
"""Connections that are accepted before requests of others are answered: of 650 at once, all took half a second."""


class BoundedServer(uvicorn.Server):
    """A uvicorn server whose queue is longer than what it accepts at a time, and which a second signal ends at once."""

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until a signal, with threads that change often."""
        before = sys.getswitchinterval()
        sys.setswitchinterval(SWITCH_SECONDS)
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(WORKERS, "request"))
        try:
            await super().serve(sockets)
        finally:
            sys.setswitchinterval(before)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept connections; more wait in the queue."""
        await super().startup(sockets=sockets)
        for each in sockets or ():
            each.listen(QUEUED_CONNECTIONS)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Finish the requests in progress at the first signal, none at the second."""
        self.force_exit = self.should_exit
        super().handle_exit(signal.SIGINT if sig == signal.SIGTERM and self.force_exit else sig, frame)


def make_server(app: Any, protocol: type[TimedProtocol], drain_seconds: int) -> BoundedServer:
    """The server of an ASGI app. `drain_seconds`: for which requests in progress may continue after a signal.

    Python's logging stays as it is: a configuration of uvicorn's own would close the handlers of all other libraries.
    """
    config = uvicorn.Config(
        app, http=protocol, ws="none", lifespan="off", loop="asyncio", log_config=None, log_level="error",
        access_log=False, server_header=False, timeout_graceful_shutdown=drain_seconds,
        timeout_keep_alive=IDLE_SECONDS, h11_max_incomplete_event_size=MAX_HEADER_BYTES, proxy_headers=False,
        backlog=ACCEPTED_AT_A_TIME,
    )  # fmt: skip
    return BoundedServer(config)


def bind_address(host: str, port: int) -> socket.socket:
    """A socket bound to an address; port 0 chooses a free one. Raises BadSetting if that is not possible."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError) as error:
        raise BadSetting(f"host is '{host}', which is not a valid address ({error}); use 127.0.0.1") from None
    # With the protocol number given, asyncio sets TCP_NODELAY; otherwise the second part of a response waits 40 ms for
    # the client's acknowledgement of the first.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
    except OSError as error:
        listener.close()
        raise BadSetting(
            f"cannot bind {host} port {port} ({error.strerror}); choose another --port, or --port 0 for any free port"
        ) from None
    return listener


def http_address(host: str, port: int) -> str:
    """The address under which a client on this machine reaches a server that listens there.

    >>> http_address("0.0.0.0", 8000), http_address("::1", 80)
    ('http://127.0.0.1:8000', 'http://[::1]:80')
    """
    name = "127.0.0.1" if host in ("0.0.0.0", "::") else host
    return f"http://{f'[{name}]' if ':' in name else name}:{port}"
