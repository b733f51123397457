"""Structured output and tools over HTTP, whole and streamed; what is wrong is a 400 that names its place."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from served import client_of, real_server
from starlette.testclient import TestClient

from clearstory.formats.folders import save_model
from clearstory.formats.model_card import ModelCard
from clearstory.models.build import build
from clearstory.serving.engine_thread import EngineLimits, EngineThread
from clearstory.serving.served_model import ServedModel
from serving.tool_templates import AS_TEXT, HERMES, LLAMA, TAGGED, tool_tokenizer
from tiny import TINY_CLEAR

POINT = {
    "type": "object",
    "properties": {"x": {"type": "integer", "minimum": 0, "maximum": 9}, "label": {"enum": ["a", "b"]}},
    "required": ["x", "label"],
    "additionalProperties": False,
}
TOOLS = [{"type": "function", "function": {"name": "plot", "description": "Draws.", "parameters": POINT}}]
MESSAGES = [{"role": "user", "content": "?"}]


@pytest.fixture(scope="module")
def tool_engines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, EngineThread]]:
    engines = {}
    for name, template in {"tools": HERMES, "llama": LLAMA, "text": AS_TEXT, "tagged": TAGGED}.items():
        folder = tmp_path_factory.mktemp("served") / name
        tokenizer = tool_tokenizer(template)
        model = build(replace(TINY_CLEAR, vocab=tokenizer.vocab, context=1024), seed=3)
        save_model(folder, model, tokenizer, ModelCard(name=name, family="transformer", parameters=0))
        engines[name] = EngineThread(ServedModel.open(folder, precision="fp32"), EngineLimits(threads=1))
    yield engines
    for engine in engines.values():
        engine.stop()


@pytest.fixture(scope="module")
def client(tool_engines: dict[str, EngineThread]) -> Iterator[TestClient]:
    with client_of(tool_engines) as opened:
        yield opened


def chat(client: TestClient, model: str = "tools", **fields: Any) -> dict[str, Any]:
    """The response to a chat request of up to 300 tokens."""
    body = {"model": model, "messages": MESSAGES, "max_tokens": 300, "seed": 1, **fields}
    return client.post("/v1/chat/completions", json=body).json()


def chunks(client: TestClient, **fields: Any) -> list[dict[str, Any]]:
    """The chunks of a streamed response."""
    body = {"model": "tools", "messages": MESSAGES, "max_tokens": 300, "seed": 1, "stream": True, **fields}
    lines = client.post("/v1/chat/completions", json=body).text.split("\n\n")
    assert lines[-2:] == ["data: [DONE]", ""]
    return [json.loads(line.removeprefix("data: ")) for line in lines[:-2]]


def schema_format(schema: Any, **fields: Any) -> dict[str, Any]:
    """A response_format."""
    return {"type": "json_schema", "json_schema": {"name": "point", "schema": schema, **fields}}


def test_answers_follow_the_schema_whole_and_streamed(client: TestClient) -> None:
    fields = {"response_format": schema_format(POINT, strict=True), "n": 3}
    for choice in chat(client, **fields)["choices"]:
        assert choice["finish_reason"] == "stop"
        point = json.loads(choice["message"]["content"])
        assert (set(point), point["label"] in "ab") == ({"x", "label"}, True)
    texts = ["", "", ""]
    for chunk in chunks(client, **fields):
        texts[chunk["choices"][0]["index"]] += chunk["choices"][0]["delta"].get("content") or ""
    assert texts == [choice["message"]["content"] for choice in chat(client, **fields)["choices"]]


def test_regular_expressions_grammars_and_json_objects(client: TestClient) -> None:
    for field in ({"regex": "(yes|no)!"}, {"grammar": 'start: ("yes" | "no") "!"'}):
        assert chat(client, **field)["choices"][0]["message"]["content"] in ("yes!", "no!")
        body = {"model": "tools", "prompt": "Is it? ", "max_tokens": 9, **field}
        assert client.post("/v1/completions", json=body).json()["choices"][0]["text"] in ("yes!", "no!")
    cut = chat(client, response_format={"type": "json_object"}, max_tokens=2)["choices"][0]
    assert cut["finish_reason"] == "length" or json.loads(cut["message"]["content"]) == {}
    assert chat(client, response_format={"type": "text"}, max_tokens=2)["choices"][0]["finish_reason"] == "length"


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "plot"}}])
@pytest.mark.parametrize("model", ["tools", "llama", "tagged"])
def test_calls_whole_and_streamed(client: TestClient, model: str, choice: Any) -> None:
    fields = {"model": model, "tools": TOOLS, "tool_choice": choice, "parallel_tool_calls": False}
    answer = chat(client, **fields)["choices"][0]
    assert answer["finish_reason"] == "tool_calls"
    assert answer["message"]["content"] is None
    [call] = answer["message"]["tool_calls"]
    assert (call["type"], call["function"]["name"]) == ("function", "plot")
    assert set(json.loads(call["function"]["arguments"])) == {"x", "label"}
    deltas = [chunk["choices"][0]["delta"].get("tool_calls") for chunk in chunks(client, **fields)]
    pieces = [piece for delta in deltas for piece in delta or ()]
    assert pieces[0]["function"]["name"] == "plot"
    assert all("id" not in piece for piece in pieces[1:])
    assert "".join(piece["function"]["arguments"] for piece in pieces) == call["function"]["arguments"]
    assert chunks(client, **fields)[-1]["choices"][0]["finish_reason"] == "tool_calls"


@pytest.mark.parametrize("model", ["tools", "text", "tagged"])
def test_results_of_calls_are_read(client: TestClient, model: str) -> None:
    arguments = '{"x": 1, "label": "a"}'
    call = {"id": "call_1", "type": "function", "function": {"name": "plot", "arguments": arguments}}
    talk = [
        *MESSAGES,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "drawn & <done>"},
    ]
    body = {"model": model, "messages": talk, "tools": TOOLS}
    answer = chat(client, **{**body, "max_tokens": 3}, return_token_ids=True)
    prompt = client.post("/detokenize", json={"model": model, "tokens": answer["prompt_token_ids"]}).json()["prompt"]
    tags = "<function=plot>\n<parameter=x>\n1\n</parameter>\n<parameter=label>\na\n</parameter>\n</function>"
    assert (tags if model == "tagged" else f'{{"name": "plot", "arguments": {arguments}}}') in prompt
    assert "drawn & <done>" in prompt
    assert "plot" in prompt
    silent = chat(client, **{**body, "max_tokens": 3}, tool_choice="none", return_token_ids=True)
    assert len(silent["prompt_token_ids"]) < len(answer["prompt_token_ids"])  # the model is not told of them


def test_arguments_that_the_template_cannot_write_are_refused(client: TestClient) -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "plot", "arguments": '{"x": 1, "la'}}
    talk = [*MESSAGES, {"role": "assistant", "tool_calls": [call]}]
    assert chat(client, "tools", messages=talk, max_tokens=2)["choices"]
    error = chat(client, "tagged", messages=talk, max_tokens=2)["error"]
    assert error["param"] == "messages"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"response_format": schema_format({"properties": {"a": {"not": {}}}})},
         "response_format.json_schema.schema.properties.a.not"),
        ({"response_format": schema_format({"$ref": "#/none"})}, "response_format.json_schema.schema"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        ({"response_format": {"type": "xml"}}, "response_format.type"),
        ({"response_format": schema_format(POINT), "regex": "a"}, "regex"),
        ({"response_format": schema_format(POINT), "stop": "}"}, "stop"),
        ({"regex": "("}, "regex"),
        ({"grammar": "start: nothing"}, "grammar"),
        ({"tools": [{"type": "function", "function": {"name": "f", "parameters": {"allOf": [{"if": {}}]}}}]},
         "tools[0].function.parameters.allOf[0].if"),
        ({"tools": [{"type": "function", "function": {"name": "f g"}}]}, "tools[0].function.name"),
        ({"tools": [TOOLS[0], TOOLS[0]]}, "tools"),
        ({"tools": TOOLS, "regex": "a"}, "regex"),
        ({"tools": TOOLS, "stop": "a"}, "stop"),
        ({"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "g"}}}, "tool_choice.function.name"),
        ({"tools": TOOLS, "tool_choice": "any"}, "tool_choice"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"model": "tagged", "tools": [{"type": "function", "function": {
            "name": "f", "parameters": {"properties": {"a": {"type": "string", "format": "email"}}}}}]},
         "tools[0].function.parameters.properties.a.format"),
        ({"model": "llama", "tools": TOOLS, "response_format": schema_format(POINT)}, "response_format"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(client: TestClient, fields: Any, param: str) -> None:
    error = chat(client, **fields)["error"]
    assert (error["param"], error["type"]) == (param, "invalid_request_error")
    assert len(error["message"]) < 400


def test_a_model_without_tools_refuses_them(client: TestClient, engines: Any) -> None:
    with client_of(engines) as plain:
        error = chat(plain, "tiny", tools=TOOLS)["error"]
        assert (error["param"], error["code"]) == ("tools", "unsupported_by_model")
        assert "error" not in chat(plain, "tiny", tools=TOOLS, tool_choice="none", max_tokens=2)


@pytest.mark.filterwarnings("ignore")  # of the client and of what it imports
def test_the_openai_client_reads_streamed_calls(tool_engines: dict[str, EngineThread]) -> None:
    openai: Any = pytest.importorskip("openai", reason="the package openai is not installed")
    strict = [{"type": "function", "function": {**TOOLS[0]["function"], "strict": True}}]
    with (
        real_server(tool_engines) as server,
        openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as opened,
        opened.chat.completions.stream(
            model="tools", messages=MESSAGES, tools=strict, tool_choice="required", max_tokens=900, seed=1
        ) as stream,
    ):
        choice = stream.get_final_completion().choices[0]
    assert choice.finish_reason == "tool_calls"
    for call in choice.message.tool_calls:
        assert set(call.function.parsed_arguments) == {"x", "label"}
