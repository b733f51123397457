"""What the studio answers is what the library says; what cannot be answered is one sentence, and soon."""

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
from clearstory.lens.hooks.passage import encode_passage
from clearstory.lens.registry import VIEWS
from clearstory.lens.hooks.activations import record_activations
from clearstory.studio.model_cache import ModelCache

SECONDS = 5.0


def post(studio: TestClient, path: str, **said: Any) -> Any:
    """The data of an answer."""
    answer = studio.post(f"/api/{path}", json=said)
    assert answer.status_code == 200, answer.text
    return answer.json()


def sentence(answer: Any, status: int = 400) -> str:
    """The sentence of what went wrong: one, no traceback, within five seconds."""
    assert answer.status_code == status, answer.text
    said: str = answer.json()["error"]
    assert "\n" not in said
    assert "Traceback" not in said
    assert answer.elapsed.total_seconds() < SECONDS
    return said


# ---- true


def test_a_trace_holds_the_tokens_and_the_numbers_at_its_taps(made: Path, studio: TestClient) -> None:
    opened = clearstory.open(made / "models" / "clear")
    tap = "blocks.1.attention.pattern"
    said = post(studio, "trace", model="models/clear", text=TEXT, taps=[tap], top=3)
    assert [token["id"] for token in said["tokens"]] == opened.tokenizer.encode(TEXT)
    assert "".join(TEXT[token["start"] : token["stop"]] for token in said["tokens"]) == TEXT
    assert sum(token["bytes"] for token in said["tokens"]) == len(TEXT.encode())
    seen = encode_passage(opened.model, opened.tokenizer, TEXT)
    with torch.no_grad(), record_activations(opened.model, tap) as watched:
        seen.hidden(opened.model)
    assert said["values"][tap]["values"] == watched[tap].tolist()
    logits = opened.logits([seen.ids])[0, -1].double()
    best = logits.topk(3)
    assert [row[1] for row in said["next"]["rows"]] == best.indices.tolist()
    assert [row[2] for row in said["next"]["rows"]] == pytest.approx(best.values.tolist(), rel=1e-5)


def able(made: Path) -> list[tuple[str, str]]:
    """Every view of every model here, as it can be asked for."""
    studio = client(made)
    found = []
    for name in ("clear", "lstm", "ngram"):
        views = studio.get("/api/views", params={"name": f"models/{name}"}).json()["views"]
        assert {view["name"] for view in views} == set(VIEWS)
        found += [(name, view["name"]) for view in views if view["able"]]
        assert all(len(view["reason"]) > 20 for view in views if not view["able"])
    return found


def test_every_view_that_a_model_can_show_is_the_librarys(made: Path, studio: TestClient) -> None:
    pairs = able(made)
    assert {view for _, view in pairs} >= {"next-token", "surprisal", "attention", "gates", "backoff"}
    opened = {name: clearstory.open(made / "models" / name) for name in {model for model, _ in pairs}}
    for model, view in pairs:
        answer = studio.post("/api/view", json={"model": f"models/{model}", "text": TEXT, "view": view})
        assert answer.json() == own_answer(opened[model], view), f"{view} of {model}"


def own_answer(model: Any, view: str) -> Any:
    """What `inspect` says: a view, or why there is none."""
    try:
        return json.loads(json.dumps(clearstory.inspect(model, TEXT, view=view).to_json()))
    except clearstory.ClearstoryError as error:
        return {"error": str(error)}


def test_files_of_a_view_are_those_of_inspect(made: Path, studio: TestClient, tmp_path: Path) -> None:
    for format in ("svg", "csv", "html"):
        file = tmp_path / f"view.{format}"
        clearstory.inspect(made / "models" / "clear", TEXT, view="attention", out=file, layer=0, head=1)
        said = {"model": "models/clear", "text": TEXT, "view": "attention", "settings": {"layer": 0, "head": "1"}}
        answer = studio.post("/api/view", json={**said, "format": format})
        assert answer.text == file.read_text(encoding="utf-8")


def test_settings_of_views_are_told_by_their_functions(studio: TestClient) -> None:
    views = studio.get("/api/views", params={"name": "models/clear"}).json()["views"]
    rows = {row["name"]: row for view in views if view["name"] == "attention" for row in view["settings"]}
    assert rows["layer"]["kind"] == "whole"
    assert rows["layer"]["default"] == -1
    assert rows["head"]["default"] is None


def test_numbers_travel_as_bytes(made: Path, studio: TestClient) -> None:
    taps = ["blocks.0.attention.pattern", "blocks.0"]
    answer = studio.post("/api/arrays", json={"model": "models/clear", "text": TEXT, "settings": {"taps": taps}})
    (length,) = struct.unpack("<I", answer.content[:4])
    header = json.loads(answer.content[4 : 4 + length])
    assert (4 + length) % 4 == 0  # typed arrays ask for it
    opened = clearstory.open(made / "models" / "clear")
    with torch.no_grad(), record_activations(opened.model, *taps) as watched:
        encode_passage(opened.model, opened.tokenizer, TEXT).hidden(opened.model)
    assert {row["name"] for row in header["arrays"]} == set(taps)
    for row in header["arrays"]:
        begin = 4 + length + row["at"]
        numbers = np.frombuffer(answer.content, "<f4", math.prod(row["shape"]), begin).reshape(row["shape"])
        assert np.array_equal(numbers, watched[row["name"]].numpy())


@pytest.mark.parametrize(
    "how",
    [{}, {"temperature": 0.5, "top_k": 4}, {"top_p": 0.6}, {"temperature": 1.7, "min_p": 0.1}, {"temperature": 0}],
)
def test_cuts_are_those_of_sampling(made: Path, studio: TestClient, how: dict[str, Any]) -> None:
    said = post(studio, "next-token", model="models/clear", text=TEXT, show=100, **how)
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
    assert {row["id"] for row in said["rows"] if row["kept"]} == set(left)
    assert said["kept"] == len(left)
    for row in said["rows"]:
        assert row["probability"] == pytest.approx(float(warm[row["id"]]), rel=1e-4)
        assert row["share"] == pytest.approx(left.get(row["id"], 0.0), rel=1e-4)
    assert sum(row["share"] for row in said["rows"]) == pytest.approx(1.0)
    assert said["entropy"] == pytest.approx(float(-(warm * warm.log2()).sum()), rel=1e-4)


@pytest.mark.parametrize("model", ["clear", "lstm", "ngram"])
@pytest.mark.parametrize("how", [{"temperature": 0.9, "top_k": 6, "seed": 3}, {"temperature": 0, "seed": 0}])
def test_steps_write_what_generate_writes(made: Path, studio: TestClient, model: str, how: dict[str, Any]) -> None:
    # 26 tokens: the context of 24 fills, and begins anew, on the way.
    whole = clearstory.generate(made / "models" / model, TEXT, max_tokens=26, **how).completions[0]
    written: list[int] = []
    for logprob in whole.logprobs:
        said = post(studio, "generated-token", model=f"models/{model}", text=TEXT, written=written, **how)
        assert said["logprob"] == pytest.approx(logprob, abs=1e-4)
        written.append(said["id"])
        assert any(row["id"] == said["id"] and row["kept"] for row in said["alternatives"])
    assert tuple(written) == whole.ids
    assert said["text"] == whole.text


def test_another_way_can_be_taken_from_any_step(made: Path, studio: TestClient) -> None:
    said = post(studio, "generated-token", model="models/clear", text=TEXT, written=[])
    other = next(row["id"] for row in said["alternatives"] if row["id"] != said["id"])
    after = post(studio, "generated-token", model="models/clear", text=TEXT, written=[other], temperature=0)
    opened = clearstory.open(made / "models" / "clear")
    ids = [*encode_passage(opened.model, opened.tokenizer, TEXT).ids, other]
    assert after["id"] == int(opened.logits([ids])[0, -1].argmax())


def test_hostile_words_are_only_text(studio: TestClient) -> None:
    said = post(studio, "trace", model="models/hostile", text=f"the {HOSTILE} cat", top=0)
    assert [token["piece"] for token in said["tokens"]][1] == HOSTILE
    page = studio.post(
        "/api/view", json={"model": "models/hostile", "text": f"the {HOSTILE}", "view": "surprisal", "format": "html"}
    ).text
    assert "<img" not in page
    assert "<script" not in page


# ---- the folder


def test_models_are_told_without_being_opened(made: Path, studio: TestClient) -> None:
    models = {row["name"]: row for row in studio.get("/api/models").json()["models"]}
    assert set(models) == {"models/clear", "models/lstm", "models/hostile", "models/ngram", "runs/short"}
    opened = clearstory.open(made / "models" / "clear")
    assert models["models/clear"]["parameters"] == sum(each.numel() for each in opened.model.parameters())
    assert models["models/ngram"]["family"] == "ngram"
    assert models["runs/short"]["steps"] == [0, 4, 8]
    assert models["runs/short"]["bits_per_byte"] == clearstory.open(made / "runs" / "short").card.bits_per_byte


def test_a_checkpoint_is_a_model_too(studio: TestClient) -> None:
    first = post(studio, "view", model="runs/short/checkpoints/step-000000", text="the cat")
    last = post(studio, "view", model="runs/short/checkpoints/step-000008", text="the cat")
    assert first["rows"] != last["rows"]


def test_a_model_that_was_written_anew_is_opened_anew(folder: Path) -> None:
    studio = client(folder)
    before = post(studio, "view", model="models/clear", text="the cat")
    shutil.rmtree(folder / "models" / "clear")
    shutil.copytree(folder / "runs" / "short" / "model", folder / "models" / "clear")
    assert post(studio, "view", model="models/clear", text="the cat") != before


def test_models_that_were_not_used_for_longest_are_put_away(made: Path) -> None:
    shelf = ModelCache(made, memory=1)
    shelf.take("models/clear")
    shelf.take("models/lstm")
    assert list(shelf.held) == ["models/lstm"]
    shelf = ModelCache(made)
    one = shelf.take("models/clear")
    shelf.take("models/lstm")
    assert shelf.take("models/clear") is one
    assert list(shelf.held) == ["models/lstm", "models/clear"]


# ---- what cannot be answered


@pytest.mark.parametrize(
    ("path", "said", "status", "says"),
    [
        ("view", {"model": "models/clera", "text": "x"}, 400, "did you mean 'clear'?"),
        ("view", {"model": "models/clear", "text": "x", "view": "atention"}, 404, "did you mean 'attention'?"),
        ("view", {"model": "models/clear", "text": "x", "view": "gates"}, 400, "it can show tokens, "),
        ("view", {"model": "models/clear", "text": "x", "settings": {"tpo": 3}}, 404, "did you mean 'top'?"),
        ("view", {"model": "models/clear", "text": "x", "settings": {"top": "many"}}, 400, "whole number"),
        ("view", {"model": "models/clear", "text": "x", "settings": {"top": 0}}, 400, "at least 1"),
        ("view", {"model": "models/clear", "text": "x", "settings": [1]}, 400, "no object"),
        ("view", {"model": "models/clear", "text": "the cat " * 40}, 400, "the model's context holds 24"),
        ("view", {"model": "models/clear", "text": "", "view": "attention"}, 400, "the text is empty"),
        ("view", {"model": "models/clear", "text": 5}, 400, "it must be text"),
        ("view", {"model": "models/clear", "txt": "x"}, 404, "did you mean 'text'?"),
        ("view", {"text": "x"}, 400, "model is missing"),
        ("view", {"model": "models/clear", "text": "x", "format": "png"}, 400, "svg"),
        ("trace", {"model": "models/clear", "text": "x", "taps": ["blocks.9"]}, 404, "blocks"),
        ("numbers", {"model": "models/clear", "text": "x", "what": "tabs"}, 404, "did you mean 'taps'?"),
        ("numbers", {"model": "models/clear", "text": "x", "settings": {"tap": "x"}}, 404, "did you mean 'taps'?"),
        ("next", {"model": "models/clear", "text": "x", "temperature": -1}, 400, "0 is greedy"),
        ("next", {"model": "models/clear", "text": "x", "show": 0}, 400, "1 to 1,000"),
        ("step", {"model": "models/clear", "text": "x", "written": [99999]}, 400, "outside the model's vocabulary"),
        ("step", {"model": "models/clear", "text": "x", "beam": 4}, 400, "beams are not written token by token"),
        ("runs", {"name": "../x", "settings": {}}, 400, "no name for a run"),
        ("runs/stop", {"name": "runs/none"}, 400, "is not being trained"),
        ("runs/resume", {"name": "runs/none"}, 400, "there is no run"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(
    studio: TestClient, path: str, said: dict[str, Any], status: int, says: str
) -> None:
    assert says in sentence(studio.post(f"/api/{path}", json=said), status)


@pytest.mark.parametrize("body", [b"", b"{", b"[1]", b'"x"', b"\xff\xfe", b"[" * 100_000])
def test_what_is_no_object_is_refused(studio: TestClient, body: bytes) -> None:
    sentence(studio.post("/api/view", content=body, headers={"Content-Type": "application/json"}))


def test_a_long_text_still_has_its_tokens(studio: TestClient) -> None:
    said = post(studio, "trace", model="models/clear", text="the cat " * 40, top=0)
    assert len(said["tokens"]) == 320
    assert "context holds 24" in said["note"]


def test_models_that_vanish_or_are_half_written_say_so(folder: Path) -> None:
    studio = client(folder)
    ask = {"model": "models/clear", "text": TEXT}
    post(studio, "view", **ask)
    weights = folder / "models" / "clear" / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    assert "model.safetensors" in sentence(studio.post("/api/view", json=ask))
    weights.unlink()
    sentence(studio.post("/api/view", json=ask))
    assert {row["name"]: row["note"] for row in studio.get("/api/models").json()["models"]}["models/clear"]
    (folder / "models" / "clear" / "config.json").write_text("{", encoding="utf-8")
    sentence(studio.post("/api/view", json=ask))
    shutil.rmtree(folder / "models" / "clear")
    assert "there is no folder" in sentence(studio.post("/api/view", json=ask))
    shutil.rmtree(folder / "runs" / "short" / "checkpoints" / "step-000004")
    gone = {"model": "runs/short/checkpoints/step-000004", "text": TEXT}
    assert "there is no folder" in sentence(studio.post("/api/view", json=gone))
    shutil.rmtree(folder)
    assert "is not there any more" in sentence(studio.get("/api/models"))


def test_a_path_that_does_not_exist_is_said_to(studio: TestClient) -> None:
    assert "there is no GET /api/nothing" in sentence(studio.get("/api/nothing"), 404)
    assert "there is no GET /api/view" in sentence(studio.get("/api/view"), 405)


def test_a_fault_of_ours_is_a_plain_sentence(studio: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: ModelCache, name: str) -> Any:
        raise ZeroDivisionError("seven")

    monkeypatch.setattr(ModelCache, "take", broken)
    assert "ZeroDivisionError" in sentence(studio.post("/api/view", json={"model": "models/clear"}), 500)


def test_who_has_gone_is_not_waited_for(made: Path) -> None:
    import anyio

    from clearstory.studio.http_json import RequestCancelled

    shelf, done = ModelCache(made), []

    async def gone() -> bool:
        return True

    async def there() -> bool:
        return False

    async def both() -> None:
        with pytest.raises(RequestCancelled):
            await shelf.use("models/clear", lambda opened: done.append("gone"), gone)
        await shelf.use("models/clear", lambda opened: done.append("there"), there)

    anyio.run(both)
    assert done == ["there"]


def test_a_model_answers_one_at_a_time_and_others_meanwhile(made: Path) -> None:
    import anyio

    shelf = ModelCache(made)
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
                group.start_soon(shelf.use, name, lambda opened, name=name: work(name))

    shelf.take("models/clear")
    shelf.take("models/lstm")
    anyio.run(all_at_once)
    assert most["models/clear"] == most["models/lstm"] == 1
    assert most["all"] == 2
