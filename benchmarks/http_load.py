"""HTTP load: requests to a server of OpenAI's API over plain sockets, which cost the load generator little CPU."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

LIMIT = 2**22
"""Bytes of a line that are read at most."""


@dataclass(frozen=True)
class Call:
    """One request.

    Args:
        prompt: text to continue.
        max_tokens: tokens of the answer.
    """

    prompt: str
    max_tokens: int


@dataclass
class Answer:
    """What a server returned: its times in seconds from the moment at which the request was sent.

    Args:
        text: generated text.
        tokens: generated tokens, as the server counts them; else the pieces of text that it sent.
        prompt_tokens: tokens of the prompt, as the server counts them.
        times: when each piece arrived.
    """

    text: str = ""
    tokens: int = 0
    prompt_tokens: int = 0
    times: tuple[float, ...] = ()

    @property
    def first_token(self) -> float:
        """Time to the first token."""
        return self.times[0]

    @property
    def largest_gap(self) -> float:
        """The longest time between two pieces."""
        return max((b - a for a, b in zip(self.times, self.times[1:], strict=False)), default=0.0)


def draw_calls(
    text: str, count: int, words: tuple[int, int], tokens: tuple[int, int], rng: random.Random
) -> list[Call]:
    """Passages of a text as prompts; words of each are log-uniform, tokens of each answer uniform."""
    all_words = text.split()
    calls = []
    for _ in range(count):
        length = round(words[0] * (words[1] / words[0]) ** rng.random())
        start = rng.randrange(len(all_words) - length)
        calls.append(Call(" ".join(all_words[start : start + length]), rng.randint(*tokens)))
    return calls


class Client:
    """A connection that is kept open, to a server on this machine."""

    def __init__(self, port: int, model: str, options: dict[str, Any] | None = None) -> None:
        self.port, self.model, self.options = port, model, options or {}
        self.reader: asyncio.StreamReader | None = None
        self.writer: asyncio.StreamWriter | None = None

    async def complete(self, call: Call) -> Answer:
        """The answer to a request, streamed."""
        body = {
            "model": self.model,
            "prompt": call.prompt,
            "max_tokens": call.max_tokens,
            "temperature": 0,
            "stream": True,
            **self.options,
        }
        started, times, answer, pieces = time.perf_counter(), [], Answer(), []
        async for line in self.post("/v1/completions", json.dumps(body).encode()):
            if not line.startswith(b"data:") or line[5:].strip() == b"[DONE]":
                continue
            chunk = json.loads(line[5:])
            if "error" in chunk:
                raise RuntimeError(f"port {self.port} answered {chunk['error']}")
            if usage := chunk.get("usage"):
                answer.tokens, answer.prompt_tokens = usage["completion_tokens"], usage["prompt_tokens"]
            if chunk["choices"] and chunk["choices"][0].get("text"):
                pieces.append(chunk["choices"][0]["text"])
                times.append(time.perf_counter() - started)
        answer.text, answer.times = "".join(pieces), tuple(times or [time.perf_counter() - started])
        answer.tokens = answer.tokens or len(pieces)
        return answer

    async def post(self, path: str, body: bytes) -> AsyncIterator[bytes]:
        """The lines of the answer to a POST request."""
        if self.writer is None or self.writer.is_closing():
            self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port, limit=LIMIT)
        assert self.reader is not None
        head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\nContent-Type: application/json\r\n"
        self.writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        status = int((await self.reader.readline()).split()[1])
        headers = {}
        while (line := await self.reader.readline()).strip():
            name, _, value = line.decode("latin-1").partition(":")
            headers[name.lower()] = value.strip()
        if headers.get("transfer-encoding") != "chunked":
            data = await self.reader.readexactly(int(headers["content-length"]))
            if status != 200:
                raise RuntimeError(f"port {self.port} answered {status}: {data.decode()[:300]}")
            for line in data.split(b"\n"):
                yield line
            return
        rest = b""
        while size := int((await self.reader.readline()).split(b";")[0], 16):
            data = rest + (await self.reader.readexactly(size + 2))[:-2]
            *lines, rest = data.split(b"\n")
            for line in lines:
                yield line
        await self.reader.readline()
        if headers.get("connection") == "close":
            self.close()

    def close(self) -> None:
        """Close the connection."""
        if self.writer is not None:
            self.writer.close()
            self.writer = None


async def run_streams(clients: Sequence[Client], calls: Sequence[Call]) -> list[Answer]:
    """The answers to all requests; each client sends its next request when it has read the answer to the last."""
    waiting, answers = list(reversed(calls)), []

    async def stream(client: Client) -> None:
        while waiting:
            answers.append(await client.complete(waiting.pop()))

    await asyncio.gather(*(stream(client) for client in clients))
    for client in clients:  # servers close connections that are idle for a while
        client.close()
    return answers


def percentiles(values: Sequence[float]) -> dict[str, float]:
    """The median, the 90th percentile and the largest of some times, in milliseconds."""
    found = {"median": np.median(values), "p90": np.percentile(values, 90), "largest": max(values)}
    return {name: round(1e3 * float(value), 1) for name, value in found.items()}
