"""Further clients, each against a real server: OpenAI's for JavaScript, litellm and LlamaIndex.

OpenAI's client for JavaScript is in the folder that CLEARSTORY_NODE_CLIENTS names, after `npm install openai` there.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clearstory.formats.folders import save_model
from clearstory.formats.model_card import ModelCard
from clearstory.models.build import build
from clearstory.recipes.inference.embed import embed
from clearstory.serving.engine_thread import EngineLimits, EngineThread
from clearstory.serving.served_model import ServedModel
from server.served import MODEL, make_model, real_server
from serving.tool_templates import HERMES, tool_tokenizer
from tiny import TINY_CLEAR

GOLDEN = Path(__file__).parent.parent / "golden"
ENCODER, TOOLS = "BertForMaskedLM", "tools"
MESSAGES: Any = [{"role": "user", "content": "Hello"}]
TEXTS = ["the cat", "a dog sat"]
POINT = {
    "type": "object",
    "properties": {"x": {"type": "integer"}, "label": {"enum": ["a", "b"]}},
    "required": ["x", "label"],
    "additionalProperties": False,
}

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # imports of clients take seconds, and warn


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server with a chat model, one that calls tools and an encoder."""
    limits = EngineLimits(threads=1)
    folder = tmp_path_factory.mktemp("clients")
    tokenizer = tool_tokenizer(HERMES)
    model = build(replace(TINY_CLEAR, vocab=tokenizer.vocab, context=1024), seed=3)
    save_model(folder / TOOLS, model, tokenizer, ModelCard(name=TOOLS, family="transformer", parameters=0))
    opened = {MODEL: make_model(folder / MODEL), TOOLS: folder / TOOLS, ENCODER: GOLDEN / ENCODER}
    engines = {name: EngineThread(ServedModel.open(path, name), limits) for name, path in opened.items()}
    with real_server(engines) as server:
        yield f"{server.url}/v1"
    for engine in engines.values():
        engine.stop()


def test_openai_for_javascript(url: str) -> None:
    pytest.importorskip("llguidance", reason="the extra structured is not installed")
    folder, node = os.environ.get("CLEARSTORY_NODE_CLIENTS"), shutil.which("node")
    if folder is None or node is None:
        pytest.skip("node or CLEARSTORY_NODE_CLIENTS, a folder with the npm package openai, is missing")
    script = Path(__file__).parent / "openai_client.mjs"
    done = subprocess.run(
        [node, str(script), folder, url, MODEL, TOOLS, ENCODER],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["whole"] == found["streamed"]
    assert found["usage"]["completion_tokens"] <= 6
    assert found["names"] == [MODEL, TOOLS, ENCODER]
    assert found["error"] == {
        "name": "NotFoundError", "status": 404, "param": "model", "code": "model_not_found"
    }  # fmt: skip
    np.testing.assert_allclose(found["vectors"], embed(GOLDEN / ENCODER, TEXTS).vectors, atol=1e-6)
    assert found["call"]["name"] == "plot"
    assert set(json.loads(found["call"]["arguments"])) == set(found["typed"]) == {"x", "label"}


def test_litellm(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("llguidance", reason="the extra structured is not installed")
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # no download of prices
    litellm = pytest.importorskip("litellm", reason="the package litellm is not installed")
    server = {"api_base": url, "api_key": "none", "num_retries": 0}
    asked = {"model": f"openai/{MODEL}", "messages": MESSAGES, "seed": 1, "max_tokens": 6, **server}
    whole = litellm.completion(**asked)
    parts = litellm.completion(**asked, stream=True, stream_options={"include_usage": True})
    assert (
        "".join(each.delta.content or "" for part in parts for each in part.choices) == whole.choices[0].message.content
    )
    assert whole.usage.completion_tokens <= 6
    vectors = litellm.embedding(model=f"openai/{ENCODER}", input=TEXTS, **server)
    np.testing.assert_allclose(
        [each["embedding"] for each in vectors.data], embed(GOLDEN / ENCODER, TEXTS).vectors, atol=1e-6
    )
    called = litellm.completion(
        **{**asked, "model": f"openai/{TOOLS}", "max_tokens": 300},
        tools=[{"type": "function", "function": {"name": "plot", "parameters": POINT}}],
        tool_choice="required",
    )
    for call in called.choices[0].message.tool_calls:
        assert set(json.loads(call.function.arguments)) == {"x", "label"}
    with pytest.raises(litellm.NotFoundError, match="gpt-9"):
        litellm.completion(**{**asked, "model": "openai/gpt-9"})
    with pytest.raises(litellm.BadRequestError, match="best_of"):
        litellm.completion(**asked, extra_body={"best_of": 2})


def test_llama_index(url: str) -> None:
    pytest.importorskip("llguidance", reason="the extra structured is not installed")
    openai_like = pytest.importorskip(
        "llama_index.llms.openai_like", reason="the package llama-index-llms-openai-like is not installed"
    )
    from llama_index.core.llms import ChatMessage
    from llama_index.core.tools import FunctionTool

    settings: Any = {"api_base": url, "api_key": "none", "max_retries": 0, "additional_kwargs": {"seed": 1}}
    model = openai_like.OpenAILike(model=MODEL, is_chat_model=True, max_tokens=6, temperature=0, **settings)
    asked = [ChatMessage(role="system", content="Be brief."), ChatMessage(role="user", content="Hello")]
    whole = model.chat(asked).message.content
    assert "".join(part.delta or "" for part in model.stream_chat(asked)) == whole
    assert model.complete("Hello").text == model.chat(asked[1:]).message.content
    plain = openai_like.OpenAILike(model=MODEL, is_chat_model=False, max_tokens=6, temperature=0, **settings)
    assert "".join(part.delta or "" for part in plain.stream_complete("Hello")) == plain.complete("Hello").text

    def plot(x: int, label: str) -> str:
        """Draw a point."""
        return f"{x} {label}"

    calling = openai_like.OpenAILike(
        model=TOOLS, is_chat_model=True, is_function_calling_model=True, max_tokens=400, **settings
    )
    found = calling.chat_with_tools([FunctionTool.from_defaults(plot)], user_msg="Draw.", tool_required=True)
    calls = calling.get_tool_calls_from_response(found, error_on_no_tool_call=True)
    assert {call.tool_name for call in calls} == {"plot"}
