"""Client of servers with OpenAI's API: lists models and streams answers, using only the standard library."""

from __future__ import annotations

import http.client
import json
import re
import socket
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import SplitResult, urlsplit

from clearstory.durable.paths import expand_home
from clearstory.errors import BadInput, BadSetting, RemoteServerError

TIMEOUT = 600.0
"""Maximum time in seconds without data from the server, which may have to process a long conversation."""

MAX_ERROR, MAX_LINE = 300, 2**22
"""Characters of a server's error message that are shown, and bytes of one line that are read."""


@dataclass(frozen=True)
class ChatClient:
    """A server with OpenAI's API.

    Args:
        url: its address, such as http://127.0.0.1:8000/v1.
        key: the API key that requests carry; None for none. It is never shown.
        timeout: maximum time in seconds without data from the server.
    """

    url: str
    key: str | None = field(default=None, repr=False)
    timeout: float = TIMEOUT

    def __post_init__(self) -> None:
        assert self.parts

    @property
    def parts(self) -> SplitResult:
        """The parts of the address. Raises BadSetting for one that is not a valid HTTP address."""
        try:
            parts = urlsplit(self.url)
            valid = (
                parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
            )
        except ValueError:
            valid = False
        if not valid or not re.fullmatch(r"[!-~]+", self.url):
            raise BadSetting(f"--url is {self.url[:80]!r}; use an address such as http://127.0.0.1:8000/v1")
        if parts.username is not None or parts.query or parts.fragment:
            raise BadSetting("--url has a user name or a query after '?'; use only the address, and --api-key-file")
        return parts

    def models(self) -> list[Mapping[str, Any]]:
        """The models that the server lists, each with its `id`."""
        response, opened = self.request("GET", "/models")
        with opened, response:
            try:
                found = json.loads(response.read(MAX_LINE))["data"]
                return [each for each in found if isinstance(each["id"], str)]
            except (ValueError, TypeError, KeyError):
                raise RemoteServerError(f"{self.url}/models does not return a list of models; check --url") from None

    def stream(self, body: Mapping[str, Any]) -> ServerEvents:
        """The events of a streamed answer."""
        return ServerEvents(self, *self.request("POST", "/chat/completions", body))

    def request(
        self, method: str, path: str, body: Mapping[str, Any] | None = None
    ) -> tuple[http.client.HTTPResponse, socket.socket]:
        """The response to a request, and its socket. Raises RemoteServerError for a status other than 200."""
        parts = self.parts
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        assert parts.hostname is not None
        connection = kind(parts.hostname, parts.port, timeout=self.timeout)
        headers = {"Accept": "application/json, text/event-stream", "Connection": "close"}
        if self.key is not None:
            headers["Authorization"] = f"Bearer {self.key}"
        data = None if body is None else json.dumps(body).encode()
        if data is not None:
            headers["Content-Type"] = "application/json"
        try:
            connection.request(method, parts.path.rstrip("/") + path, data, headers)
            opened: socket.socket = connection.sock
            response = connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            self.fail(error)
        if response.status != 200:
            with opened, response:
                raise RemoteServerError(self.refusal(response, path))
        return response, opened

    def fail(self, error: Exception) -> NoReturn:
        """Raise RemoteServerError for a connection that failed."""
        if isinstance(error, TimeoutError):
            raise RemoteServerError(f"{self.url} has sent nothing for {self.timeout:g} seconds; retry") from None
        if isinstance(error, http.client.HTTPException):
            reason = "the server's answer is not HTTP" if not isinstance(error, http.client.RemoteDisconnected) else ""
        else:
            reason = getattr(error, "strerror", None) or str(error)
        reason = reason or "the server closed the connection"
        raise RemoteServerError(
            f"no server with OpenAI's API responds at {self.url} ({reason.lower()}); start one with clearstory serve "
            "MODEL, or check --url"
        ) from None

    def refusal(self, response: http.client.HTTPResponse, path: str) -> str:
        """A sentence on a response other than 200, with the server's own message."""
        with suppress(OSError, http.client.HTTPException):
            message = error_message(response.read(2**16))
            if response.status == 401:
                way_out = "check the key of --api-key-file" if self.key else "set --api-key-file FILE"
                return f"{self.url} requires an API key ({message}); {way_out}"
            if response.status in (404, 405) and not message:
                return f"{self.url}{path} does not exist; addresses usually end in /v1"
            if wait := response.getheader("Retry-After"):
                message = f"{message}; retry in {wait[:20]} seconds"
            return f"{self.url} returned status {response.status}: {message or response.reason or 'no reason given'}"
        return f"{self.url} returned status {response.status}"


def error_message(body: bytes) -> str:
    """The message of an error in OpenAI's form, else the body as it is; on one line, shortened."""
    text = body.decode(errors="replace")
    with suppress(ValueError):
        value = json.loads(text)
        for name in ("error", "message", "detail"):
            value = value.get(name, value) if isinstance(value, dict) else value
        text = value if isinstance(value, str) else text
    if text.lstrip().startswith("<"):  # a page
        return ""
    return printable(" ".join(text.split()))[:MAX_ERROR]


def printable(text: str) -> str:
    """The text without control characters, which could change a terminal; tabs and line breaks stay."""
    return re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", "", text)


class ServerEvents:
    """The events of a streamed answer: JSON objects until the server ends the stream.

    Args:
        client: the server.
        response: its response.
        connection: the socket from which the response is read.
    """

    def __init__(self, client: ChatClient, response: http.client.HTTPResponse, connection: socket.socket) -> None:
        self.client, self.response, self.connection = client, response, connection
        self.cancelled = False

    def cancel(self) -> None:
        """Close the connection, so that the server ends the answer and reading it ends at once."""
        self.cancelled = True
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Raises RemoteServerError for an error in the stream, and if the stream ends before the answer."""
        with self.connection, self.response:
            try:
                while line := self.response.readline(MAX_LINE):
                    data = line.removeprefix(b"data:").strip()
                    if data == b"[DONE]":
                        return
                    if data and line.startswith(b"data:"):
                        yield self.parse(data)
            except TimeoutError as error:
                self.client.fail(error)
            except (OSError, http.client.HTTPException):  # the same as its end
                pass
        if not self.cancelled:
            raise RemoteServerError(f"{self.client.url} closed the connection before the end of its answer")

    def parse(self, data: bytes) -> dict[str, Any]:
        """One event."""
        try:
            event = json.loads(data)
        except ValueError:
            event = None
        if not isinstance(event, dict):
            raise RemoteServerError(f"{self.client.url} sent an event that is not a JSON object")
        if event.get("error"):
            raise RemoteServerError(f"{self.client.url} stopped its answer with an error: {error_message(data)}")
        return event


def read_key(file: str | Path) -> str:
    """The API key in a file: its only line. Raises BadInput for a file without a key."""
    path = expand_home(file)
    try:
        lines = path.read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError) as error:
        reason = "is not text" if isinstance(error, UnicodeDecodeError) else (error.strerror or "failed").lower()
        raise BadInput(f"{path} cannot be read ({reason}); use a file with an API key") from None
    if len(lines) != 1 or not re.fullmatch("[!-~]+", lines[0]):
        raise BadInput(f"{path} has {len(lines)} words; use a file with an API key on its only line")
    return lines[0]
