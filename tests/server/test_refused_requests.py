"""Requests that cannot be answered are refused in one sentence that names the field, and other families' routes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from clearstory.recipes.inference.fill_mask import fill_mask
from clearstory.recipes.inference.generate import generate
from clearstory.serving.engine_thread import EngineLimits, EngineThread
from clearstory.serving.served_model import ServedModel
from server.served import CONTEXT, MODEL, client_of, make_model

GOLDEN = Path(__file__).parent.parent / "golden"

ENCODER, SOURCE, LSTM = "BertForMaskedLM", "T5ForConditionalGeneration", "lstm"

MESSAGES = [{"role": "user", "content": "Hello"}]


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A client of a server with a chat model, an encoder, an encoder-decoder and an LSTM."""
    paths = {name: GOLDEN / name for name in (ENCODER, SOURCE, LSTM)}
    paths[MODEL] = make_model(tmp_path_factory.mktemp("refused") / MODEL)
    limits = EngineLimits(threads=1)
    engines = {name: EngineThread(ServedModel.open(path, name), limits) for name, path in paths.items()}
    yield client_of(engines)
    for engine in engines.values():
        engine.stop()


CHAT, COMPLETIONS, EMBEDDINGS = "/v1/chat/completions", "/v1/completions", "/v1/embeddings"

REFUSED: list[tuple[str, dict[str, Any], str, str]] = [
    (CHAT, {"model": "gpt-9"}, "model", r"'gpt-9' is not served; available: "),
    (CHAT, {"model": LSTM}, "model", r"no chat template"),
    (CHAT, {"model": ENCODER}, "model", r"no chat template"),
    (CHAT, {"messages": [{"role": "user", "content": "a" * 500}]}, "messages", rf"5\d\d tokens .*{CONTEXT}.*truncate"),
    (
        CHAT,
        {"messages": [{"role": "user", "content": "a" * 500}], "truncate": "left"},
        "messages",
        rf"5\d\d .*{CONTEXT}",
    ),
    (CHAT, {"stop": ""}, "stop", r"0 characters; it must have at least 1"),
    (CHAT, {"stop": ["a", ""]}, "stop[1]", r"at least 1"),
    (CHAT, {"stop": list("abcde")}, "stop", r"5 items; it must have at most 4"),
    (CHAT, {"logit_bias": {"259": 1, "260": 1}}, "logit_bias", r"'260'; its keys are token ids from 0 to 259"),
    (CHAT, {"logit_bias": {"-1": 1}}, "logit_bias", r"'-1'; its keys"),
    (CHAT, {"logit_bias": {"1": 101}}, "logit_bias.1", r"at most 100"),
    (CHAT, {"top_logprobs": 2}, "top_logprobs", r"needs logprobs: true"),
    (CHAT, {"logprobs": True, "top_logprobs": 21}, "top_logprobs", r"at most 20"),
    (CHAT, {"max_tokens": 3, "max_completion_tokens": 4}, "max_tokens", r"3 and max_completion_tokens 4"),
    (CHAT, {"max_tokens": 0}, "max_tokens", r"at least 1"),
    (CHAT, {"continue_final_message": True}, "continue_final_message", r"has the role user"),
    (CHAT, {"stream_options": {"include_usage": True}}, "stream_options", r"needs stream: true"),
    (CHAT, {"store": True}, "store", r"not stored"),
    (CHAT, {"modalities": ["text", "audio"]}, "modalities", r"answers are text"),
    (CHAT, {"n": 129}, "n", r"at most 128"),
    (COMPLETIONS, {"model": ENCODER}, "model", r"no text generation"),
    (COMPLETIONS, {"model": SOURCE, "echo": True}, "echo", r"encoder-decoder"),
    (COMPLETIONS, {"prompt": [1] * 161}, "prompt", rf"161 tokens .*{CONTEXT}"),
    (COMPLETIONS, {"prompt": ["a", "b" * 500]}, "prompt[1]", r"500 tokens"),
    (COMPLETIONS, {"prompt": [[1], [2, 999]]}, "prompt[1]", r"999 is outside the model's vocabulary of 260"),
    (COMPLETIONS, {"prompt": []}, "prompt", r"at least 1"),
    (COMPLETIONS, {"prompt": ["a"] * 100, "n": 100}, "prompt", r"10,000 texts"),
    (COMPLETIONS, {"best_of": 2}, "best_of", r"not supported"),
    (COMPLETIONS, {"suffix": "end"}, "suffix", r"not supported"),
    (COMPLETIONS, {"max_tokens": 0}, "max_tokens", r"nothing is generated"),
    (COMPLETIONS, {"logprobs": 21}, "logprobs", r"at most 20"),
    (EMBEDDINGS, {"model": SOURCE, "input": "a"}, "model", r"no sentence vectors"),
    (EMBEDDINGS, {"model": ENCODER, "input": ""}, "input", r"empty"),
    (EMBEDDINGS, {"model": ENCODER, "input": ["a", ""]}, "input[1]", r"empty"),
    (EMBEDDINGS, {"model": ENCODER, "input": "the cat " * 90}, "input", r"tokens"),
    (EMBEDDINGS, {"model": ENCODER, "input": [1] * 90}, "input", r"90 tokens; the model reads at most 24"),
    (EMBEDDINGS, {"model": ENCODER, "input": "a", "dimensions": 999}, "dimensions", r"999.* 8"),
    (EMBEDDINGS, {"model": ENCODER, "input": "a", "prompt_name": "query"}, "prompt_name", r"no prompts"),
    ("/fill-mask", {"input": "a [MASK]"}, "model", r"no prediction of masked tokens"),
    ("/fill-mask", {"model": ENCODER, "input": "the cat"}, "input", r"there is no \[MASK\]"),
    ("/tokenize", {"prompt": "a", "messages": MESSAGES}, "prompt", r"both given"),
    ("/tokenize", {}, "prompt", r"both missing"),
    ("/detokenize", {"tokens": [1, 5000]}, "tokens", r"5,000"),
]


@pytest.mark.parametrize(("path", "body", "param", "sentence"), REFUSED)
def test_it_is_refused(path: str, body: dict[str, Any], param: str, sentence: str, client: Any) -> None:
    default: dict[str, Any] = {"model": MODEL}
    default |= {CHAT: {"messages": MESSAGES}, COMPLETIONS: {"prompt": "a"}}.get(path, {})
    response = client.post(path, json={**default, **body})
    assert response.status_code == (404 if body.get("model") == "gpt-9" else 400), response.text
    error = response.json()["error"]
    assert error["param"] == param, error
    assert re.search(sentence, error["message"]), error
    if path in (CHAT, COMPLETIONS) and param != "stream_options":
        streamed = client.post(path, json={**default, **body, "stream": True})
        assert streamed.status_code == response.status_code  # and not 200 with an error in its stream


def test_an_encoder_decoder_rewrites_its_prompt(client: Any) -> None:
    text = "the cat sat"
    own = generate(GOLDEN / SOURCE, text, temperature=0, max_tokens=5)
    asked = {
        "model": SOURCE,
        "prompt": text,
        "temperature": 0,
        "max_tokens": 5,
        "logprobs": 2,
        "return_token_ids": True,
    }
    found = client.post(COMPLETIONS, json=asked).json()["choices"][0]
    assert (found["text"], found["token_ids"]) == (own.text, list(own.completions[0].ids))
    assert found["logprobs"]["token_logprobs"] == pytest.approx(list(own.completions[0].logprobs), abs=1e-5)


def test_masks_are_filled_as_in_python(client: Any) -> None:
    texts = ["the [MASK] sat on", "[MASK] dog [MASK]"]
    own = [each.to_json() for each in fill_mask(GOLDEN / ENCODER, texts, top=3)]
    found = client.post("/fill-mask", json={"model": ENCODER, "input": texts, "top": 3}).json()["data"]
    for index, (each, expected) in enumerate(zip(found, own, strict=True)):
        assert (each["object"], each["index"], each["text"], each["filled"]) == (
            "fill_mask", index, texts[index], expected["filled"],
        )  # fmt: skip
        for mask, theirs in zip(each["masks"], expected["masks"], strict=True):
            assert [token["id"] for token in mask] == [token["id"] for token in theirs]
            assert [token["probability"] for token in mask] == pytest.approx([token["probability"] for token in theirs])


def test_texts_and_conversations_are_tokenized_as_they_are_read(client: Any) -> None:
    text = "a<|im_end|>b"
    parsed = client.post("/tokenize", json={"model": MODEL, "prompt": text, "return_token_strs": True}).json()
    assert (parsed["count"], parsed["max_model_len"]) == (3, CONTEXT)
    assert parsed["tokens"][::2] == [97, 98]
    assert parsed["token_strs"] == ["a", "<|im_end|>", "b"]
    plain = client.post("/tokenize", json={"model": MODEL, "prompt": text, "parse_special": False}).json()
    assert bytes(plain["tokens"]).decode() == text
    asked = {"model": MODEL, "messages": MESSAGES, "max_tokens": 1, "return_token_ids": True}
    read = client.post(CHAT, json=asked).json()["prompt_token_ids"]
    assert client.post("/tokenize", json={"model": MODEL, "messages": MESSAGES}).json()["tokens"] == read
    whole = client.post("/detokenize", json={"model": MODEL, "tokens": read}).json()["prompt"]
    assert whole == "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n"
    info = client.get("/tokenizer_info").json()
    assert info["tokenizer_class"]


def test_models_are_listed_with_what_they_can_do(client: Any) -> None:
    found = {each["id"]: each for each in client.get("/v1/models").json()["data"]}
    assert found[MODEL]["capabilities"] == ["chat", "text", "vectors"]
    assert found[ENCODER]["capabilities"] == ["vectors", "masks"]
    assert found[SOURCE]["capabilities"] == ["text"]
    assert found[LSTM]["max_model_len"] is None
    assert client.get(f"/v1/models/{LSTM}").json() == found[LSTM]
    assert client.get("/v1/models/gpt-9").status_code == 404
    counted = {each["id"]: each for each in client.get("/status").json()["models"]}
    assert counted.keys() == found.keys()
    assert counted[MODEL]["running"] == 0
