"""Studio server: binds the address, creates the access token, and serves until Ctrl-C."""

from __future__ import annotations

import secrets
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from clearstory.errors import BadInput, BadSetting
from clearstory.recipes.settings.inference import StudioRecipe
from clearstory.studio.security import LOCAL_HOSTS
from clearstory.studio.wait_policy import use_passive_wait

if TYPE_CHECKING:
    import uvicorn


QUEUED_CONNECTIONS = 512
"""Connections that the operating system holds until they are accepted."""

ACCEPTED_AT_A_TIME = 16
"""Connections that are accepted before requests of others are answered: of 650 at once, all took half a second."""


@dataclass(frozen=True)
class BoundAddress:
    """The address that a studio listens at.

    Args:
        listener: the bound socket.
        host: the host name or address from the settings.
        port: the port; a free one if the settings say 0.
        token: the access token that requests must carry; None for a loopback address without a configured token.
    """

    listener: socket.socket
    host: str
    port: int
    token: str | None

    @property
    def url(self) -> str:
        """The URL to open in a browser, with the token as a query parameter if there is one."""
        name = "127.0.0.1" if self.host in ("0.0.0.0", "::") else self.host
        name = f"[{name}]" if ":" in name else name
        return f"http://{name}:{self.port}/" + (f"?token={quote(self.token)}" if self.token else "")

    @property
    def hosts(self) -> frozenset[str]:
        """Host names that requests may use."""
        if self.token is None:
            return LOCAL_HOSTS
        return LOCAL_HOSTS | {self.host.lower(), socket.gethostname().lower()}


def listen(recipe: StudioRecipe) -> BoundAddress:
    """A socket bound to the configured address, and its access token.

    Raises BadInput if the folder does not exist, BadSetting if the address cannot be bound.
    """
    if not recipe.folder.is_dir():
        raise BadInput(f"there is no folder {recipe.folder}; name the folder that holds models or will hold runs")
    try:
        family, _, _, _, address = socket.getaddrinfo(recipe.host, recipe.port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError) as error:
        raise BadSetting(f"host is '{recipe.host}', which is no valid address ({error}); use 127.0.0.1") from None
    # With the protocol number given, asyncio sets TCP_NODELAY; otherwise the second part of a response waits 40 ms for
    # the browser's acknowledgement of the first.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
    except OSError as error:
        listener.close()
        raise BadSetting(
            f"cannot bind {recipe.host} port {recipe.port} ({error.strerror}); choose another --port, or --port 0 for "
            "any free port"
        ) from None
    token = recipe.token or (None if recipe.host in LOCAL_HOSTS else secrets.token_urlsafe(16))
    return BoundAddress(listener, recipe.host, listener.getsockname()[1], token)


def serve(address: BoundAddress, folder: Path, ready: Callable[[], None] = lambda: None) -> None:
    """Serve requests until Ctrl-C. `ready` is called once the socket accepts connections."""
    use_passive_wait()
    # Models compute in threads; with Python's 5 ms, a request that needs several turns waits for tens of milliseconds.
    sys.setswitchinterval(0.001)
    server = make_server(address, folder)
    address.listener.listen(
        QUEUED_CONNECTIONS
    )  # from here on a browser's connection waits for a response instead of being refused
    ready()
    server.run(sockets=[address.listener])
    # uvicorn returns only after Ctrl-C; a process started in the background would otherwise not receive it.
    raise KeyboardInterrupt


def make_server(address: BoundAddress, folder: Path) -> uvicorn.Server:
    """The server of a studio over a folder, with limits on its connections."""
    import uvicorn

    class Server(uvicorn.Server):
        """A server whose queue is longer than what it accepts at a time."""

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets=sockets)
            for each in sockets or ():
                each.listen(QUEUED_CONNECTIONS)

    from clearstory.studio.app import studio_app
    from clearstory.studio.connection_limits import IDLE_SECONDS, MAX_HEADER_BYTES, TimedProtocol

    app = studio_app(folder, hosts=address.hosts, token=address.token, cookie=f"clearstory-{address.port}")
    config = uvicorn.Config(
        app, http=TimedProtocol, ws="none", loop="asyncio", log_level="error", access_log=False, server_header=False,
        timeout_graceful_shutdown=2, timeout_keep_alive=IDLE_SECONDS, h11_max_incomplete_event_size=MAX_HEADER_BYTES,
        proxy_headers=False, backlog=ACCEPTED_AT_A_TIME,
    )  # fmt: skip
    return Server(config)
