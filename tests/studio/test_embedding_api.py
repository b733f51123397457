"""The embedding API equals the library, also over the checkpoints of a run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from starlette.testclient import TestClient

import clearstory
from clearstory.lens.probes.embeddings import input_embeddings, neighbours, unit_word_vectors
from clearstory.lens.probes.projection import fit_plane, project_on
from clearstory.studio.embedding_api import embedding_rows, nearest_embeddings

TEXT = "t h e c a"


def test_checkpoints_are_projected_on_the_axes_of_the_final_model(studio: TestClient, made: Path) -> None:
    run, first = "runs/short", "runs/short/checkpoints/step-000004"
    result = {"model": first, "final_model": run, "text": TEXT, "top": 2, "remove_components": 1}
    seen = studio.post("/api/checkpoint-projection", json=result).json()
    last, now = clearstory.open(made / run), clearstory.open(made / first)
    plane = fit_plane(last.model, last.tokenizer, TEXT, top=2, remove_components=1)
    view = project_on(now.model, now.tokenizer, plane, remove_components=1).to_json()
    extent = seen.pop("extent")
    assert seen == view
    end = studio.post("/api/checkpoint-projection", json={**result, "model": run}).json()
    xs, ys = ([point[axis] for point in end["points"]] for axis in ("x", "y"))
    assert extent == end["extent"] == pytest.approx([min(xs), max(xs), min(ys), max(ys)])
    assert studio.post("/api/checkpoint-projection", json={**result, "format": "svg"}).text.startswith("<svg")
    assert studio.post("/api/checkpoint-projection", json={**result, "text": ""}).json() == {
        "error": "the text is empty; give at least one word"
    }
    assert (
        "checkpoints of one run"
        in studio.post("/api/checkpoint-projection", json={**result, "final_model": "models/lstm"}).json()["error"]
    )
    assert studio.post("/api/checkpoint-projection", json={**result, "final_model": "../x"}).status_code == 400


def test_nearest_embeddings_are_the_unit_word_vectors(made: Path) -> None:
    opened = clearstory.open(made / "models" / "lstm")
    model, tokenizer = opened.model, opened.tokenizer
    seen = nearest_embeddings(model, tokenizer, "t", top=3, max_token_id=9)
    view = neighbours(model, tokenizer, "t", top=3, max_token_id=9)
    assert seen["labels"][1:] == view.column("token")
    assert seen["ids"][1:] == view.column("id")
    assert seen["caption"] == view.caption
    assert np.allclose(seen["values"] @ seen["values"][0], seen["cosines"], atol=1e-5)
    assert np.array_equal(seen["values"], unit_word_vectors(model, tokenizer)[seen["ids"]])
    ids = tokenizer.encode("the")
    assert np.array_equal(embedding_rows(model, tokenizer, "the")["values"], input_embeddings(model, ids))
    assert str(len(ids)) in embedding_rows(model, tokenizer, "the")["caption"]
