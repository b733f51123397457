"""Studio server: binds the address, creates the access token, and serves until Ctrl-C."""

from __future__ import annotations

import secrets
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from clearstory.errors import BadInput
from clearstory.http.access import LOCAL_HOSTS
from clearstory.http.connection_limits import TimedProtocol
from clearstory.http.listening import QUEUED_CONNECTIONS, BoundedServer, bind_address, http_address, make_server
from clearstory.recipes.settings.inference import StudioRecipe
from clearstory.studio.wait_policy import use_passive_wait


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
        return f"{http_address(self.host, self.port)}/" + (f"?token={quote(self.token)}" if self.token else "")

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
    listener = bind_address(recipe.host, recipe.port)
    token = recipe.token or (None if recipe.host in LOCAL_HOSTS else secrets.token_urlsafe(16))
    return BoundAddress(listener, recipe.host, listener.getsockname()[1], token)


def serve(address: BoundAddress, folder: Path, ready: Callable[[], None] = lambda: None) -> None:
    """Serve requests until Ctrl-C. `ready` is called once the socket accepts connections."""
    use_passive_wait()
    # Models compute in threads; with Python's 5 ms, a request that needs several turns waits for tens of milliseconds.
    sys.setswitchinterval(0.001)
    server = studio_server(address, folder)
    address.listener.listen(
        QUEUED_CONNECTIONS
    )  # from here on a browser's connection waits for a response instead of being refused
    ready()
    server.run(sockets=[address.listener])
    # uvicorn returns only after Ctrl-C; a process started in the background would otherwise not receive it.
    raise KeyboardInterrupt


def studio_server(address: BoundAddress, folder: Path) -> BoundedServer:
    """The server of a studio over a folder, with limits on its connections."""
    from clearstory.studio.app import studio_app

    app = studio_app(folder, hosts=address.hosts, token=address.token, cookie=f"clearstory-{address.port}")
    return make_server(app, TimedProtocol, drain_seconds=2)
