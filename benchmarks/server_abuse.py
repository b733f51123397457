"""The server under odd clients: 64 at once that stream, leave, stall, send half requests, odd values and large prompts.

    python benchmarks/server_abuse.py --seconds 600

The server is a process of its own over a small model of random weights (or --model). Measured: statuses of all
responses, the times of GET /health meanwhile, and file descriptors, threads and memory of the process after a quarter
of the time and at the end, when all clients are gone. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "server"))

from common import machine_info
from odd_values import odd_bodies

from clearstory.server.app import ROUTES

TEMPLATE = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant: "
HEAD = "POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nConnection: close\r\n"
LIMIT = 45.0
"""Seconds after which a connection of a client that waits for the server counts as stuck."""


@dataclass
class Observed:
    """What the clients have seen.

    Args:
        statuses: responses by kind of client and status.
        wrong: what must not happen.
        health: times of GET /health in seconds.
    """

    statuses: Counter[str] = field(default_factory=Counter)
    wrong: Counter[str] = field(default_factory=Counter)
    health: list[float] = field(default_factory=list)

    def status(self, kind: str, head: bytes) -> int:
        """Count the status of a response."""
        found = int(head.split(b" ", 2)[1]) if head.startswith(b"HTTP/1.1 ") else 0
        self.statuses[f"{kind} {found or 'closed'}"] += 1
        if found >= 500 and found != 503:
            self.wrong[f"{kind} {found}"] += 1
        return found


@dataclass
class Client:
    """Makes requests of all kinds to a server.

    Args:
        port: its port.
        model: the name of its model.
        seen: what is observed.
        rng: chooses.
        odd: bodies with odd values, with their paths.
    """

    port: int
    model: str
    seen: Observed
    rng: random.Random
    odd: list[tuple[str, bytes]]

    async def connect(self, data: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection that has sent some bytes."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=2**22)
        writer.write(data)
        return reader, writer

    def post(self, path: str, body: bytes) -> bytes:
        """A request as it is sent."""
        return HEAD.format(path=path).encode() + f"Content-Length: {len(body)}\r\n\r\n".encode() + body

    def text(self, **fields: Any) -> bytes:
        """A request for a text."""
        body = {"model": self.model, "prompt": "Once upon a time", "ignore_eos": True, **fields}
        return self.post("/v1/completions", json.dumps(body).encode())

    async def whole(self, kind: str, data: bytes) -> bytes:
        """A response read to its end."""
        reader, writer = await self.connect(data)
        try:
            answer = await asyncio.wait_for(reader.read(-1), LIMIT)
        finally:
            writer.close()
        status = self.seen.status(kind, answer)
        if status >= 400 and b'"error"' not in answer:
            self.seen.wrong[f"{kind}: an error that is not in OpenAI's form"] += 1
        return answer

    async def stream(self) -> None:
        """A stream that is read to its end."""
        answer = await self.whole("stream", self.text(stream=True, max_tokens=self.rng.randint(5, 60)))
        if b" 200 OK" in answer[:20] and b"data: [DONE]" not in answer:
            self.seen.wrong["a stream without its end"] += 1

    async def leave(self) -> None:
        """A stream whose client goes away in its middle."""
        reader, writer = await self.connect(self.text(stream=True, max_tokens=10_000, truncate="left"))
        head = await asyncio.wait_for(reader.read(200), LIMIT)
        self.seen.status("leaver", head)
        await asyncio.sleep(self.rng.random())
        writer.transport.abort()

    async def stall(self) -> None:
        """A stream that is read at one byte a second."""
        reader, writer = await self.connect(self.text(stream=True, max_tokens=60))
        head = await asyncio.wait_for(reader.read(12), LIMIT)
        self.seen.status("slow reader", head)
        for _ in range(self.rng.randint(2, 15)):
            await asyncio.sleep(1)
            await asyncio.wait_for(reader.read(1), LIMIT)
        writer.close()

    async def large(self) -> None:
        """A prompt of a megabyte, and now and then a request that is too large."""
        size = 2**20 if self.rng.random() < 0.8 else 6 * 2**20
        try:
            await self.whole(f"{size // 2**20} MiB", self.text(prompt="word " * (size // 5), max_tokens=1))
        except ConnectionError:
            self.seen.statuses[f"{size // 2**20} MiB closed"] += 1  # the server need not read the rest

    async def odd_value(self) -> None:
        """A request with one odd value."""
        path, body = self.rng.choice(self.odd)
        await self.whole("odd value", self.post(path, body))

    async def malformed(self) -> None:
        """What is no JSON, no UTF-8, or no HTTP."""
        body = self.rng.choice([b"{", b"\xff\xfe", b"[" * 10_000, b'{"model": NaN}', self.rng.randbytes(300)])
        data = self.post("/v1/completions", body) if self.rng.random() < 0.8 else self.rng.randbytes(200) + b"\r\n\r\n"
        await self.whole("malformed", data)

    async def half(self) -> None:
        """A request that never ends: a byte every second."""
        data = self.text(max_tokens=1)
        reader, writer = await self.connect(data[: self.rng.randint(0, len(data) - 1)])
        started = time.monotonic()
        read = asyncio.ensure_future(reader.read(-1))
        while not read.done() and time.monotonic() - started < LIMIT:
            await asyncio.wait((read,), timeout=1)
            if not read.done():
                writer.write(b"a" if self.rng.random() < 0.5 else b"")
        writer.close()
        if not read.done():
            read.cancel()
            self.seen.wrong["a half-sent request that was not closed"] += 1
            return
        if time.monotonic() - started > 30:
            self.seen.wrong["a half-sent request that was closed after more than 30 s"] += 1
        self.seen.status("half-sent", b"" if read.exception() else read.result())

    async def vectors(self) -> None:
        """Texts as vectors."""
        body = json.dumps({"model": self.model, "input": ["a text"] * self.rng.randint(1, 8)}).encode()
        await self.whole("embeddings", self.post("/v1/embeddings", body))

    async def run(self, until: float) -> None:
        """Make requests until the time is over."""
        kinds: list[Callable[[], Awaitable[None]]] = [
            *(self.stream,) * 4, self.leave, self.leave, self.stall, self.large, self.odd_value, self.odd_value,
            self.malformed, self.half, self.vectors,
        ]  # fmt: skip
        while time.monotonic() < until:
            kind = self.rng.choice(kinds)
            try:
                await kind()
            except (ConnectionError, OSError):
                self.seen.statuses[f"{kind.__name__} reset"] += 1
            except TimeoutError:
                self.seen.wrong[f"{kind.__name__}: no answer in {LIMIT:.0f} s"] += 1


async def watch_health(port: int, seen: Observed, until: float) -> None:
    """Measure GET /health four times a second, each over a connection of its own."""
    while time.monotonic() < until:
        started = time.perf_counter()
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
            answer = await reader.read(-1)
            writer.close()
            if not answer.startswith(b"HTTP/1.1 200 "):
                seen.wrong["health not 200"] += 1
        except OSError:
            seen.wrong["health without an answer"] += 1
        seen.health.append(time.perf_counter() - started)
        await asyncio.sleep(0.25)


def resources(pid: int) -> dict[str, int]:
    """File descriptors, threads and resident memory of a process."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return {
        "file_descriptors": len(list(Path(f"/proc/{pid}/fd").iterdir())),
        "threads": int(status["Threads"]),
        "memory_mib": int(status["VmRSS"].split()[0]) // 1024,
    }


async def abuse(port: int, pid: int, model: str, seconds: float, streams: int, seed: int) -> dict[str, Any]:
    """Run all clients and return what was observed."""
    seen = Observed()
    valid: dict[str, dict[str, Any]] = {
        "/v1/chat/completions": {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2},
        "/v1/completions": {"prompt": "Hi", "max_tokens": 2, "logprobs": 1},
        "/v1/embeddings": {"input": "Hi"},
        "/tokenize": {"prompt": "Hi"},
    }
    odd = [
        (route.path, body)
        for route in ROUTES
        if route.fields is not None and route.path in valid
        for _, body in odd_bodies(route.fields, {"model": model, **valid[route.path]}, long=2**16)
    ]
    results: dict[str, Any] = {"start": resources(pid)}

    async def period(length: float, first: int) -> dict[str, int]:
        """All clients for some time; the resources once they are gone and idle connections are closed."""
        until = time.monotonic() + length
        clients = [Client(port, model, seen, random.Random(seed + first + number), odd) for number in range(streams)]
        await asyncio.gather(watch_health(port, seen, until), *(client.run(until) for client in clients))
        await asyncio.sleep(12)
        return resources(pid)

    results["after_warm_up"] = await period(seconds / 4, 0)
    results["end"] = await period(seconds * 3 / 4, streams)
    before, after = results["after_warm_up"]["memory_mib"], results["end"]["memory_mib"]
    health = sorted(seen.health)
    return {
        **results,
        "memory_growth": round(after / before - 1, 4),
        "responses": sum(seen.statuses.values()),
        "statuses": dict(sorted(seen.statuses.items())),
        "wrong": dict(seen.wrong),
        "health_ms": {
            "requests": len(health),
            "median": round(1000 * median(health), 1),
            "p99": round(1000 * health[int(0.99 * (len(health) - 1))], 1),
            "max": round(1000 * health[-1], 1),
        },
    }


def make_model(folder: Path) -> Path:
    """A small chat model of random weights."""
    from clearstory.formats.folders import save_model
    from clearstory.formats.model_card import ModelCard
    from clearstory.models.build import build
    from clearstory.models.families import PRESETS
    from clearstory.text.train_tokenizer import train_tokenizer

    tokenizer = train_tokenizer("bytes", [])
    tokenizer = replace(tokenizer, config={**tokenizer.config, "chat_template": TEMPLATE})
    config = replace(PRESETS["nanogpt-char"], vocab=tokenizer.vocab, context=512)
    model = build(config, seed=1)
    save_model(folder, model, tokenizer, ModelCard(name="small", family="transformer", parameters=0))
    return folder


def main() -> None:
    """Start a server, run the clients, and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--streams", type=int, default=64)
    parser.add_argument("--model", help="a model folder in place of a small one of random weights")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        model = given.model or make_model(Path(home) / "small")
        with (Path(home) / "log").open("w") as log:
            server = subprocess.Popen(
                [sys.executable, "-m", "clearstory", "serve", f"small={model}", "--port", "0", "--json",
                 "--threads", "1", "--max-running", "64", "--drain-seconds", "5"],
                stdout=subprocess.PIPE, stderr=log, text=True,
            )  # fmt: skip
            try:
                assert server.stdout is not None
                told = json.loads(server.stdout.readline())
                result = asyncio.run(abuse(told["port"], server.pid, "small", given.seconds, given.streams, given.seed))
            finally:
                server.terminate()
                stopped = time.monotonic()
                try:
                    server.wait(60)
                except subprocess.TimeoutExpired:
                    server.kill()
                    server.wait()
                stopped = time.monotonic() - stopped
        lines = [json.loads(line) for line in (Path(home) / "log").read_text().splitlines() if line.startswith("{")]
        result["tracebacks_in_log"] = (Path(home) / "log").read_text().count("Traceback")
        result["logged_requests"] = len(lines)
        result["exit_status"], result["seconds_to_exit"] = server.returncode, round(stopped, 1)
    print(json.dumps({"seconds": given.seconds, "streams": given.streams, **result, "machine": machine_info()}))


if __name__ == "__main__":
    main()
