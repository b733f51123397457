"""Access: host names, origins and tokens, by which a server decides which requests to answer.

Any web page open in a browser can send requests to this machine, and a foreign host name can resolve to it (DNS
rebinding). A request must therefore name this machine in Host and come from a page of this server in Origin.
"""

from __future__ import annotations

import ipaddress
import re
import secrets

LOCAL_HOSTS = frozenset({"127.0.0.1", "localhost", "::1"})
"""Host names that always mean this machine."""

HOST = re.compile(r"(?:\[([0-9a-f:.]{2,45})\]|([a-z0-9_.-]{1,253}))(?::([0-9]{1,5}))?", re.ASCII | re.IGNORECASE)
"""A Host header: a name, an IPv4 address or an IPv6 address in brackets, and a port (RFC 9110 section 7.2)."""


def host_name(host: str) -> str | None:
    """The name in a Host header, without its port; None if the header is anything but a name and a port.

    >>> host_name("LOCALHOST:8642"), host_name("[::1]:8642"), host_name("[::1].evil"), host_name("127.0.0.1:80@evil")
    ('localhost', '::1', None, None)
    """
    match = HOST.fullmatch(host)
    if match is None or int(match[3] or 0) > 65_535:
        return None
    return (match[1] or match[2]).lower()


def is_ip_address(name: str) -> bool:
    """Whether a host name is an IPv4 or IPv6 address."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def is_own_origin(origin: str, host: str) -> bool:
    """Whether an Origin header names the server that the Host header names."""
    return origin.lower() in (f"http://{host.lower()}", f"https://{host.lower()}")


def tokens_equal(received: str, token: str) -> bool:
    """Whether both tokens are equal, compared in constant time."""
    return secrets.compare_digest(received.encode(), token.encode())


def bearer_token(authorization: str) -> str | None:
    """The token of an Authorization header; None if it has none.

    >>> bearer_token("Bearer abc"), bearer_token("Basic abc")
    ('abc', None)
    """
    scheme, _, token = authorization.partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None
