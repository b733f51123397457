"""Chat with a server: answers arrive piece by piece, and every fault of a server is one sentence."""

from __future__ import annotations

import io
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

import clearstory
from clearstory.cli.chat_terminal import ChatTerminal
from clearstory.cli.command import Output
from clearstory.errors import BadInput, BadSetting, ClearstoryError, RemoteServerError

Cli = Callable[..., Any]
Reply = Callable[["Handler", Mapping[str, Any]], None]


class Handler(BaseHTTPRequestHandler):
    """Answers as the test says."""

    protocol_version = "HTTP/1.1"
    models: tuple[dict[str, Any], ...] = ({"id": "parrot", "max_model_len": 64},)
    reply: Reply
    bodies: list[Mapping[str, Any]]
    keys: list[str | None]

    def log_message(self, *args: object) -> None:
        """Nothing is printed."""

    def do_GET(self) -> None:
        """The list of models."""
        self.keys.append(self.headers.get("Authorization"))
        self.send_json(200, {"object": "list", "data": list(self.models)})

    def do_POST(self) -> None:
        """An answer."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.bodies.append(body)
        type(self).reply(self, body)

    def send_json(self, status: int, value: Any, **headers: str) -> None:
        """A whole JSON value."""
        data = json.dumps(value).encode() if not isinstance(value, bytes) else value
        self.send_response(status)
        for name, text in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(name.replace("_", "-"), text)
        self.end_headers()
        self.wfile.write(data)

    def begin(self) -> None:
        """The head of a stream in chunks."""
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def send_event(self, data: str) -> None:
        """One event; of an empty text, the end of the stream."""
        text = f"data: {data}\n\n".encode() if data else b""
        self.wfile.write(f"{len(text):x}\r\n".encode() + text + b"\r\n")
        self.wfile.flush()


def delta(text: str | None, finish: str | None = None) -> str:
    """A chunk of OpenAI's API."""
    return json.dumps({"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": finish}]})


def parrot(handler: Handler, body: Mapping[str, Any]) -> None:
    """The last message in pieces of one character."""
    handler.begin()
    said = body["messages"][-1]["content"]
    for letter in said:
        handler.send_event(delta(letter))
    handler.send_event(delta(None, "stop"))
    usage = {"prompt_tokens": 12, "completion_tokens": len(said) + 1, "prompt_tokens_details": {"cached_tokens": 5}}
    handler.send_event(json.dumps({"choices": [], "usage": usage}))
    handler.send_event("[DONE]")
    handler.send_event("")


@contextmanager
def server(reply: Reply = parrot, **attributes: Any) -> Iterator[tuple[str, Any]]:
    """A server that answers so; its address and its handler, which keeps the requests."""
    handler = type("Answering", (Handler,), {"reply": reply, "bodies": [], "keys": [], **attributes})
    running = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    running.daemon_threads = True
    thread = threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{running.server_port}/v1", handler
    finally:
        running.shutdown()
        running.server_close()
        thread.join()


def test_a_conversation_is_sent_whole_and_answered_in_pieces(tmp_path: Path) -> None:
    with server() as (url, handler):
        session = clearstory.chat(url=url, system="Be brief.", temperature=0, seed=3, stop=("#",))
        *pieces, answer = session.send("ahoy")
        assert [each.text for each in pieces] == list("ahoy") == [*answer.text]  # type: ignore[union-attr]
        assert (answer.finished, answer.generated_tokens, answer.prompt_tokens, answer.read_tokens) == (
            "stop",
            5,
            12,
            7,
        )  # type: ignore[union-attr]
        assert session.ask("again").text == "again"
        list(session.retry())
        list(session.edit("other"))
        session.set("max_tokens", "9")
        assert session.undo() == "other"
        session.ask("last")
        session.save(tmp_path / "chat.json")
        loaded = clearstory.chat("parrot", url=url, load=tmp_path / "chat.json")
    assert loaded.messages == session.messages
    assert session.stats()["context"] == 64
    first, last = handler.bodies[0], handler.bodies[-1]
    assert first == {
        "model": "parrot",
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "ahoy"}],
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": 0,
        "stop": ["#"],
        "seed": 3,
    }
    assert [each["content"] for each in last["messages"]] == ["Be brief.", "ahoy", "ahoy", "last"]
    assert (last["max_tokens"], last["seed"]) == (9, 7)  # four answers before it, of which two were taken back


def test_the_key_of_a_file_is_sent_and_never_shown(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("sk-secret\n")
    (tmp_path / "two").write_text("sk one")
    with server() as (url, handler):
        session = clearstory.chat(url=url, api_key_file=tmp_path / "key")
        assert handler.keys == ["Bearer sk-secret"]
        assert "secret" not in repr(session.partner)
        for name, message in {"two": "has 2 words", "none": "no such file"}.items():
            with pytest.raises(BadInput, match=message):
                clearstory.chat(url=url, api_key_file=tmp_path / name)


def test_the_model_is_named_where_a_server_has_several() -> None:
    with server(models=({"id": "one"}, {"id": "two"})) as (url, handler):
        with pytest.raises(BadSetting, match=r"has 2 models \(one, two\); choose one"):
            clearstory.chat(url=url)
        clearstory.chat("two", url=url).ask("a")
    assert handler.bodies[0]["model"] == "two"


def refuse(status: int, value: Any, **headers: str) -> Reply:
    """A server that refuses."""
    return lambda handler, body: handler.send_json(status, value, **headers)


def stop_in_the_middle(handler: Handler, body: Mapping[str, Any]) -> None:
    """Two pieces, and the connection is closed."""
    handler.begin()
    handler.send_event(delta("half"))
    handler.connection.shutdown(socket.SHUT_RDWR)


def fail_in_the_middle(handler: Handler, body: Mapping[str, Any]) -> None:
    """A piece and an error."""
    handler.begin()
    handler.send_event(delta("ha\x1b[2Jlf"))
    handler.send_event(json.dumps({"error": {"message": "the server is shutting down"}}))
    handler.send_event("")


def not_json(handler: Handler, body: Mapping[str, Any]) -> None:
    """An event that is no JSON."""
    handler.begin()
    handler.send_event("{nothing")
    handler.send_event("")


ERROR = {"error": {"message": "max_tokens is 0; it must be at least 1", "type": "invalid_request_error"}}


@pytest.mark.parametrize(
    ("reply", "message", "kept"),
    [
        (refuse(400, ERROR), r"returned status 400: max_tokens is 0; it must be at least 1$", 0),
        (refuse(401, {"error": {"message": "no key"}}), r"requires an API key \(no key\); set --api-key-file", 0),
        (refuse(404, b"<html>"), r"/v1/chat/completions does not exist; addresses usually end in /v1", 0),
        (refuse(503, {"detail": "full"}, Retry_After="2"), r"returned status 503: full; retry in 2 seconds", 0),
        (refuse(500, b""), r"returned status 500: Internal Server Error", 0),
        (stop_in_the_middle, r"closed the connection before the end.*the text so far is kept", 2),
        (fail_in_the_middle, r"its answer with an error: the server is shutting down; the text so far is kept", 2),
        (not_json, r"sent an event that is not a JSON object$", 0),
    ],
)
def test_a_fault_of_the_server_is_one_sentence(reply: Reply, message: str, kept: int) -> None:
    with server(reply) as (url, _):
        session = clearstory.chat(url=url)
        with pytest.raises(RemoteServerError, match=message):
            session.ask("a")
    assert len(session.messages) == kept


def test_a_server_that_is_not_there_or_speaks_otherwise_is_one_sentence(cli: Cli) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(
        RemoteServerError, match=r"no server .* \(connection refused\); start one with clearstory serve"
    ):
        clearstory.chat(url=f"http://127.0.0.1:{port}/v1")
    for url in ("127.0.0.1:8000", "ftp://a/v1", "http://", "http://a:99999/", "http://a b/", "http://u:p@h/v1"):
        with pytest.raises(BadSetting, match="--url"):
            clearstory.chat(url=url)
    wrong: dict[str, tuple[str, ...]] = {
        "no model is given": (),
        "api_key_file is given without url": ("model", "--api-key-file", "key"),
        "int8 is for a model that is opened here": ("--url", "http://a/v1", "--int8"),
    }
    for message, words in wrong.items():
        result = cli("chat", *words)
        assert result.status
        assert message in result.err


def test_an_answer_can_be_interrupted_while_the_server_is_silent() -> None:
    waiting, gone = threading.Event(), threading.Event()

    def silent(handler: Handler, body: Mapping[str, Any]) -> None:
        handler.begin()
        handler.send_event(delta("so"))
        waiting.set()
        handler.connection.settimeout(20)
        if handler.rfile.read(1) == b"":  # the client has closed
            gone.set()
        handler.close_connection = True

    with server(silent) as (url, _):
        session = clearstory.chat(url=url)
        threading.Thread(target=lambda: (waiting.wait(20), time.sleep(0.05), session.interrupt()), daemon=True).start()
        answer = session.ask("a")
        assert (answer.text, answer.finished) == ("so", "interrupted")
        assert gone.wait(20)
    assert len(session.messages) == 2


def test_the_terminal_and_the_command_line_speak_to_a_server(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with server() as (url, handler):
        output = Output(json=False)
        lines = iter(["ahoy\x1b[2J", "/set max_tokens 4", "/set", "/stats", "/exit"])
        session = clearstory.chat(url=url)
        ChatTerminal(session, output, lambda prompt: next(lines)).run()
        assert session.messages[1]["content"] == "ahoy\x1b[2J"  # kept as it was sent, and not shown so
        monkeypatch.setattr("sys.stdin", io.StringIO("one\ntwo\n"))
        assert "\x1b" not in capsys.readouterr().out
        said = json.loads(cli("chat", "--url", url, "--model", "parrot", "--max-tokens", "5", "--json").out)
    assert [each["text"] for each in said["answers"]] == ["one", "two"]
    assert said["url"] == url
    assert handler.bodies[-1]["max_tokens"] == 5


def test_a_server_cannot_change_what_is_no_answer() -> None:
    odd = ['{"choices": null}', '{"choices": [7]}', '{"choices": [{"delta": {"content": 7}}]}', "{}", '{"usage": 3}']

    def reply(handler: Handler, body: Mapping[str, Any]) -> None:
        handler.begin()
        for event in [*odd, delta("a"), delta("", "length"), "[DONE]"]:
            handler.send_event(event)
        handler.send_event("")

    with server(reply) as (url, _):
        answer = clearstory.chat(url=url, max_tokens=1).ask("x")
    assert (answer.text, answer.finished, answer.generated_tokens) == ("a", "length", 1)


def test_models_that_are_no_list_are_refused() -> None:
    with server(do_GET=lambda handler: handler.send_json(200, [1])) as (url, _), pytest.raises(ClearstoryError):
        clearstory.chat(url=url)
