"""Serving: the address that the studio is reached at, its token, and the server that runs until Ctrl-C."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from clearstory.errors import BadInput, BadSetting
from clearstory.recipes.using import StudioRecipe
from clearstory.studio.guard import LOCAL
from clearstory.studio.waiting import patient


@dataclass(frozen=True)
class Place:
    """Where a studio listens.

    Args:
        listener: the socket, bound.
        host: the name or address that was asked for.
        port: the port, a free one where 0 was asked for.
        token: what a browser must show; None on this machine alone, unless one was given.
    """

    listener: socket.socket
    host: str
    port: int
    token: str | None

    @property
    def url(self) -> str:
        """What to open: the token, if there is one, is in it."""
        name = "127.0.0.1" if self.host in ("0.0.0.0", "::") else self.host
        name = f"[{name}]" if ":" in name else name
        return f"http://{name}:{self.port}/" + (f"?token={quote(self.token)}" if self.token else "")

    @property
    def hosts(self) -> frozenset[str]:
        """Names under which it may be asked."""
        if self.token is None:
            return LOCAL
        return LOCAL | {self.host.lower(), socket.gethostname().lower()}


def listen(recipe: StudioRecipe) -> Place:
    """Take the address. Raises BadInput where the folder is not there, BadSetting where the address cannot be had."""
    if not recipe.folder.is_dir():
        raise BadInput(f"there is no folder {recipe.folder}; name one that holds models, or that runs are to go to")
    try:
        family, _, _, _, address = socket.getaddrinfo(recipe.host, recipe.port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError) as error:
        raise BadSetting(f"host is '{recipe.host}', which is no address ({error}); take 127.0.0.1") from None
    # asyncio knows TCP by its number, and then sends at once; else the second part of an answer waits 40 ms, until the
    # browser has acknowledged the first.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
    except OSError as error:
        listener.close()
        raise BadSetting(
            f"{recipe.host} port {recipe.port} cannot be had ({error.strerror}); choose another --port, or --port 0 "
            "for any that is free"
        ) from None
    token = recipe.token or (None if recipe.host in LOCAL else secrets.token_urlsafe(16))
    return Place(listener, recipe.host, listener.getsockname()[1], token)


def serve(place: Place, folder: Path, ready: Callable[[], None] = lambda: None) -> None:
    """Answer until Ctrl-C. `ready` is called when the first request can come."""
    patient()
    import uvicorn

    from clearstory.studio.app import studio_app

    app = studio_app(folder, hosts=place.hosts, token=place.token, cookie=f"clearstory-{place.port}")
    config = uvicorn.Config(
        app, http="h11", ws="none", loop="asyncio", log_level="warning", access_log=False, server_header=False,
        timeout_graceful_shutdown=2,
    )  # fmt: skip
    place.listener.listen(128)  # from here on a browser waits for an answer, and is not refused
    ready()
    uvicorn.Server(config).run(sockets=[place.listener])
    # It ends by Ctrl-C alone, which uvicorn passes on; a process that was begun in the background would not hear it.
    raise KeyboardInterrupt
