"""Real clients, each against a real server on the loopback address: OpenAI's own, LangChain's and instructor's."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clearstory.formats.folders import open_model
from clearstory.models.generation_config import GenerationConfig
from clearstory.recipes.inference.embed import embed
from clearstory.serving.engine_thread import EngineLimits, EngineThread
from clearstory.serving.served_model import ServedModel
from generation.test_chat_prompts import END
from server.served import MODEL, make_model, real_server

GOLDEN = Path(__file__).parent.parent / "golden"

ENCODER, ENDING = "BertForMaskedLM", "ending"
"""The second is the chat model with answers of six tokens, the last of which ends them."""

MESSAGES: Any = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}]

pytestmark = pytest.mark.filterwarnings("ignore")  # of the clients and of what they import


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server with a chat model and an encoder."""
    limits = EngineLimits(threads=1)
    opened = open_model(make_model(tmp_path_factory.mktemp("clients") / MODEL))
    ends = GenerationConfig(eos_token_ids=(END,), max_new_tokens=6, forced_eos_token_id=END)
    engines = {
        MODEL: EngineThread(ServedModel.of(opened, MODEL), limits),
        ENDING: EngineThread(ServedModel.of(replace(opened, generation_config=ends), ENDING), limits),
        ENCODER: EngineThread(ServedModel.open(GOLDEN / ENCODER, ENCODER), limits),
    }
    with real_server(engines) as server:
        yield f"{server.url}/v1"
    for engine in engines.values():
        engine.stop()


@pytest.fixture(scope="module")
def client(url: str) -> Any:
    """OpenAI's client."""
    openai = pytest.importorskip("openai", reason="the package openai is not installed")
    return openai.OpenAI(base_url=url, api_key="none", max_retries=0)


def test_openai_chats_whole_and_streamed(client: Any) -> None:
    asked: Any = {"model": MODEL, "messages": MESSAGES, "seed": 1, "max_tokens": 12, "n": 2}
    whole = client.chat.completions.create(**asked, logprobs=True, top_logprobs=2)
    assert [choice.finish_reason for choice in whole.choices] == ["length"] * 2
    assert whole.usage.completion_tokens == 24
    assert len(whole.choices[0].logprobs.content[0].top_logprobs) == 2
    texts = ["", ""]
    usage = None
    for chunk in client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}):
        usage = chunk.usage or usage
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
    assert texts == [choice.message.content for choice in whole.choices]
    assert usage == whole.usage or usage.total_tokens == whole.usage.total_tokens
    # An answer as the client returns it is a message of the next request.
    again = [*MESSAGES, whole.choices[0].message, {"role": "user", "content": "More"}]
    going = {"seed": 1, "max_tokens": 2, "extra_body": {"ignore_eos": True}}
    assert client.chat.completions.create(model=MODEL, messages=again, **going).usage.completion_tokens == 2
    # The client's own stream takes no answer that is cut off.
    with client.chat.completions.stream(model=ENDING, messages=MESSAGES, seed=1) as stream:
        [choice] = stream.get_final_completion().choices
    asked = {"model": ENDING, "messages": MESSAGES, "seed": 1}
    assert choice.message.content == client.chat.completions.create(**asked).choices[0].message.content


def test_openai_completes_counts_and_lists(client: Any) -> None:
    found = client.completions.create(model=MODEL, prompt=["one", "two"], max_tokens=3, echo=True, logprobs=1, seed=1)
    assert [choice.text[:3] for choice in found.choices] == ["one", "two"]
    assert found.choices[0].logprobs.token_logprobs[0] is None
    streamed = client.completions.create(model=MODEL, prompt="one", max_tokens=3, seed=1, stream=True)
    assert "one" + "".join(chunk.choices[0].text for chunk in streamed) == found.choices[0].text
    assert [model.id for model in client.models.list()] == [MODEL, ENDING, ENCODER]
    assert client.models.retrieve(ENCODER).id == ENCODER


def test_openai_gets_the_vectors_of_clearstory_embed(client: Any) -> None:
    texts = ["the cat", "a dog sat"]
    own = embed(GOLDEN / ENCODER, texts).vectors
    for encoding in ("base64", "float"):  # the client asks for base64 by itself
        found = client.embeddings.create(model=ENCODER, input=texts, encoding_format=encoding)
        assert [each.index for each in found.data] == [0, 1]
        vectors = [
            np.frombuffer(base64.b64decode(each.embedding), "<f4")
            if isinstance(each.embedding, str)
            else each.embedding
            for each in found.data
        ]
        np.testing.assert_allclose(np.array(vectors), own, atol=1e-6)
    short = client.embeddings.create(model=ENCODER, input=texts[0], dimensions=3).data[0].embedding
    np.testing.assert_allclose(short, own[0][:3], atol=1e-6)
    unit = client.embeddings.create(model=ENCODER, input=texts[0], dimensions=3, extra_body={"normalize": True})
    assert np.linalg.norm(unit.data[0].embedding) == pytest.approx(1, abs=1e-6)
    tokenizer = open_model(GOLDEN / ENCODER).tokenizer
    assert tokenizer is not None
    assert found.usage.prompt_tokens == sum(len(tokenizer.encode(text)) + 2 for text in texts)


def test_openai_raises_its_own_errors(client: Any) -> None:
    import openai

    with pytest.raises(openai.NotFoundError) as missing:
        client.chat.completions.create(model="gpt-9", messages=MESSAGES)
    assert (missing.value.param, missing.value.code) == ("model", "model_not_found")
    with pytest.raises(openai.BadRequestError, match="best_of is not supported") as refused:
        client.completions.create(model=MODEL, prompt="a", best_of=3)
    assert refused.value.param == "best_of"
    with pytest.raises(openai.BadRequestError, match=r"1,000 tokens .* 160"):
        client.completions.create(model=MODEL, prompt=[1] * 1000)


def test_openai_asks_many_at_once_and_closes_streams(url: str) -> None:
    openai = pytest.importorskip("openai", reason="the package openai is not installed")

    async def ask() -> list[str]:
        async with openai.AsyncOpenAI(base_url=url, api_key="none") as client:
            left = await client.chat.completions.create(
                model=MODEL, messages=MESSAGES, max_tokens=5000, stream=True, extra_body={"truncate": "left"}
            )
            async for _ in left:
                break
            await left.close()
            found = await asyncio.gather(
                *(
                    client.chat.completions.create(model=MODEL, messages=MESSAGES, seed=1, max_tokens=4)
                    for _ in range(9)
                )
            )
            return [each.choices[0].message.content for each in found]

    assert len(set(asyncio.run(ask()))) == 1


@pytest.mark.slow  # its imports take seconds
def test_langchain_chats_streams_and_embeds(url: str, client: Any) -> None:
    pytest.importorskip("langchain_openai", reason="the package langchain-openai is not installed")
    from langchain_openai import ChatOpenAI, OpenAIEmbeddings

    model = ChatOpenAI(base_url=url, api_key="none", model=MODEL, temperature=0, max_tokens=6)
    whole = model.invoke([("system", "Be brief."), ("human", "Hello")])
    asked = client.chat.completions.create(model=MODEL, messages=MESSAGES, temperature=0, max_tokens=6)
    assert whole.content == asked.choices[0].message.content
    assert whole.usage_metadata["output_tokens"] == 6
    assert (
        "".join(part.content for part in model.stream([("system", "Be brief."), ("human", "Hello")])) == whole.content
    )
    # Without the check, it sends texts; with it, ids of OpenAI's tokenizers, which are those of no other model.
    vectors = OpenAIEmbeddings(base_url=url, api_key="none", model=ENCODER, check_embedding_ctx_length=False)
    np.testing.assert_allclose(
        vectors.embed_query("the cat"), embed(GOLDEN / ENCODER, ["the cat"]).vectors[0], atol=1e-6
    )


@pytest.mark.slow  # its imports take seconds
def test_instructor_gets_an_object_of_the_schema(url: str) -> None:
    pytest.importorskip("llguidance", reason="the extra structured is not installed")
    openai = pytest.importorskip("openai", reason="the package openai is not installed")
    instructor = pytest.importorskip("instructor", reason="the package instructor is not installed")
    pydantic = pytest.importorskip("pydantic", reason="the package pydantic is not installed")
    Answer = pydantic.create_model("Answer", yes=(bool, ...), digit=(int, pydantic.Field(ge=0, le=9)))
    asking = instructor.from_openai(openai.OpenAI(base_url=url, api_key="none"), mode=instructor.Mode.JSON_SCHEMA)
    found = asking.chat.completions.create(model=MODEL, messages=MESSAGES, response_model=Answer, max_tokens=60, seed=1)
    assert found.yes in (True, False)
    assert 0 <= found.digit <= 9


def test_openai_parses_a_structured_answer(client: Any) -> None:
    pytest.importorskip("llguidance", reason="the extra structured is not installed")
    pydantic = pytest.importorskip("pydantic", reason="the package pydantic is not installed")
    Answer = pydantic.create_model("Answer", yes=(bool, ...))
    found = client.chat.completions.parse(model=MODEL, messages=MESSAGES, response_format=Answer, max_tokens=60, seed=1)
    assert found.choices[0].message.parsed.yes in (True, False)
    assert json.loads(found.choices[0].message.content).keys() == {"yes"}


@pytest.mark.parametrize(
    "name", ["basic-response", "system-prompt", "multi-turn", "streaming-response", "streaming-usage", "error-handling"]
)
def test_the_suite_of_llm_comply_passes(name: str, url: str) -> None:
    llm_comply = pytest.importorskip("llm_comply", reason="the package llm-comply is not installed")
    from llm_comply.config import ComplianceConfig
    from llm_comply.runner import TestRunner
    from llm_comply.schema import SpecLoader
    from llm_comply.tests.openai_chat import OPENAI_CHAT_TESTS

    config = ComplianceConfig(url, "none", ENDING, filter_ids=[f"chat-{name}"])
    [result] = (
        TestRunner(
            config, OPENAI_CHAT_TESTS, SpecLoader(str(Path(llm_comply.__file__).parent / "specs" / "openai_chat.json"))
        )
        .run_all()
        .results
    )
    assert (result.errors, result.warnings) == ([], [])
