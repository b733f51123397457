"""The lens on served texts: views of the ids that a server returns are those of the same text opened in the lens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from served import MODEL, real_server
from starlette.testclient import TestClient

import clearstory
from clearstory.errors import BadSetting, VocabularyMismatch
from clearstory.studio.app import studio_app
from clearstory.text.decoded_text import decode_with_spans
from clearstory.text.train_tokenizer import train_tokenizer

VIEWS = ("attention", "next-token", "surprisal")


@pytest.fixture
def studio(model_folder: Path) -> TestClient:
    """The studio over the folder of the served model."""
    return TestClient(studio_app(model_folder.parent), base_url="http://127.0.0.1:8642")


def ask(studio: TestClient, path: str, **body: Any) -> dict[str, Any]:
    """What the studio answers, without times."""
    answer = studio.post(path, json={"model": MODEL, **body})
    assert answer.status_code == 200, answer.text
    return {name: value for name, value in answer.json().items() if name != "seconds"}


def served_ids(client: TestClient, path: str, **body: Any) -> tuple[list[int], list[int], Any]:
    """The prompt's ids, the generated ids, and the choice."""
    answer = client.post(
        path, json={"model": MODEL, "return_token_ids": True, "seed": 1, "max_tokens": 9, **body}
    ).json()
    [choice] = answer["choices"]
    prompt = answer.get("prompt_token_ids") or choice["prompt_token_ids"]
    return prompt, choice["token_ids"], choice


def test_views_of_a_message_are_those_of_the_ids_that_were_served(client: TestClient, studio: TestClient) -> None:
    prompt, _, _ = served_ids(client, "/v1/chat/completions", messages=[{"role": "user", "content": "hgfed"}])
    trace = {"activations": ["blocks.0.attention.*"], "top": 5}
    by_text = ask(studio, "/api/trace", text="hgfed", **trace)
    by_ids = ask(studio, "/api/trace", token_ids=prompt, **trace)
    assert by_text["activations"]
    for name in ("activations", "passage"):
        assert by_ids[name] == by_text[name], name
    assert by_ids["next_token"]["rows"] == by_text["next_token"]["rows"]
    assert [each["id"] for each in by_ids["tokens"]] == prompt
    # A head that is not named is chosen by the tokens of the message, which ids do not tell from those of the template.
    for view, settings in {"attention": {"layer": 1, "head": 0}, "next-token": {}}.items():
        read = [{"text": "hgfed"}, {"token_ids": prompt}]
        shown = [untitled(ask(studio, "/api/view", view=view, settings=settings, **each)) for each in read]
        assert shown[0] == shown[1], view


def test_any_written_token_of_a_served_text_has_the_views_of_the_same_text(
    client: TestClient, studio: TestClient, model_folder: Path
) -> None:
    prompt, written, choice = served_ids(
        client, "/v1/completions", prompt="abc", temperature=1, seed=4, logprobs=2, ignore_eos=True,
        logit_bias=letters_alone(model_folder),
    )  # fmt: skip
    text = "abc" + choice["text"]
    for at in (len(prompt), len(prompt) + 1, len(prompt) + len(written)):
        ids = (prompt + written)[:at]
        shown = decode_with_spans(clearstory.open(model_folder).tokenizer, ids)[0]
        assert text.startswith(shown)
        for view in VIEWS:
            by_text = ask(studio, "/api/view", view=view, text=shown, raw=True)
            assert ask(studio, "/api/view", view=view, token_ids=ids) == by_text, view


def test_whole_conversations_are_read_as_they_were_served(client: TestClient, model_folder: Path) -> None:
    said = [
        {"role": "user", "content": "abc"},
        {"role": "assistant", "content": "de"},
        {"role": "user", "content": "f"},
    ]
    prompt, written, _ = served_ids(client, "/v1/chat/completions", messages=said, temperature=0)
    opened = clearstory.open(model_folder)
    view = clearstory.inspect(opened, "", "attention", token_ids=[*prompt, *written])
    direct = opened.tokenizer.decode_bytes([*prompt, *written]).decode(errors="replace")
    assert decode_with_spans(opened.tokenizer, [*prompt, *written])[0] == direct
    assert len(view.row_labels) == len(prompt) + len(written)  # type: ignore[attr-defined]


def letters_alone(folder: Path) -> dict[str, int]:
    """Biases under which a text has letters alone, so that it can be encoded again."""
    tokenizer = clearstory.open(folder).tokenizer
    return {str(tokenizer.encode(letter)[0]): 100 for letter in "defghijk"}


def untitled(view: dict[str, Any]) -> dict[str, Any]:
    """A view without its title, which shows the text: that of ids has the chat template's words in it."""
    return {name: value for name, value in view.items() if name != "title"}


def test_ids_stand_alone_and_are_of_the_vocabulary(studio: TestClient, model_folder: Path) -> None:
    for body in ({"text": "a", "token_ids": [1]}, {"token_ids": [1], "raw": True}):
        answer = studio.post("/api/view", json={"model": MODEL, **body})
        assert answer.status_code == 400
        assert "token_ids are read as they are" in answer.text
    with pytest.raises(VocabularyMismatch):
        clearstory.inspect(model_folder, "", token_ids=[10**6])
    with pytest.raises(BadSetting, match="leave compare_model and compare_text out"):
        clearstory.inspect(model_folder, "", token_ids=[1], compare_text="b")
    arrays = {"model": MODEL, "token_ids": [1, 2, 3], "settings": {"activations": ["residual.0"]}}
    assert studio.post("/api/arrays", json={**arrays, "function": "activation_arrays"}).status_code in (200, 404)


def test_spans_are_the_characters_of_each_token() -> None:
    text = "Käse 🧀 zwei"
    tokenizer = train_tokenizer("bytes", [])
    shown, encoded = decode_with_spans(tokenizer, [*tokenizer.encode(text), 0xF0, 0x9F])
    assert shown == text + "�"
    assert encoded.spans[:3] == ((0, 1), (1, 2), (1, 2))  # K and the two bytes of ä
    assert encoded.spans[6:10] == ((5, 6),) * 4  # four bytes of one character
    assert encoded.spans[-1] == (len(text), len(text) + 1)
    words = train_tokenizer("words", ["the cat sat"])
    shown, encoded = decode_with_spans(words, words.encode("the cat sat"))
    assert [shown[a:b].strip() for a, b in filter(None, encoded.spans)] == ["the", "cat", "sat"]


def test_chat_with_our_own_server_is_chat_with_the_model(engines: Any, model_folder: Path) -> None:
    settings: dict[str, Any] = {"temperature": 1.0, "seed": 5, "max_tokens": 12, "system": "Be brief."}
    with real_server(engines) as running:
        remote = clearstory.chat(url=f"{running.url}/v1", **settings)
        local = clearstory.chat(model_folder, precision="fp32", **settings)
        for message in ("abc", "hgfed"):
            ours, theirs = local.ask(message), remote.ask(message)
            assert (theirs.text, theirs.generated_tokens) == (ours.text, ours.generated_tokens)
            assert theirs.prompt_tokens == ours.prompt_tokens
        with pytest.raises(clearstory.ClearstoryError, match=r"returned status 400: .*160"):
            remote.ask("abcdefgh" * 60)
    assert remote.messages == local.messages
