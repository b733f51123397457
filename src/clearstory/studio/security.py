"""Guard: who may ask the studio something, and what a browser may do with the answer.

Any page that someone visits can send requests to this machine, and a name of its own can be made to point here. So a
request must name this machine (Host), come from a page of ours (Origin), and say that it is JSON, which a page of
another origin cannot do without being asked first. Who listens to more than this machine shows a token as well.
"""

from __future__ import annotations

import ipaddress
import json
import secrets
from collections.abc import Iterable
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qsl, urlencode

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MOST_BYTES = 2**20
"""A request's body at most: a sentence and some settings."""

HEADERS = {
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; "
    "object-src 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
"""What every answer carries: nothing is loaded from elsewhere, and nobody frames the page."""

LOCAL_HOSTS = frozenset({"127.0.0.1", "localhost", "::1"})
"""Names of this machine that no one else can point here."""


class SecurityMiddleware:
    """Stands before the app: refuses what is not from our own page, and limits what the page may do.

    Args:
        hosts: names under which the studio may be asked; with a token any address of numbers as well, since only names
            can be made to point elsewhere.
        token: what must be shown, in a cookie or as a bearer; None asks for none.
        cookie: the cookie's name. Cookies do not know of ports, so it has the port in it.
    """

    def __init__(
        self, app: ASGIApp, *, hosts: Iterable[str] = LOCAL_HOSTS, token: str | None = None, cookie: str = "clearstory"
    ) -> None:
        self.app = app
        self.hosts = frozenset(hosts)
        self.token = token
        self.cookie = cookie

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
                # A page that is kept must ask whether it is still the newest; an answer is not kept at all.
                headers["Cache-Control"] = "no-cache" if own_file(scope["path"]) else "no-store"
            await send(message)

        refusal = self.refusal(scope)
        if refusal is None and scope["method"] not in ("GET", "HEAD"):
            body = await whole(receive)
            if body is None:
                refusal = refused(413, f"the request is larger than {MOST_BYTES:,} bytes; send a shorter text")
            else:
                receive = again(body, receive)
        await (refusal or self.app)(scope, receive, guarded)

    def refusal(self, scope: Scope) -> Response | None:
        """Why a request is not answered; None where it is."""
        headers = Headers(scope=scope)
        named = headers.getlist("host")
        if len(named) != 1 or not self.ours(host_name(named[0])):
            shown = named[0] if named else "nothing"
            return refused(400, f"this studio is not called '{shown}'; open it by the address that its terminal shows")
        origin = headers.get("origin")
        if origin is not None and origin not in (f"http://{named[0]}", f"https://{named[0]}"):
            return refused(403, f"a page of '{origin}' may not ask this studio; open the studio itself")
        if scope["path"].startswith("/api/") and headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
            return refused(403, "a page of another site may not ask this studio; open the studio itself")
        if scope["method"] not in ("GET", "HEAD"):
            kind = headers.get("content-type", "").partition(";")[0].strip().lower()
            if kind != "application/json":
                return refused(415, f"the request says it is '{kind}'; send application/json")
        return None if scope["path"] == "/health" else self.unknown(scope, headers)

    def unknown(self, scope: Scope, headers: Headers) -> Response | None:
        """The answer to who has not shown the token, and to who shows it for the first time."""
        if self.token is None:
            return None
        query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        given = dict(query).get("token")
        if given is not None and scope["path"] == "/" and same(given, self.token):
            left = urlencode([pair for pair in query if pair[0] != "token"])
            entry = RedirectResponse(f"/?{left}" if left else "/", status_code=303)
            entry.set_cookie(self.cookie, self.token, httponly=True, samesite="lax")
            return entry
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        shown = [bearer.strip()] if scheme.lower() == "bearer" else []
        try:
            kept = SimpleCookie(headers.get("cookie", ""))
            shown += [kept[self.cookie].value] if self.cookie in kept else []
        except CookieError:
            pass  # a cookie that cannot be read shows nothing
        if any(same(each, self.token) for each in shown):
            return None
        return refused(401, "this studio asks for its token; open the whole address that its terminal shows")

    def ours(self, name: str) -> bool:
        """Whether a Host means this studio."""
        return name in self.hosts or (self.token is not None and numeric(name))


def same(given: str, token: str) -> bool:
    """Whether it is the token, in a time that does not tell how much of it is right."""
    return secrets.compare_digest(given.encode(), token.encode())


def host_name(host: str) -> str:
    """The name in a Host header, without its port.

    >>> host_name("LOCALHOST:8642"), host_name("[::1]:8642")
    ('localhost', '::1')
    """
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].lower()


def numeric(name: str) -> bool:
    """Whether a name is an address of numbers."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def own_file(path: str) -> bool:
    """Whether a path is the page or a part of it."""
    return path == "/" or path.startswith("/static/")


async def whole(receive: Receive) -> bytes | None:
    """A request's body; None for one that is too large, of which no more is read."""
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return b"".join(parts)
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > MOST_BYTES:
            return None
        if not message.get("more_body", False):
            return b"".join(parts)


def again(body: bytes, receive: Receive) -> Receive:
    """A body that has been read, to be read once more; after it, whatever comes."""
    given = False

    async def next_message() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return next_message


def refused(status: int, sentence: str) -> Response:
    """An answer that says why there is none."""
    return Response(json.dumps({"error": sentence}, ensure_ascii=False), status, media_type="application/json")
