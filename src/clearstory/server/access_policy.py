"""Access policy: which requests are answered, by Host, Origin, API key and content type."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from starlette.datastructures import Headers

from clearstory.http.access import LOCAL_HOSTS, bearer_token, host_name, is_ip_address, is_own_origin, tokens_equal
from clearstory.server.errors import RequestError, shorten

CORS_HEADERS = {
    "Access-Control-Allow-Methods": "GET, POST",
    "Access-Control-Allow-Headers": "*, Authorization",  # a star does not cover Authorization
    "Access-Control-Max-Age": "600",
}
"""Headers of the response to a preflight request of an allowed origin."""


@dataclass(frozen=True)
class AccessPolicy:
    """Which requests are answered.

    Args:
        hosts: names that Host may have; with an API key also any IP address, since only names can be rebound.
        keys: the API keys, of which a request must carry one; none requires none. They are never shown.
        origins: origins whose pages may send requests, such as "http://localhost:3000"; "*" allows all.
    """

    hosts: frozenset[str] = LOCAL_HOSTS
    keys: tuple[str, ...] = field(default=(), repr=False)
    origins: frozenset[str] = frozenset()

    def check_host(self, headers: Headers) -> None:
        """Raises RequestError unless the Host header names this server."""
        host = headers.getlist("host")
        name = host_name(host[0]) if len(host) == 1 else None
        if name is None or not (name in self.hosts or (self.keys and is_ip_address(name))):
            received = shorten(" and ".join(host), 200) if host else "missing"
            raise RequestError(
                f"the Host header is '{received}', which does not name this server; use its address, or start "
                "it with --allow-host",
                code="wrong_host",
            )

    def allowed_origin(self, headers: Headers) -> str | None:
        """The origin for the CORS headers; None for a request without a foreign origin.

        Raises RequestError with status 403 for an origin that is not allowed.
        """
        foreign = [each for each in headers.getlist("origin") if not is_own_origin(each, headers.get("host", ""))]
        for origin in foreign:
            if origin.lower() not in self.origins and "*" not in self.origins:
                raise RequestError(
                    f"pages of the origin '{shorten(origin, 200)}' may not use this server; start it with "
                    "--allow-origin",
                    code="wrong_origin",
                    status=403,
                )
        return foreign[0] if foreign else None

    def check_key(self, headers: Headers) -> None:
        """Raises RequestError with status 401 unless the request has a valid API key, if the server has keys."""
        if not self.keys:
            return
        received = bearer_token(headers.get("authorization", ""))
        if received is None:
            raise RequestError(
                "this server requires an API key; send the header Authorization: Bearer KEY",
                code="missing_api_key",
                status=401,
            )
        if not sum(tokens_equal(received, key) for key in self.keys):  # all are compared, so that time tells nothing
            raise RequestError("the API key is not valid for this server", code="invalid_api_key", status=401)


def make_policy(
    bound: str, machine: str, keys: Iterable[str], hosts: Iterable[str], origins: Iterable[str]
) -> AccessPolicy:
    """The policy of a server bound to an address on a machine of that name, with further hosts and origins."""
    own = {bound.lower(), machine.lower()} if bound not in LOCAL_HOSTS else set()
    return AccessPolicy(
        hosts=LOCAL_HOSTS | own | {each.lower() for each in hosts},
        keys=tuple(keys),
        origins=frozenset(each.lower().rstrip("/") for each in origins),
    )


def check_content_type(headers: Headers) -> None:
    """Raises RequestError with status 415 unless the body is declared as JSON, and not as compressed."""
    received = headers.get("content-type", "").partition(";")[0].strip().lower()
    if received != "application/json":
        raise RequestError(
            f"the content type is '{shorten(received, 100)}'; send the header Content-Type: application/json",
            code="wrong_content_type",
            status=415,
        )
    encoding = headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):
        raise RequestError(
            f"the content encoding is '{shorten(encoding, 100)}', which is not supported; send the body uncompressed",
            code="wrong_content_encoding",
            status=415,
        )
