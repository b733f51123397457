"""Responses of the studio equal results of the library; errors are one sentence, returned quickly."""

from __future__ import annotations

import json
import math
import shutil
import struct
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from starlette.testclient import TestClient
from studio_home import HOSTILE, TEXT, client

import clearstory
from clearstory.generation.sampling import filtered_probabilities
from clearstory.generation.settings import Sampling
from clearstory.lens.hooks.activations import record_activations
from clearstory.lens.hooks.passage import encode_passage
from clearstory.lens.registry import VIEWS
from clearstory.studio.model_cache import ModelCache

SECONDS = 5.0


def post(studio: TestClient, path: str, **body: Any) -> Any:
    """The data of a successful response."""
    answer = studio.post(f"/api/{path}", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def sentence(answer: Any, status: int = 400) -> str:
    """The error message of a response: one line, no traceback, within five seconds."""
    assert answer.status_code == status, answer.text
    result: str = answer.json()["error"]
    assert "\n" not in result
    assert "Traceback" not in result
    assert answer.elapsed.total_seconds() < SECONDS
    return result


# ---- equal to the library


def test_a_trace_holds_the_tokens_and_the_requested_activations(made: Path, studio: TestClient) -> None:
    opened = clearstory.open(made / "models" / "clear")
    tap = "blocks.1.attention.pattern"
    result = post(studio, "trace", model="models/clear", text=TEXT, activations=[tap], top=3)
    assert [token["id"] for token in result["tokens"]] == opened.tokenizer.encode(TEXT)
    assert "".join(TEXT[token["start"] : token["stop"]] for token in result["tokens"]) == TEXT
    assert sum(token["bytes"] for token in result["tokens"]) == len(TEXT.encode())
    seen = encode_passage(opened.model, opened.tokenizer, TEXT)
    with torch.no_grad(), record_activations(opened.model, tap) as watched:
        seen.forward(opened.model)
    assert result["activations"][tap]["values"] == watched[tap].tolist()
    logits = opened.logits([seen.ids])[0, -1].double()
    best = logits.topk(3)
    assert [row[1] for row in result["next_token"]["rows"]] == best.indices.tolist()
    assert [row[2] for row in result["next_token"]["rows"]] == pytest.approx(best.values.tolist(), rel=1e-5)


def able(made: Path) -> list[tuple[str, str]]:
    """Every view that each model supports."""
    studio = client(made)
    found = []
    for name in ("clear", "lstm", "ngram"):
        views = studio.get("/api/views", params={"name": f"models/{name}"}).json()["views"]
        assert {view["name"] for view in views} == set(VIEWS)
        found += [(name, view["name"]) for view in views if view["available"]]
        assert all(len(view["reason"]) > 20 for view in views if not view["available"])
    return found


def test_every_supported_view_equals_inspect(made: Path, studio: TestClient) -> None:
    pairs = able(made)
    assert {view for _, view in pairs} >= {"next-token", "surprisal", "attention", "gates", "backoff"}
    opened = {name: clearstory.open(made / "models" / name) for name in {model for model, _ in pairs}}
    for model, view in pairs:
        answer = studio.post("/api/view", json={"model": f"models/{model}", "text": TEXT, "view": view})
        assert answer.json() == own_answer(opened[model], view), f"{view} of {model}"


def own_answer(model: Any, view: str) -> Any:
    """The view that `inspect` returns, or its error."""
    try:
        return json.loads(json.dumps(clearstory.inspect(model, TEXT, view=view).to_json()))
    except clearstory.ClearstoryError as error:
        return {"error": str(error)}


def test_files_of_a_view_are_those_of_inspect(made: Path, studio: TestClient, tmp_path: Path) -> None:
    for format in ("svg", "csv", "html"):
        file = tmp_path / f"view.{format}"
        clearstory.inspect(made / "models" / "clear", TEXT, view="attention", out=file, layer=0, head=1)
        result = {"model": "models/clear", "text": TEXT, "view": "attention", "settings": {"layer": 0, "head": "1"}}
        answer = studio.post("/api/view", json={**result, "format": format})
        assert answer.text == file.read_text(encoding="utf-8")


def test_settings_of_views_are_the_parameters_of_their_functions(studio: TestClient) -> None:
    views = studio.get("/api/views", params={"name": "models/clear"}).json()["views"]
    rows = {row["name"]: row for view in views if view["name"] == "attention" for row in view["settings"]}
    assert rows["layer"]["kind"] == "integer"
    assert rows["layer"]["default"] is None
    assert rows["head"]["default"] is None


def test_arrays_are_returned_as_bytes(made: Path, studio: TestClient) -> None:
    taps = ["blocks.0.attention.pattern", "blocks.0"]
    answer = studio.post("/api/arrays", json={"model": "models/clear", "text": TEXT, "settings": {"activations": taps}})
    (length,) = struct.unpack("<I", answer.content[:4])
    header = json.loads(answer.content[4 : 4 + length])
    assert (4 + length) % 4 == 0  # typed arrays require it
    opened = clearstory.open(made / "models" / "clear")
    with torch.no_grad(), record_activations(opened.model, *taps) as watched:
        encode_passage(opened.model, opened.tokenizer, TEXT).forward(opened.model)
    assert {row["name"] for row in header["arrays"]} == set(taps)
    for row in header["arrays"]:
        begin = 4 + length + row["at"]
        numbers = np.frombuffer(answer.content, "<f4", math.prod(row["shape"]), begin).reshape(row["shape"])
        assert np.array_equal(numbers, watched[row["name"]].numpy())


@pytest.mark.parametrize(
    "how",
    [{}, {"temperature": 0.5, "top_k": 4}, {"top_p": 0.6}, {"temperature": 1.7, "min_p": 0.1}, {"temperature": 0}],
)
def test_truncation_equals_that_of_sampling(made: Path, studio: TestClient, how: dict[str, Any]) -> None:
    result = post(studio, "next-token", model="models/clear", text=TEXT, show=100, **how)
    opened = clearstory.open(made / "models" / "clear")
    logits = opened.logits([encode_passage(opened.model, opened.tokenizer, TEXT).ids])[0, -1].double()
    sampling = Sampling(**how)
    warm = (logits / (sampling.temperature or 1)).softmax(-1)
    if sampling.temperature == 0:
        left = {int(logits.argmax()): 1.0}
    else:
        ids, probabilities = filtered_probabilities(logits / sampling.temperature, sampling)
        ids = torch.arange(len(logits)) if ids is None else ids
        left = dict(zip(ids.tolist(), (probabilities / probabilities.sum()).tolist(), strict=True))
    assert {row["id"] for row in result["tokens"] if row["kept"]} == set(left)
    assert result["kept"] == len(left)
    for row in result["tokens"]:
        assert row["probability"] == pytest.approx(float(warm[row["id"]]), rel=1e-4)
        assert row["sampling_probability"] == pytest.approx(left.get(row["id"], 0.0), rel=1e-4)
    assert sum(row["sampling_probability"] for row in result["tokens"]) == pytest.approx(1.0)
    assert result["entropy"] == pytest.approx(float(-(warm * warm.log2()).sum()), rel=1e-4)


@pytest.mark.parametrize("model", ["clear", "lstm", "ngram"])
@pytest.mark.parametrize("how", [{"temperature": 0.9, "top_k": 6, "seed": 3}, {"temperature": 0, "seed": 0}])
def test_generated_tokens_equal_generate(made: Path, studio: TestClient, model: str, how: dict[str, Any]) -> None:
    # 26 tokens overflow the context of 24, which is then shortened.
    whole = clearstory.generate(made / "models" / model, TEXT, max_tokens=26, **how).completions[0]
    written: list[int] = []
    for logprob in whole.logprobs:
        result = post(studio, "generated-token", model=f"models/{model}", text=TEXT, generated=written, **how)
        assert result["logprob"] == pytest.approx(logprob, abs=1e-4)
        written.append(result["id"])
        assert any(row["id"] == result["id"] and row["kept"] for row in result["alternatives"])
    assert tuple(written) == whole.ids
    assert result["text"] == whole.text


def test_generation_can_branch_at_any_token(made: Path, studio: TestClient) -> None:
    result = post(studio, "generated-token", model="models/clear", text=TEXT, generated=[])
    other = next(row["id"] for row in result["alternatives"] if row["id"] != result["id"])
    after = post(studio, "generated-token", model="models/clear", text=TEXT, generated=[other], temperature=0)
    opened = clearstory.open(made / "models" / "clear")
    ids = [*encode_passage(opened.model, opened.tokenizer, TEXT).ids, other]
    assert after["id"] == int(opened.logits([ids])[0, -1].argmax())


def test_hostile_words_are_only_text(studio: TestClient) -> None:
    result = post(studio, "trace", model="models/hostile", text=f"the {HOSTILE} cat", top=0)
    assert [token["piece"] for token in result["tokens"]][1] == HOSTILE
    page = studio.post(
        "/api/view", json={"model": "models/hostile", "text": f"the {HOSTILE}", "view": "surprisal", "format": "html"}
    ).text
    assert "<img" not in page
    assert "<script" not in page


# ---- the folder


def test_models_are_listed_without_being_opened(made: Path, studio: TestClient) -> None:
    models = {row["name"]: row for row in studio.get("/api/models").json()["models"]}
    assert set(models) == {"models/clear", "models/lstm", "models/hostile", "models/ngram", "runs/short"}
    opened = clearstory.open(made / "models" / "clear")
    assert models["models/clear"]["parameters"] == sum(each.numel() for each in opened.model.parameters())
    assert models["models/ngram"]["family"] == "ngram"
    assert models["runs/short"]["steps"] == sorted({0, 4, 8, *models["runs/short"]["steps"]})
    assert models["runs/short"]["bits_per_byte"] == clearstory.open(made / "runs" / "short").card.bits_per_byte


def test_a_checkpoint_is_a_model_too(studio: TestClient) -> None:
    first = post(studio, "view", model="runs/short/checkpoints/step-000000", text="the cat")
    last = post(studio, "view", model="runs/short/checkpoints/step-000008", text="the cat")
    assert first["rows"] != last["rows"]


def test_a_model_whose_files_changed_is_opened_again(folder: Path) -> None:
    studio = client(folder)
    before = post(studio, "view", model="models/clear", text="the cat")
    shutil.rmtree(folder / "models" / "clear")
    shutil.copytree(folder / "runs" / "short" / "model", folder / "models" / "clear")
    assert post(studio, "view", model="models/clear", text="the cat") != before


def test_the_least_recently_used_models_are_evicted(made: Path) -> None:
    cache = ModelCache(made, max_bytes=1)
    cache.get("models/clear")
    cache.get("models/lstm")
    assert list(cache.models) == ["models/lstm"]
    cache = ModelCache(made)
    one = cache.get("models/clear")
    cache.get("models/lstm")
    assert cache.get("models/clear") is one
    assert list(cache.models) == ["models/lstm", "models/clear"]


# ---- errors


@pytest.mark.parametrize(
    ("path", "body", "status", "message"),
    [
        ("view", {"model": "models/clera", "text": "x"}, 400, "did you mean 'clear'?"),
        ("view", {"model": "models/clear", "text": "x", "view": "atention"}, 404, "did you mean 'attention'?"),
        (
            "view",
            {"model": "models/clear", "text": "x", "view": "gates"},
            400,
            "this model (decoder) has no recurrent state",
        ),
        ("view", {"model": "models/clear", "text": "x", "settings": {"tpo": 3}}, 404, "did you mean 'top'?"),
        ("view", {"model": "models/clear", "text": "x", "settings": {"top": "many"}}, 400, "an integer"),
        ("view", {"model": "models/clear", "text": "x", "settings": {"top": 0}}, 400, "at least 1"),
        ("view", {"model": "models/clear", "text": "x", "settings": [1]}, 400, "not an object"),
        ("view", {"model": "models/clear", "text": "the cat " * 40}, 400, "the model's context holds 24"),
        ("view", {"model": "models/clear", "text": "", "view": "attention"}, 400, "the text is empty"),
        ("view", {"model": "models/clear", "text": 5}, 400, "it must be text"),
        ("view", {"model": "models/clear", "txt": "x"}, 404, "did you mean 'text'?"),
        ("view", {"text": "x"}, 400, "model is missing"),
        ("view", {"model": "models/clear", "text": "x", "format": "png"}, 400, "svg"),
        ("trace", {"model": "models/clear", "text": "x", "activations": ["blocks.9"]}, 404, "blocks"),
        (
            "arrays",
            {"model": "models/clear", "text": "x", "function": "head_pattrns"},
            404,
            "did you mean 'head_patterns'?",
        ),
        (
            "arrays",
            {"model": "models/clear", "text": "x", "settings": {"activation": "x"}},
            404,
            "did you mean 'activations'?",
        ),
        ("next-token", {"model": "models/clear", "text": "x", "temperature": -1}, 400, "0 is greedy"),
        ("next-token", {"model": "models/clear", "text": "x", "show": 0}, 400, "1 to 1,000"),
        (
            "generated-token",
            {"model": "models/clear", "text": "x", "generated": [99999]},
            400,
            "outside the model's vocabulary",
        ),
        (
            "generated-token",
            {"model": "models/clear", "text": "x", "beam": 4},
            400,
            "beam search does not generate token by token",
        ),
        ("runs", {"name": "../x", "settings": {}}, 400, "no valid name for a run"),
        ("runs/stop", {"name": "runs/none"}, 400, "is not being trained"),
        ("runs/resume", {"name": "runs/none"}, 400, "no longer exists"),
    ],
)
def test_invalid_requests_get_one_sentence(
    studio: TestClient, path: str, body: dict[str, Any], status: int, message: str
) -> None:
    assert message in sentence(studio.post(f"/api/{path}", json=body), status)


@pytest.mark.parametrize("body", [b"", b"{", b"[1]", b'"x"', b"\xff\xfe", b"[" * 100_000])
def test_bodies_that_are_not_json_objects_are_rejected(studio: TestClient, body: bytes) -> None:
    sentence(studio.post("/api/view", content=body, headers={"Content-Type": "application/json"}))


def test_a_text_beyond_the_context_still_has_tokens(studio: TestClient) -> None:
    result = post(studio, "trace", model="models/clear", text="the cat " * 40, top=0)
    assert len(result["tokens"]) == 320
    assert "context holds 24" in result["problem"]


def test_missing_and_incomplete_models_are_reported(folder: Path) -> None:
    studio = client(folder)
    ask = {"model": "models/clear", "text": TEXT}
    post(studio, "view", **ask)
    weights = folder / "models" / "clear" / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    assert "model.safetensors" in sentence(studio.post("/api/view", json=ask))
    weights.unlink()
    sentence(studio.post("/api/view", json=ask))
    assert {row["name"]: row["problem"] for row in studio.get("/api/models").json()["models"]}["models/clear"]
    (folder / "models" / "clear" / "config.json").write_text("{", encoding="utf-8")
    sentence(studio.post("/api/view", json=ask))
    shutil.rmtree(folder / "models" / "clear")
    assert "there is no folder" in sentence(studio.post("/api/view", json=ask))
    for each in (folder / "runs" / "short" / "checkpoints").glob("*-000004"):  # to resume from, and weights only
        shutil.rmtree(each)
    gone = {"model": "runs/short/checkpoints/step-000004", "text": TEXT}
    assert "there is no folder" in sentence(studio.post("/api/view", json=gone))
    shutil.rmtree(folder)
    assert "no longer exists" in sentence(studio.get("/api/models"))


def test_unknown_paths_are_reported(studio: TestClient) -> None:
    assert "there is no GET /api/nothing" in sentence(studio.get("/api/nothing"), 404)
    assert "there is no GET /api/view" in sentence(studio.get("/api/view"), 405)


def test_an_internal_error_is_one_sentence(studio: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: ModelCache, name: str) -> Any:
        raise ZeroDivisionError("seven")

    monkeypatch.setattr(ModelCache, "get", broken)
    assert "ZeroDivisionError" in sentence(studio.post("/api/view", json={"model": "models/clear"}), 500)


def test_a_disconnected_client_is_not_served(made: Path) -> None:
    import anyio

    from clearstory.studio.http_json import RequestCancelled

    cache, done = ModelCache(made), []

    async def gone() -> bool:
        return True

    async def there() -> bool:
        return False

    async def both() -> None:
        with pytest.raises(RequestCancelled):
            await cache.run("models/clear", lambda opened: done.append("gone"), gone)
        await cache.run("models/clear", lambda opened: done.append("there"), there)

    anyio.run(both)
    assert done == ["there"]


def test_one_request_per_model_at_a_time(made: Path) -> None:
    import anyio

    cache = ModelCache(made)
    running: list[str] = []
    most: dict[str, int] = {}

    def work(name: str) -> None:
        running.append(name)
        most[name] = max(most.get(name, 0), running.count(name))
        most["all"] = max(most.get("all", 0), len(running))
        time.sleep(0.05)
        running.remove(name)

    async def all_at_once() -> None:
        async with anyio.create_task_group() as group:
            for name in ("models/clear", "models/clear", "models/lstm", "models/lstm"):
                group.start_soon(cache.run, name, lambda opened, name=name: work(name))

    cache.get("models/clear")
    cache.get("models/lstm")
    anyio.run(all_at_once)
    assert most["models/clear"] == most["models/lstm"] == 1
    assert most["all"] == 2
