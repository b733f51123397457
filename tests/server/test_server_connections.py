"""Connections of the server: slow, half-sent, left and stalled ones harm no others, and leave nothing behind."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from served import MODEL, RunningServer, real_server

from clearstory.http import connection_limits
from clearstory.http.listening import WORKERS, BoundedServer
from raw_connections import healthy, read_to_end

LIMIT = 0.4
"""Seconds for a request to arrive, in these tests."""

HEADER = b"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"


@pytest.fixture
def server(engines: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[RunningServer]:
    """A server whose time limits are short."""
    monkeypatch.setattr(connection_limits, "REQUEST_SECONDS", LIMIT)
    with real_server(engines) as running:
        yield running


def request(**fields: Any) -> bytes:
    """A request for a text, as it is sent."""
    body = json.dumps({"model": MODEL, "prompt": "a", "temperature": 0, "ignore_eos": True, **fields}).encode()
    return HEADER + f"Content-Length: {len(body)}\r\n\r\n".encode() + body


def wait_until(condition: Callable[[], bool], seconds: float = 30.0) -> bool:
    """Whether a condition becomes true."""
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    return condition()


@pytest.mark.parametrize(
    "sent", [b"GET /health HTTP/1.1\r\nHost: 127", HEADER, HEADER + b'Content-Length: 90\r\n\r\n{"m']
)
def test_half_sent_requests_are_closed_with_an_error_in_openai_form(server: RunningServer, sent: bytes) -> None:
    opened = server.connect(sent)
    assert healthy(server.port)
    head, _, body = read_to_end(opened).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 408 ")
    error = json.loads(body)["error"]
    assert (error["code"], error["type"]) == ("request_timeout", "invalid_request_error")


def test_what_is_no_http_is_refused_in_openai_form(server: RunningServer) -> None:
    for sent in (
        b"\x16\x03\x01\x02\x00\r\n\r\n",
        b"GET /\x00 HTTP/1.1\r\n\r\n",
        HEADER + b"Content-Length: -1\r\n\r\n",
    ):
        head, _, body = read_to_end(server.connect(sent)).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 400 ")
        assert json.loads(body)["error"]["code"] == "invalid_http"
    assert healthy(server.port)


def test_clients_that_wait_for_a_permission_or_speak_http_1_0_are_answered(server: RunningServer) -> None:
    head, _, body = request(max_tokens=2).replace(b"Host:", b"Connection: close\r\nHost:").partition(b"\r\n\r\n")
    opened = server.connect(head + b"\r\nExpect: 100-continue\r\n\r\n")
    assert opened.recv(4096) == b"HTTP/1.1 100 Continue\r\n\r\n"
    opened.sendall(body)
    assert b'"completion_tokens":2' in read_to_end(opened)
    old = read_to_end(server.connect(head.replace(b"HTTP/1.1", b"HTTP/1.0") + b"\r\n\r\n" + body))
    assert b'"completion_tokens":2' in old
    streamed = request(max_tokens=2, stream=True).replace(b"HTTP/1.1", b"HTTP/1.0")
    head, _, body = read_to_end(server.connect(streamed)).partition(b"\r\n\r\n")
    assert b"chunked" not in head.lower()  # an older client reads until the connection is closed
    assert body.endswith(b"data: [DONE]\n\n")


def test_a_large_body_is_refused_before_it_has_arrived(server: RunningServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_limits, "REQUEST_SECONDS", 60)
    opened = server.connect(HEADER + b"Content-Length: 100000000\r\n\r\n")
    with contextlib.suppress(ConnectionError):
        for _ in range(30):
            opened.sendall(b"a" * 2**20)
    with contextlib.suppress(ConnectionError):
        assert opened.recv(4096).startswith(b"HTTP/1.1 413 ")
    opened.close()
    assert healthy(server.port)


@pytest.mark.parametrize(
    ("header", "size", "status"),
    [(HEADER, 3 * 2**20, 413), (HEADER.replace(b"Host: 127.0.0.1", b"Host: example.com"), 2**20, 400)],
    ids=["larger than allowed", "another host"],
)
def test_a_client_that_sends_a_refused_body_gets_the_answer(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch, header: bytes, size: int, status: int
) -> None:
    monkeypatch.setattr(connection_limits, "REQUEST_SECONDS", 60)
    opened = server.connect(header + f"Connection: close\r\nContent-Length: {size}\r\n\r\n".encode())
    for _ in range(size // 2**18):
        opened.sendall(b"a" * 2**18)
        time.sleep(0.002)
    answer = read_to_end(opened)
    assert answer.startswith(f"HTTP/1.1 {status} ".encode())
    assert b'"error"' in answer


def test_a_client_that_leaves_frees_its_text(server: RunningServer, engines: Any) -> None:
    engine = engines[MODEL]
    before = engine.statistics()
    for stream in (True, False):
        opened = server.connect(request(max_tokens=10**6, truncate="left", stream=stream))
        if stream:
            assert opened.recv(4096).startswith(b"HTTP/1.1 200 ")
        assert wait_until(lambda: engine.statistics().running + engine.statistics().waiting == 1)
        opened.close()
        assert wait_until(lambda: engine.statistics().running + engine.statistics().waiting == 0)
    assert engine.statistics().cancelled == before.cancelled + 2
    assert wait_until(lambda: len([line for line in server.log.lines if line.get("cancelled")]) == 2)
    assert {line["status"] for line in server.log.lines if line.get("cancelled")} == {200, 499}


def test_a_reader_of_single_bytes_holds_nobody_up(server: RunningServer, engines: Any) -> None:
    slow = server.connect(request(max_tokens=100, stream=True))
    for _ in range(20):
        assert len(slow.recv(1)) == 1
    other = read_to_end(server.connect(request(max_tokens=5).replace(b"Host:", b"Connection: close\r\nHost:")))
    assert b'"completion_tokens":5' in other
    assert wait_until(lambda: engines[MODEL].statistics().running == 0)  # its text was generated nevertheless
    assert healthy(server.port)
    slow.close()


def test_requests_beyond_the_queue_are_refused_with_the_time_to_come_back(server: RunningServer, engines: Any) -> None:
    engine = engines[MODEL]
    limit = engine.limits.max_running + engine.limits.max_waiting
    streams = [server.connect(request(max_tokens=10**6, truncate="left", stream=True)) for _ in range(limit)]
    assert wait_until(lambda: engine.statistics().running + engine.statistics().waiting == limit)
    head, _, body = read_to_end(
        server.connect(request(max_tokens=1).replace(b"Host:", b"Connection: close\r\nHost:"))
    ).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 503 ")
    assert b"\r\nretry-after: " in head.lower()
    assert json.loads(body)["error"]["code"] == "overloaded"
    assert healthy(server.port)
    for each in streams:
        each.close()
    assert wait_until(lambda: engine.statistics().running + engine.statistics().waiting == 0)


def test_nothing_is_left_behind(server: RunningServer, engines: Any) -> None:
    """File descriptors, threads and connections are as many after two rounds of odd clients as after one."""
    counts = []
    for _ in range(2):
        held = [server.connect(sent) for sent in (b"", b"GET", HEADER, request(max_tokens=50, stream=True)) * 5]
        for opened in held[::2]:
            opened.close()
        for opened in held[1::2]:
            opened.settimeout(30)
            opened.recv(10)
            opened.close()
        assert wait_until(lambda: not server.server.server_state.connections)
        assert wait_until(lambda: not server.server.server_state.tasks)
        assert wait_until(lambda: engines[MODEL].statistics().running == 0)
        # The event loop's own threads come as they are needed, up to a fixed number.
        threads = [each for each in threading.enumerate() if not each.name.startswith("request_")]
        descriptors = list(Path("/proc/self/fd").iterdir()) if os.path.exists("/proc/self/fd") else []
        counts.append((len(descriptors), len(threads)))
    assert counts[1][0] <= counts[0][0]
    assert counts[1][1] <= counts[0][1]


def test_requests_in_progress_are_finished_when_the_server_stops(engines: Any) -> None:
    with real_server(engines, drain_seconds=30) as running:
        opened = running.connect(request(max_tokens=150, stream=True))
        assert opened.recv(4096).startswith(b"HTTP/1.1 200 ")
        running.server.should_exit = True
        assert read_to_end(opened).endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")


def test_requests_are_ended_when_the_time_for_draining_is_over(engines: Any) -> None:
    with real_server(engines, drain_seconds=0) as running:
        opened = running.connect(request(max_tokens=10**6, truncate="left", stream=True))
        assert opened.recv(4096).startswith(b"HTTP/1.1 200 ")
    assert b"[DONE]" not in read_to_end(opened)
    assert wait_until(lambda: engines[MODEL].statistics().running == 0)


def test_a_second_signal_ends_the_server_at_once(engines: Any) -> None:
    import signal

    with real_server(engines) as running:
        server: BoundedServer = running.server
        for force in (False, True):
            server.handle_exit(signal.SIGTERM, None)
            assert server.should_exit
            assert server.force_exit is force


def test_threads_beside_the_connections_are_few_and_change_often(engines: Any) -> None:
    before = sys.getswitchinterval()
    body = request(prompt="a " * 20_000, max_tokens=1)
    with real_server(engines) as server:
        assert healthy(server.port)
        assert sys.getswitchinterval() < before
        opened = [server.connect(body) for _ in range(8)]
        answers = [read_to_end(each) for each in opened]
        assert all(b"context_length_exceeded" in answer for answer in answers)
        assert 0 < sum(each.name.startswith("request_") for each in threading.enumerate()) <= WORKERS
    assert sys.getswitchinterval() == before
