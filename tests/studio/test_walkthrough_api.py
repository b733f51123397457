"""Walkthrough over HTTP: the bytes that a page reads are the library's numbers, of a bounded size."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from starlette.testclient import TestClient
from studio_home import TEXT

import clearstory
from clearstory.lens.probes.walkthrough import walkthrough


def unpack(content: bytes) -> dict[str, Any]:
    """Plain data and arrays of a response, by name."""
    (size,) = struct.unpack_from("<I", content)
    header = json.loads(content[4 : 4 + size])
    found = dict(header["plain"])
    for entry in header["arrays"]:
        count = int(np.prod(entry["shape"]))
        found[entry["name"]] = np.frombuffer(content, entry["dtype"], count, 4 + size + entry["at"]).reshape(
            entry["shape"]
        )
    return found


@pytest.mark.parametrize("name", ["clear", "lstm", "ngram"])
def test_a_page_gets_the_numbers_of_the_library(name: str, made: Path, studio: TestClient) -> None:
    opened = clearstory.open(made / "models" / name)
    answer = studio.post("/api/arrays", json={"model": f"models/{name}", "text": TEXT, "function": "walkthrough"})
    assert answer.status_code == 200, answer.text
    found, expected = unpack(answer.content), walkthrough(opened.model, opened.tokenizer, TEXT)
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        if isinstance(value, torch.Tensor):
            np.testing.assert_allclose(found[key], value.double(), atol=1e-5, rtol=1e-5)
        else:
            assert found[key] == json.loads(json.dumps(value))


def test_given_ids_are_read_in_place_of_a_text(made: Path, studio: TestClient) -> None:
    opened = clearstory.open(made / "models" / "clear")
    ids = opened.tokenizer.encode(TEXT)
    body = {"model": "models/clear", "function": "walkthrough", "settings": {"layer": 0, "head": 1}}
    by_text, by_ids = (
        unpack(studio.post("/api/arrays", json=body | more).content) for more in ({"text": TEXT}, {"token_ids": ids})
    )
    assert [token["id"] for token in by_ids["tokens"]] == ids
    np.testing.assert_array_equal(by_ids["decoder.stream"], by_text["decoder.stream"])
    row = studio.post("/api/arrays", json=body | {"text": TEXT, "settings": {"rows": [13, 14], "layer": 0, "head": 1}})
    np.testing.assert_array_equal(unpack(row.content)["decoder.stream"], by_text["decoder.stream"][:, 13:])


def test_a_window_that_does_not_exist_is_refused_in_one_sentence(made: Path, studio: TestClient) -> None:
    body = {"model": "models/clear", "text": TEXT, "function": "walkthrough", "settings": {"rows": [3, 99]}}
    answer = studio.post("/api/arrays", json=body)
    assert answer.status_code == 400
    assert "3, 99" in answer.json()["error"]
