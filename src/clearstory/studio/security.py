"""Access control: which requests the studio accepts, and the security headers of its responses.

Any web page open in a browser can send requests to this machine, and a foreign host name can resolve to it (DNS
rebinding). A request must therefore name this machine in Host, come from the studio's own page (Origin), and declare
JSON, which a page of another origin cannot send without a preflight request. A studio that listens to other machines
also requires a token.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import suppress
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qsl, urlencode

from h11 import LocalProtocolError
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from clearstory.http.access import LOCAL_HOSTS, bearer_token, host_name, is_ip_address, is_own_origin, tokens_equal
from clearstory.http.bodies import discard_body, read_body, replay_body

MAX_BODY_BYTES = 2**20
"""The largest request body: a text and some settings."""

SECURITY_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; "
    "object-src 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
"""Headers of every response: nothing is loaded from other hosts, and no page may frame the studio."""


class SecurityMiddleware:
    """ASGI middleware that rejects requests from other origins and adds the security headers.

    Args:
        hosts: accepted host names; with a token also any IP address, since only names can be rebound.
        token: the token that a request must carry in a cookie or as a bearer token; None requires none.
        cookie: the cookie's name. Cookies are shared between ports, so the name contains the port.
    """

    def __init__(
        self, app: ASGIApp, *, hosts: Iterable[str] = LOCAL_HOSTS, token: str | None = None, cookie: str = "clearstory"
    ) -> None:
        self.app = app
        self.hosts = frozenset(hosts)
        self.token = token
        self.cookie = cookie

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    headers[name] = value
                # Browsers revalidate cached page files; API responses are not cached.
                headers["Cache-Control"] = "no-cache" if is_page_file(scope["path"]) else "no-store"
            with suppress(LocalProtocolError):  # an invalid body: the server has answered with 400, and closes
                await send(message)

        rejection = self.check_request(scope)
        try:
            if rejection is not None:
                await discard_body(receive)
            elif scope["method"] not in ("GET", "HEAD"):
                body = await read_body(receive, MAX_BODY_BYTES)
                if body is None:
                    rejection = error_response(
                        413, f"the request is larger than {MAX_BODY_BYTES:,} bytes; send a shorter text"
                    )
                else:
                    receive = replay_body(body, receive)
        except ConnectionError:
            return  # the client is gone, or was too slow
        await (rejection or self.app)(scope, receive, send_with_headers)

    def check_request(self, scope: Scope) -> Response | None:
        """The response that rejects the request; None if it is accepted."""
        headers = Headers(scope=scope)
        host = headers.getlist("host")
        name = host_name(host[0]) if len(host) == 1 else None
        if name is None or not self.is_allowed_host(name):
            received = " and ".join(host)[:200] if host else "nothing"
            return error_response(
                400,
                f"the Host header is '{received}', which is not this studio; open the address shown in its terminal",
            )
        for origin in headers.getlist("origin"):
            if not is_own_origin(origin, host[0]):
                sentence = f"requests from the origin '{origin[:200]}' are not allowed; open the studio's own page"
                return error_response(403, sentence)
        if scope["path"].startswith("/api/") and headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
            return error_response(403, "requests from another site are not allowed; open the studio's own page")
        if scope["method"] not in ("GET", "HEAD"):
            content_type = headers.get("content-type", "").partition(";")[0].strip().lower()
            if content_type != "application/json":
                return error_response(415, f"the content type is '{content_type[:100]}'; send application/json")
        return None if scope["path"] == "/health" else self.check_token(scope, headers)

    def check_token(self, scope: Scope, headers: Headers) -> Response | None:
        """A 401 response without a valid token; a redirect that sets the cookie if the URL carries it; else None."""
        if self.token is None:
            return None
        query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        url_token = dict(query).get("token")
        if url_token is not None and scope["path"] == "/" and tokens_equal(url_token, self.token):
            rest = urlencode([pair for pair in query if pair[0] != "token"])
            redirect = RedirectResponse(f"/?{rest}" if rest else "/", status_code=303)
            redirect.set_cookie(self.cookie, self.token, httponly=True, samesite="lax")
            return redirect
        bearer = bearer_token(headers.get("authorization", ""))
        tokens = [] if bearer is None else [bearer]
        try:
            cookies = SimpleCookie(headers.get("cookie", ""))
            tokens += [cookies[self.cookie].value] if self.cookie in cookies else []
        except CookieError:
            pass  # a malformed cookie carries no token
        if any(tokens_equal(each, self.token) for each in tokens):
            return None
        return error_response(401, "this studio requires its token; open the full address shown in its terminal")

    def is_allowed_host(self, name: str) -> bool:
        """Whether a host name means this studio."""
        return name in self.hosts or (self.token is not None and is_ip_address(name))


def is_page_file(path: str) -> bool:
    """Whether a path is the page or one of its static files."""
    return path == "/" or path.startswith("/static/")


def error_response(status: int, sentence: str) -> Response:
    """A JSON response with an error message."""
    return Response(json.dumps({"error": sentence}, ensure_ascii=False), status, media_type="application/json")
