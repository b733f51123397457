"""A tiny chat model, served: over Starlette's TestClient, or by a real server on a free port."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from starlette.testclient import TestClient

from clearstory.formats.folders import save_model
from clearstory.formats.model_card import ModelCard
from clearstory.http.listening import bind_address, make_server
from clearstory.models.build import build
from clearstory.server.app import server_app
from clearstory.server.process import OpenAIProtocol
from clearstory.server.request_log import RequestLog
from generation.test_chat_prompts import chat_tokenizer
from raw_connections import connect
from tiny import TINY_CLEAR

MODEL = "tiny"
"""The name under which the model is served."""

HOME = "http://127.0.0.1:8000"
"""The address of the server."""

CONTEXT = 160
"""Tokens of the model's context."""


def make_model(folder: Path) -> Path:
    """A chat model of random weights in a folder."""
    tokenizer = chat_tokenizer()
    card = ModelCard(name=MODEL, family="transformer", parameters=0)
    save_model(folder, build(replace(TINY_CLEAR, vocab=tokenizer.vocab, context=CONTEXT), seed=3), tokenizer, card)
    return folder


def client_of(engines: Mapping[str, Any], **settings: Any) -> TestClient:
    """A client of an app over engines, as a program of this machine sends requests."""
    app = server_app(engines, log=settings.pop("log", None) or SilentLog(), **settings)
    return TestClient(app, base_url=HOME, raise_server_exceptions=True)


class SilentLog(RequestLog):
    """A log that keeps its lines."""

    def __init__(self, contents: bool = False) -> None:
        super().__init__(contents=contents)
        self.lines: list[dict[str, Any]] = []

    def write(self, line: dict[str, Any]) -> None:
        """Keep a line."""
        self.lines.append(json.loads(json.dumps(line)))


@contextmanager
def real_server(engines: Mapping[str, Any], drain_seconds: int = 2, **settings: Any) -> Iterator[Any]:
    """A server on a free port of the loopback address, in a thread: `.port`, `.log`, `.server`."""
    log = settings.setdefault("log", SilentLog())
    listener = bind_address("127.0.0.1", 0)
    server = make_server(server_app(engines, **settings), OpenAIProtocol, drain_seconds)
    listener.listen(512)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield RunningServer(listener.getsockname()[1], log, server)
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


class RunningServer:
    """A server that runs: its port, its log and uvicorn's object."""

    def __init__(self, port: int, log: SilentLog, server: Any) -> None:
        self.port, self.log, self.server = port, log, server

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"

    def connect(self, data: bytes = b"") -> socket.socket:
        """A connection that has sent some bytes."""
        return connect(self.port, data)
