"""Speed of servers of OpenAI's API beside each other, each with one thread; prints one JSON object.

    python benchmarks/serving.py MODEL.gguf --servers clearstory transformers --streams 8 [--seconds 150] [--into FILE]
    python benchmarks/serving.py MODEL.gguf --servers clearstory --first-token [--seconds 150] [--into FILE]

All servers are started, warmed up, and asked in turn, round by round: as many streams at once, greedy, each prompt a
passage of the works of Shakespeare. Words of prompts are log-uniform between --words, tokens of answers uniform
between --tokens; each stream sends its next request when it has read the last answer, and every server of a round gets
the same requests. `tokens_per_cpu_second` counts generated tokens and all CPU seconds of the server's processes, those
of prompts and of HTTP included. `other_threads_share` is the CPU of all threads but the busiest, which computes the
model: HTTP, JSON and tokenization. CPU of this program is apart (`client_cpu_share`, of the server's).

--first-token measures times to the first token, in milliseconds of wall-clock time: of prompts of 2,000 tokens and of
short ones, alone and while --streams streams generate and prompts of 2,000 tokens arrive one after another.

transformers: `transformers serve --continuous-batching` (--transformers-path names a folder with fastapi and openai
where they are not installed). llama-cpp-python: its server, which answers one request after another. llama-server:
the server of llama.cpp itself (--llama-server FILE).
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from common import data_file, machine_info
from http_load import Answer, Call, Client, draw_calls, percentiles, run_streams

NAMES = (
    "clearstory",
    "clearstory-int8",
    "transformers",
    "llama-cpp-python-f32",
    "llama-cpp-python-q8_0",
    "llama-server-f32",
    "llama-server-q8_0",
)

LONG_WORDS = 1400
"""Words of Shakespeare in about 2,000 tokens of SmolLM2's tokenizer."""


def main() -> None:
    """Run the benchmark, print the results as JSON, and add them to a file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a .gguf file")
    parser.add_argument("--servers", nargs="+", choices=NAMES, default=["clearstory"])
    parser.add_argument("--streams", type=int, default=8)
    parser.add_argument(
        "--requests", type=int, default=None, help="of a round; default: as many as streams, at least 3"
    )
    parser.add_argument("--words", type=int, nargs=2, default=(12, 180))
    parser.add_argument("--tokens", type=int, nargs=2, default=(32, 96))
    parser.add_argument("--seconds", type=float, default=150, help="no round begins that would not end in this time")
    parser.add_argument("--first-token", action="store_true")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--models", type=Path, default=None, help="folder that keeps the converted models")
    parser.add_argument("--transformers-path", default="")
    parser.add_argument("--llama-python", default=None)
    parser.add_argument("--llama-server", default=None)
    parser.add_argument("--into", type=Path, default=None, help="a file of results, to which these are added")
    args = parser.parse_args()
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        args.models = args.models or Path(folder)
        servers: list[Server] = []
        try:
            servers = [Server.start(name, 18300 + i, args) for i, name in enumerate(args.servers)]
            for server in servers:
                server.wait()
            measure = measure_first_token if args.first_token else measure_speed
            result = asyncio.run(measure(servers, args, started))
        finally:
            for server in servers:
                server.stop()
    result = {"machine": machine_info(), "threads": args.threads, **result}
    print(json.dumps(result, indent=1))


def keep_result(result: dict[str, Any], args: argparse.Namespace) -> None:
    """Write the result so far to the file of results, in place of what this process wrote before."""
    if args.into is None:
        return
    runs = json.loads(args.into.read_text())["runs"] if args.into.exists() else []
    runs = [run for run in runs if run.get("process") != os.getpid()]
    runs.append({"process": os.getpid(), "machine": machine_info(), "threads": args.threads, **result})
    args.into.write_text(json.dumps({"runs": runs}, indent=1) + "\n")


@dataclass
class Server:
    """A server in a process of its own."""

    name: str
    port: int
    model: str
    process: subprocess.Popen[bytes]
    log: Any

    @classmethod
    def start(cls, name: str, port: int, args: argparse.Namespace) -> Server:
        """Start a server."""
        command, model = server_command(name, port, args)
        threads = str(args.threads)
        env = os.environ | {
            "OMP_NUM_THREADS": threads,
            "HF_HUB_OFFLINE": "1",
            "TOKENIZERS_PARALLELISM": "false",
        }
        if name == "transformers" and args.transformers_path:
            env["PYTHONPATH"] = args.transformers_path
        log = tempfile.TemporaryFile()  # noqa: SIM115  # closed by stop()
        process = subprocess.Popen(command, env=env, stdout=log, stderr=log)
        return cls(name, port, model, process, log)

    def wait(self) -> None:
        """Wait until it answers. Exits with the end of its log where it ends instead."""
        path = "v1/models" if self.name.startswith("llama-cpp-python") else "health"
        while True:
            if self.process.poll() is not None:
                self.log.seek(0)
                sys.exit(f"{self.name} ended with status {self.process.returncode}: {self.log.read()[-2000:].decode()}")
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/{path}", timeout=5):
                    return
            except OSError:
                time.sleep(0.25)

    def cpu_seconds(self) -> float:
        """CPU seconds of its processes so far."""
        processes = [psutil.Process(self.process.pid), *psutil.Process(self.process.pid).children(recursive=True)]
        return sum(sum(each.cpu_times()[:2]) for each in processes)

    def thread_seconds(self) -> dict[int, float]:
        """CPU seconds of each thread of its main process."""
        return {each.id: each.user_time + each.system_time for each in psutil.Process(self.process.pid).threads()}

    def memory_mb(self) -> int:
        """Resident memory of its processes."""
        processes = [psutil.Process(self.process.pid), *psutil.Process(self.process.pid).children(recursive=True)]
        return round(sum(each.memory_info().rss for each in processes) / 2**20)

    def clients(self, count: int) -> list[Client]:
        """As many connections to it."""
        options = {"stream_options": {"include_usage": True}}
        return [Client(self.port, self.model, {} if self.name == "transformers" else options) for _ in range(count)]

    def stop(self) -> None:
        """End it."""
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
        self.log.close()


def server_command(name: str, port: int, args: argparse.Namespace) -> tuple[list[str], str]:
    """The command that starts a server, and the name by which requests name its model."""
    threads, slots = str(args.threads), max(args.streams, 2)
    context = 2304 if args.first_token else 512
    if name.startswith("clearstory"):
        command = [sys.executable, "-m", "clearstory", "serve", str(converted("f32.gguf", args)), "--port", str(port)]
        precision = ["--int8"] if name.endswith("int8") else ["--precision", "fp32"]
        return [*command, "--threads", threads, *precision], "f32"
    if name == "transformers":
        # Its cache takes all of the memory unless it is told how many blocks to allocate.
        blocks = ["--cb-block-size", "256", "--cb-num-blocks", str(slots * context // 256 + 16)]
        start = "from transformers.cli.transformers import main; main()"
        options = ["--continuous-batching", "--device", "cpu", "--dtype", "float32", *blocks]
        folder = str(converted("hf", args))
        return [sys.executable, "-c", start, "serve", folder, *options, "--port", str(port)], folder
    file = str(converted(f"{name.rpartition('-')[2]}.gguf", args))
    if name.startswith("llama-cpp-python"):
        command = [args.llama_python, "-m", "llama_cpp.server", "--model", file, "--host", "127.0.0.1"]
        options = ["--n_ctx", str(context), "--n_threads", threads, "--n_threads_batch", threads, "--verbose", "False"]
        options += ["--interrupt_requests", "False"]  # else a request ends the one before it
        return [*command, "--port", str(port), *options], file
    command = [args.llama_server, "-m", file, "--host", "127.0.0.1", "--port", str(port), "--parallel", str(slots)]
    return [*command, "--ctx-size", str(slots * context), "--threads", threads, "--threads-batch", threads], file


def converted(name: str, args: argparse.Namespace) -> Path:
    """The model in another format, in the folder of converted models."""
    path: Path = args.models / name
    if path.exists():
        return path
    args.models.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "clearstory", "convert", args.model, str(path)]
    command += ["--to", "hf"] if name == "hf" else ["--dtype", path.stem]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return path


def passages() -> str:
    """The text that prompts are taken from."""
    return gzip.decompress(data_file("tinyshakespeare/input.txt.gz").read_bytes()).decode()


async def measure_speed(servers: Sequence[Server], args: argparse.Namespace, started: float) -> dict[str, Any]:
    """Tokens per CPU second of each server, and their ratios to the first, of rounds in turn."""
    text, rng = passages(), random.Random(args.seed)
    count = args.requests or max(args.streams, 3)
    clients = {server.name: server.clients(args.streams) for server in servers}
    for server in servers:  # memory is allocated and kernels are chosen before anything is measured
        await run_streams(clients[server.name], draw_calls(text, args.streams, (12, 40), (4, 4), rng))
    rounds: list[dict[str, dict[str, float]]] = []
    result: dict[str, Any] = {}
    longest = 0.0
    while not rounds or time.perf_counter() - started + longest < args.seconds:
        began = time.perf_counter()
        calls = draw_calls(text, count, tuple(args.words), tuple(args.tokens), rng)
        order = servers if len(rounds) % 2 == 0 else list(reversed(servers))
        rounds.append({each.name: await measure_round(each, clients[each.name], calls) for each in order})
        longest = max(longest, time.perf_counter() - began)
        print(rounds[-1], file=sys.stderr, flush=True)
        result = speed_summary(servers, args, rounds)
        keep_result(result, args)
    return result


def speed_summary(
    servers: Sequence[Server], args: argparse.Namespace, rounds: Sequence[Mapping[str, Mapping[str, float]]]
) -> dict[str, Any]:
    """Medians over rounds, and of the ratios in each round."""
    first = servers[0].name
    return {
        "streams": args.streams,
        "requests_per_round": args.requests or max(args.streams, 3),
        "prompt_words": list(args.words),
        "max_tokens": list(args.tokens),
        "rounds": len(rounds),
        "servers": {
            server.name: {
                **{key: median_of(each[server.name][key] for each in rounds) for key in rounds[0][server.name]},
                "memory_mb": server.memory_mb(),
            }
            for server in servers
        },
        "times_as_fast": {
            f"{first} / {other.name}": median_of(
                each[first]["tokens_per_cpu_second"] / each[other.name]["tokens_per_cpu_second"] for each in rounds
            )
            for other in servers[1:]
        },
    }


async def measure_round(server: Server, clients: Sequence[Client], calls: Sequence[Call]) -> dict[str, float]:
    """Tokens and CPU seconds of one server in one round."""
    cpu, threads, own, started = server.cpu_seconds(), server.thread_seconds(), time.process_time(), time.perf_counter()
    answers = await run_streams(clients, calls)
    seconds, own = time.perf_counter() - started, time.process_time() - own
    cpu = server.cpu_seconds() - cpu
    by_thread = [value - threads.get(id, 0.0) for id, value in server.thread_seconds().items()]
    tokens = sum(each.tokens for each in answers)
    return {
        "tokens_per_cpu_second": round(tokens / cpu, 1),
        "tokens_per_second": round(tokens / seconds, 1),
        "tokens": tokens,
        "prompt_tokens": sum(each.prompt_tokens for each in answers),
        "cpu_seconds": round(cpu, 2),
        "other_threads_share": round(1 - max(by_thread) / cpu, 4),
        "client_cpu_share": round(own / cpu, 4),
        "first_token_milliseconds": round(1e3 * statistics.median(each.first_token for each in answers), 1),
    }


def median_of(values: Any) -> float:
    """The median, to four digits after the point."""
    return round(statistics.median(values), 4)


async def measure_first_token(servers: Sequence[Server], args: argparse.Namespace, started: float) -> dict[str, Any]:
    """Times to the first token of each server, alone and under load, of rounds in turn."""
    text, rng = passages(), random.Random(args.seed)
    times: dict[str, dict[str, list[float]]] = {server.name: {} for server in servers}
    longest, rounds = 0.0, 0
    for server in servers:
        await run_streams(server.clients(args.streams), draw_calls(text, args.streams, (12, 40), (4, 4), rng))
    while not rounds or time.perf_counter() - started + longest < args.seconds:
        began = time.perf_counter()
        for server in servers:
            for key, values in (await first_token_round(server, text, args.streams, rng)).items():
                times[server.name].setdefault(key, []).extend(values)
        longest, rounds = max(longest, time.perf_counter() - began), rounds + 1
    result = {
        "first_token": {
            name: {key: percentiles(values) for key, values in each.items()} for name, each in times.items()
        },
        "streams": args.streams,
        "rounds": rounds,
    }
    keep_result(result, args)
    return result


async def first_token_round(server: Server, text: str, streams: int, rng: random.Random) -> dict[str, list[float]]:
    """Times to the first token of long and of short prompts alone, then while others generate and long ones arrive."""
    client, other = server.clients(2)

    def call(words: int, tokens: int) -> Call:
        return draw_calls(text, 1, (words, words), (tokens, tokens), rng)[0]

    long_alone = await client.complete(call(LONG_WORDS, 2))
    short_alone = [await client.complete(call(24, 2)) for _ in range(3)]
    background = [asyncio.create_task(each.complete(call(24, 400))) for each in server.clients(streams)]
    await asyncio.sleep(1)

    async def arrivals() -> list[Answer]:
        return [await client.complete(call(LONG_WORDS, 2)) for _ in range(2)]

    arriving = asyncio.create_task(arrivals())
    short_loaded = []
    while not arriving.done():
        await asyncio.sleep(0.3)
        short_loaded.append(await other.complete(call(24, 2)))
    long_loaded = await arriving
    for each in background:
        each.cancel()
    await asyncio.gather(*background, return_exceptions=True)
    await asyncio.sleep(0.5)
    return {
        "long_prompt_alone": [long_alone.first_token],
        "long_prompt_loaded": [each.first_token for each in long_loaded],
        "short_prompt_alone": [each.first_token for each in short_alone],
        "short_prompt_loaded": [each.first_token for each in short_loaded],
    }


if __name__ == "__main__":
    main()
