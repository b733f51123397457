"""Connections as bytes, for tests of how servers treat clients that are slow, leave, or send no HTTP."""

from __future__ import annotations

import contextlib
import json
import socket
import urllib.request


def connect(port: int, data: bytes = b"") -> socket.socket:
    """A connection to this machine that has sent some bytes."""
    opened = socket.create_connection(("127.0.0.1", port), timeout=30)
    opened.sendall(data)
    return opened


def read_to_end(opened: socket.socket) -> bytes:
    """What arrives until the server closes the connection."""
    parts = []
    with opened, contextlib.suppress(ConnectionResetError):
        while part := opened.recv(65536):
            parts.append(part)
    return b"".join(parts)


def healthy(port: int) -> bool:
    """Whether the server at a port of this machine answers."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=30) as answer:
        return bool(json.load(answer)["status"] == "ok")
