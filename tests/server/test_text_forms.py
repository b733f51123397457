"""Chats and completions in OpenAI's forms: whole and streamed, with log-probabilities, echo, several texts, usage."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from clearstory.generation.engine import generate
from clearstory.generation.settings import Sampling
from clearstory.models.base import TokenBatch
from clearstory.serving.engine_thread import EngineLimits, EngineThread
from clearstory.serving.served_model import ServedModel
from server.served import CONTEXT, MODEL, client_of, make_model

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineThread]:
    """A tiny chat model, whose random bytes are seldom valid UTF-8."""
    engine = EngineThread(ServedModel.open(make_model(tmp_path_factory.mktemp("forms") / MODEL)), EngineLimits())
    yield engine
    engine.stop()


@pytest.fixture(scope="module")
def client(engine: EngineThread) -> Any:
    return client_of({MODEL: engine})


def post(client: Any, path: str, **body: Any) -> Any:
    """The response to a request; without a seed of its own, always the same."""
    body.setdefault("seed", 0)
    if path == CHAT:
        body.setdefault("messages", [{"role": "user", "content": "Hello"}])
    response = client.post(path, json={"model": MODEL, **body})
    assert response.status_code == 200, response.text
    return response.json()


def chunks(client: Any, path: str, **body: Any) -> list[Any]:
    """The chunks of a streamed response, without the last event, which is [DONE]."""
    if path == CHAT:
        body.setdefault("messages", [{"role": "user", "content": "Hello"}])
    response = client.post(path, json={"model": MODEL, "stream": True, **body})
    assert response.headers["content-type"].startswith("text/event-stream")
    *events, done, nothing = response.text.split("\n\n")
    assert (done, nothing) == ("data: [DONE]", "")
    return [json.loads(event.removeprefix("data: ")) for event in events]


SETTINGS: list[dict[str, Any]] = [
    {"seed": 1, "max_tokens": 30},
    {"temperature": 0, "max_tokens": 12, "n": 2},
    {"seed": 2, "max_tokens": 40, "n": 3, "top_p": 0.5, "frequency_penalty": 1.5},
    {"seed": 3, "max_tokens": 40, "stop": ["e", "\ufffd\ufffd", "x1"], "n": 2},
    {"seed": 4, "max_tokens": 300, "n": 1},  # ends where the context is full
    {"seed": 5, "max_tokens": 160, "truncate": "left"},  # goes on past it
    {"seed": 6, "max_tokens": 20, "logit_bias": {"226": 8, "130": 8, "172": 8}},  # pieces of ₂ and €
]


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
def test_the_pieces_of_a_stream_join_to_the_whole(path: str, settings: dict[str, Any], client: Any) -> None:
    extra = {"logprobs": True, "top_logprobs": 2} if path == CHAT else {"prompt": "Hello", "logprobs": 2}
    body = {**settings, **extra, "return_token_ids": True, "bits_per_byte": True}
    whole = post(client, path, **body)
    streamed = chunks(client, path, **body, stream_options={"include_usage": True})
    *pieces, last = streamed
    assert (last["choices"], last["usage"]) == ([], whole["usage"])
    assert {each["id"] for each in streamed} == {last["id"]} != {whole["id"]}
    for index, choice in enumerate(whole["choices"]):
        mine = [each["choices"][0] for each in pieces if each["choices"][0]["index"] == index]
        if path == CHAT:
            assert mine[0]["delta"] == {"role": "assistant", "content": "", "refusal": None}
            text = "".join(each["delta"].get("content", "") for each in mine)
            assert text == choice["message"]["content"]
            parts = [entry for each in mine if each["logprobs"] for entry in each["logprobs"]["content"]]
            assert parts == choice["logprobs"]["content"]
        else:
            assert "".join(each["text"] for each in mine) == choice["text"]
            for name, values in choice["logprobs"].items():
                assert [value for each in mine for value in each["logprobs"][name]] == values
        assert [id for each in mine for id in each.get("token_ids", ())] == choice["token_ids"]
        assert [each["finish_reason"] for each in mine if each["finish_reason"]] == [choice["finish_reason"]]
        assert mine[-1]["bits_per_byte"] == choice["bits_per_byte"]
    plain = {name: each for name, each in body.items() if name not in ("logprobs", "top_logprobs", "return_token_ids")}
    bare = [each["choices"][0] for each in chunks(client, path, **plain)]  # incomplete characters are held back
    for index, choice in enumerate(whole["choices"]):
        texts = [
            each.get("text") or each.get("delta", {}).get("content", "") for each in bare if each["index"] == index
        ]
        assert "".join(texts) == (choice["text"] if path == COMPLETIONS else choice["message"]["content"])


def test_log_probabilities_of_a_chat_are_those_of_the_model(client: Any, engine: EngineThread) -> None:
    found = post(client, CHAT, seed=1, max_tokens=8, logprobs=True, top_logprobs=3, return_token_ids=True)
    prompt, choice = found["prompt_token_ids"], found["choices"][0]
    model = engine.served.opened.model
    with torch.no_grad():
        hidden, _ = model.forward(TokenBatch(torch.tensor([prompt + choice["token_ids"]])))
        logprobs = model.logits(hidden)[0].double().log_softmax(-1)
    joined = b""
    for place, (entry, id) in enumerate(zip(choice["logprobs"]["content"], choice["token_ids"], strict=True)):
        row = logprobs[len(prompt) - 1 + place]
        assert entry["token_id"] == id
        assert entry["logprob"] == pytest.approx(row[id].item(), abs=1e-5)
        top = [each["logprob"] for each in entry["top_logprobs"]]
        assert top == pytest.approx(row.topk(3).values.tolist(), abs=1e-5)
        for each in entry["top_logprobs"]:
            assert each["logprob"] == pytest.approx(row[each["token_id"]].item(), abs=1e-5)
        joined += bytes(entry["bytes"] or [])
    assert joined.decode("utf-8", "replace") == choice["message"]["content"]


def test_an_echoed_prompt_has_the_log_probabilities_of_its_tokens(client: Any, engine: EngineThread) -> None:
    model, text = engine.served.opened.model, "Ein Märchen — 3 €"
    ids = engine.served.tokenizer.encode(text)
    for prompt in (text, ids):
        [choice] = post(client, COMPLETIONS, prompt=prompt, max_tokens=0, echo=True, logprobs=1)["choices"]
        assert (choice["text"], choice["finish_reason"]) == (text, "length")
        with torch.no_grad():
            logprobs = model.logits(model.forward(TokenBatch(torch.tensor([ids])))[0])[0].double().log_softmax(-1)
        own = logprobs[:-1].gather(1, torch.tensor(ids[1:])[:, None])[:, 0].tolist()
        assert choice["logprobs"]["token_logprobs"] == [None, *(pytest.approx(value, abs=1e-5) for value in own)]
        offsets = choice["logprobs"]["text_offset"]
        assert [len(text.encode()[:at].decode("utf-8", "ignore")) for at in range(len(ids))] == offsets
    measured = post(client, COMPLETIONS, prompt=text, max_tokens=0, echo=True, bits_per_byte=True)
    bits = -sum(own) / math.log(2) / (len(text.encode()) - 1)  # the first byte has no probability
    assert measured["choices"][0]["bits_per_byte"] == pytest.approx(bits, rel=1e-5)
    assert measured["usage"] == {
        "prompt_tokens": len(ids), "completion_tokens": 0, "total_tokens": len(ids),
        "prompt_tokens_details": measured["usage"]["prompt_tokens_details"],
    }  # fmt: skip


def test_the_chosen_token_is_among_its_alternatives_bit_for_bit(client: Any) -> None:
    body = {"prompt": [[5, 200, 7, 130], [9, 9]], "max_tokens": 3, "echo": True, "logprobs": 2, "seed": 8}
    for choice in post(client, COMPLETIONS, **body, temperature=1)["choices"]:
        lists = choice["logprobs"]
        assert {len(values) for values in lists.values()} == {len(lists["tokens"])}
        for token, logprob, top in zip(*[lists[name][1:] for name in list(lists)[:3]], strict=True):
            assert top[token] == logprob
            assert len(top) in (2, 3)


def test_several_prompts_with_several_texts_each_come_in_order(client: Any, engine: EngineThread) -> None:
    tokenizer, model = engine.served.tokenizer, engine.served.model
    prompts = ["one", "two"]
    for given in (prompts, [tokenizer.encode(prompt) for prompt in prompts]):
        found = post(client, COMPLETIONS, prompt=given, n=2, seed=10, max_tokens=5, return_token_ids=True)
        assert [choice["index"] for choice in found["choices"]] == [0, 1, 2, 3]
        for index, choice in enumerate(found["choices"]):
            assert choice["prompt_token_ids"] == tokenizer.encode(prompts[index // 2])
            tokens = generate(model, choice["prompt_token_ids"], Sampling(max_tokens=5, seed=10 + index))
            assert [token.id for token in tokens] == choice["token_ids"]
        assert found["usage"]["prompt_tokens"] == 6
        assert found["usage"]["completion_tokens"] == 20


def test_an_answer_can_be_branched_from_any_token_by_an_alternative(client: Any, engine: EngineThread) -> None:
    """The ids sent and generated, with another token in the place of one, are a prompt of /v1/completions."""
    first = post(client, CHAT, seed=1, max_tokens=6, logprobs=True, top_logprobs=5, return_token_ids=True)
    choice = first["choices"][0]
    other = next(
        each["token_id"]
        for each in choice["logprobs"]["content"][2]["top_logprobs"]
        if each["token_id"] != choice["token_ids"][2]
    )
    prompt = [*first["prompt_token_ids"], *choice["token_ids"][:2], other]
    branch = post(client, COMPLETIONS, prompt=prompt, seed=1, max_tokens=3, return_token_ids=True)
    tokens = generate(engine.served.model, prompt, Sampling(max_tokens=3, seed=1))
    assert branch["choices"][0]["token_ids"] == [token.id for token in tokens]


def test_the_beginning_of_an_answer_is_continued(client: Any, engine: EngineThread) -> None:
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "It is "}]
    asked = {"messages": messages, "continue_final_message": True, "add_generation_prompt": False}
    found = post(client, CHAT, **asked, seed=3, max_tokens=4, return_token_ids=True)
    encoded = client.post("/tokenize", json={"model": MODEL, **asked}).json()
    assert found["prompt_token_ids"] == encoded["tokens"]
    assert engine.served.tokenizer.decode(encoded["tokens"]).endswith("It is")  # the template trims
    tokens = generate(engine.served.model, encoded["tokens"], Sampling(max_tokens=4, seed=3))
    assert found["choices"][0]["token_ids"] == [token.id for token in tokens]


def test_stop_strings_and_end_tokens_end_a_text(client: Any, engine: EngineThread) -> None:
    ended = engine.served.tokenizer.ids["<|im_end|>"]
    stopped = post(client, CHAT, seed=1, logit_bias={str(ended): 100}, max_tokens=9, logprobs=True, bits_per_byte=True)
    [choice] = stopped["choices"]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("", "stop")
    assert choice["logprobs"]["content"][0]["token"] == "<|im_end|>"
    assert choice["logprobs"]["content"][0]["bytes"] is None
    assert choice["bits_per_byte"] is None
    assert stopped["usage"]["completion_tokens"] == 1
    going = post(client, CHAT, seed=1, logit_bias={str(ended): 100}, max_tokens=3, ignore_eos=True)
    assert (going["choices"][0]["finish_reason"], going["usage"]["completion_tokens"]) == ("length", 3)
    special = engine.served.tokenizer.ids["<|im_start|>"]  # no end token, and no part of the text
    named = post(client, CHAT, seed=1, logit_bias={str(special): 100}, max_tokens=9, stop=["<|im_start|>"])
    assert (named["choices"][0]["finish_reason"], named["usage"]["completion_tokens"]) == ("stop", 1)
    biased = {"logit_bias": {"97": 100}, "max_tokens": 9}
    [choice] = post(client, COMPLETIONS, prompt="x", **biased, stop="aaa")["choices"]
    assert (choice["text"], choice["finish_reason"]) == ("", "stop")
    [choice] = post(client, COMPLETIONS, prompt="x", **biased, stop=["ba", "aab"])["choices"]
    assert (choice["text"], choice["finish_reason"]) == ("a" * 9, "length")


def test_a_full_context_ends_a_text_unless_its_beginning_is_left_out(client: Any) -> None:
    whole = [7] * CONTEXT
    [choice] = post(client, COMPLETIONS, prompt=whole, max_tokens=9, ignore_eos=True, return_token_ids=True)["choices"]
    assert (len(choice["token_ids"]), choice["finish_reason"]) == (1, "length")
    longer = post(client, COMPLETIONS, prompt=[7] * 300, max_tokens=9, ignore_eos=True, truncate="left", echo=True)
    assert longer["usage"] | {"prompt_tokens_details": None} == {
        "prompt_tokens": CONTEXT, "completion_tokens": 9, "total_tokens": CONTEXT + 9, "prompt_tokens_details": None
    }  # fmt: skip
    turns = [
        {"role": role, "content": f"{number:3} " + "a" * 30} for number in range(12) for role in ("user", "assistant")
    ]
    messages = [{"role": "system", "content": "Be brief."}, *turns[:-1]]
    found = post(client, CHAT, messages=messages, truncate="left", max_tokens=20, return_token_ids=True)
    read = bytes(id for id in found["prompt_token_ids"] if id < 256).decode()
    assert read.startswith("system\nBe brief.\nuser\n")
    assert "\n11 aaa" in read
    assert "10 aaa" not in read
    assert len(found["prompt_token_ids"]) <= CONTEXT - 20


def test_a_shared_beginning_of_prompts_is_counted_as_cached(client: Any) -> None:
    prompt = "A beginning of prompts. " * 6
    post(client, COMPLETIONS, prompt=prompt, max_tokens=1)
    again = post(client, COMPLETIONS, prompt=prompt, max_tokens=1)["usage"]
    assert 0 < again["prompt_tokens_details"]["cached_tokens"] < again["prompt_tokens"]
