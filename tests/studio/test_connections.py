"""Connections: idle and half-sent requests are closed, and never keep the server from answering others."""

from __future__ import annotations

import contextlib
import http.client
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from clearstory.http import connection_limits
from clearstory.recipes.settings.inference import StudioRecipe
from clearstory.studio.server import listen, studio_server
from raw_connections import connect, healthy, read_to_end

LIMIT = 0.4
"""Seconds for a request to arrive, in these tests."""

HEADER = b"POST /api/trace HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: 40\r\n"


@pytest.fixture
def port(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """The port of a studio whose time limits are short."""
    monkeypatch.setattr(connection_limits, "REQUEST_SECONDS", LIMIT)
    monkeypatch.setattr(connection_limits, "MAX_CONNECTIONS", 450)
    address = listen(StudioRecipe(folder=tmp_path, port=0))
    server = studio_server(address, tmp_path)
    server.config.timeout_keep_alive = LIMIT  # type: ignore[assignment]  # seconds, whole ones or not
    address.listener.listen(512)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [address.listener]})
    thread.start()
    try:
        yield address.port
    finally:
        server.should_exit = True
        thread.join()
        address.listener.close()


@pytest.mark.parametrize(
    "sent",
    [b"", b"G", b"GET /health HTTP/1.1\r\nHost: 127", HEADER, HEADER + b"\r\n", HEADER + b'\r\n{"model": "x"'],
    ids=["nothing", "a letter", "half a header", "a header without end", "no body", "half a body"],
)
def test_a_request_that_never_ends_is_closed(port: int, sent: bytes) -> None:
    answer = read_to_end(connect(port, sent))
    if sent:
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b"did not arrive" in answer
    else:
        assert answer == b""
    assert healthy(port)


def test_bytes_now_and_then_do_not_keep_a_request_open(port: int) -> None:
    opened = connect(port, b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: ")
    begun = time.monotonic()
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        while time.monotonic() - begun < 30:
            opened.sendall(b"a")
            time.sleep(0.02)
    assert time.monotonic() - begun < 30
    opened.close()
    assert healthy(port)


def test_an_idle_connection_is_closed_after_its_response(port: int) -> None:
    answer = read_to_end(connect(port, b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"))
    assert answer.startswith(b"HTTP/1.1 200 OK")


def test_a_connection_can_be_used_again(port: int) -> None:
    opened = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    opened.connect()
    used = opened.sock
    for _ in range(3):
        opened.request("GET", "/health")
        assert json.load(opened.getresponse())["status"] == "ok"
        assert opened.sock is used
        time.sleep(LIMIT / 8)
    opened.close()


def test_hundreds_of_half_sent_requests_do_not_stop_the_server(port: int) -> None:
    held = [connect(port, (b"", HEADER, HEADER + b"\r\n{")[number % 3]) for number in range(400)]
    assert healthy(port)
    for opened in held:
        read_to_end(opened)  # each is closed by the server
    assert healthy(port)


def test_the_connection_that_has_waited_longest_makes_room(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_limits, "REQUEST_SECONDS", 60.0)
    monkeypatch.setattr(connection_limits, "MAX_CONNECTIONS", 5)
    held = [connect(port, b"GET /health") for _ in range(20)]
    assert healthy(port)
    for opened in held[:15]:
        assert read_to_end(opened) == b""
    for opened in held[15:]:
        opened.close()


def test_what_is_no_http_is_refused(port: int) -> None:
    assert read_to_end(connect(port, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n")).startswith(
        b"HTTP/1.1 400"
    )
    long = b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Long: " + b"a" * 200_000
    opened = connect(port)
    with contextlib.suppress(ConnectionError):
        opened.sendall(long)
    assert b"200 OK" not in read_to_end(opened)
    assert healthy(port)
