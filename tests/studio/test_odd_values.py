"""Odd values: whatever a field of a request holds, the answer is data or one sentence, never an internal error.

Routes, fields and settings are enumerated from the code, so a new one is tried as well.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient
from studio_home import client

from clearstory.lens.registry import VIEWS, load_view
from clearstory.recipes.settings.schema import setting_table
from clearstory.recipes.settings.training import TrainRecipe
from clearstory.studio import run_processes
from clearstory.studio.app import ENDPOINTS
from clearstory.studio.view_api import ARRAY_FUNCTIONS, keyword_settings

VALUES = (
    "null", "[]", "{}", '""', '"\\ud800"', "1e308", "-1e308", "NaN", "1e999", "-1", "0", "0.5", "true",
    '"\\u0000"', '"\\ud83d\\udc4d the cat"', "[0]", "[[1]]", "[null]", '{"a": 1}', '"1e308"', '"nan"', '["x"]',
    str(2**63 - 1), str(10**4000), str(10**200)[:150], '"' + "9" * 5000 + '"', '"' + "a" * 70_000 + '"',
    "[" * 5000 + "]" * 5000, '{"a":' * 5000 + "1" + "}" * 5000, "9" * 5000, "-Infinity", '"../x"', '"x/../../y"',
)  # fmt: skip
"""Values as JSON: of other types, too large, too long, too deep, not Unicode, not even JSON."""

Case = tuple[str, str, str]
"""The path of a request, its body, and what it tries."""


@pytest.fixture
def studio(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    """A studio whose training runs end at once."""
    started: list[subprocess.Popen[bytes]] = []
    original = subprocess.Popen

    def start(*arguments: Any, **options: Any) -> subprocess.Popen[bytes]:
        started.append(original(*arguments, **options))
        return started[-1]

    monkeypatch.setattr(run_processes, "COMMAND", (sys.executable, "-S", "-c", "pass"))
    monkeypatch.setattr(run_processes, "MAX_RUNS", 10**9)
    monkeypatch.setattr(run_processes.subprocess, "Popen", start)
    yield client(folder)
    for process in started:
        process.wait()


def body(fields: dict[str, Any], name: str, value: str, settings: str | None = None) -> str:
    """A JSON body in which one field has a value given as JSON; `settings` is the inside of that object."""
    parts = [f"{json.dumps(key)}: {json.dumps(each)}" for key, each in fields.items() if key != name]
    parts += [f"{json.dumps(name)}: {value}"] if name else []
    parts += [] if settings is None else [f'"settings": {{{settings}}}']
    return "{" + ", ".join(parts) + "}"


def field_cases() -> Iterator[list[Case]]:
    """For each field of each request, a case for every value."""
    for endpoint in ENDPOINTS:
        if endpoint.request is None or endpoint.method != "POST":
            continue
        names = [*setting_table(endpoint.request_class()), "unknown"]
        usual = {"model": "models/clear", "final_model": "models/clear", "text": "the cat", "name": "runs/short"}
        usual = {name: value for name, value in usual.items() if name in names}
        for name in names:
            yield [(endpoint.path, body(usual, name, value), f"{name} = {value[:40]}") for value in VALUES]


def setting_cases() -> Iterator[list[Case]]:
    """For each setting of each view, array function and training run, a case for every value."""
    for view in VIEWS:
        usual = {"model": "models/clear", "text": "the cat", "view": view}
        for name in [*(row["name"] for row in keyword_settings(load_view(view))), "prompt"]:
            yield [setting_case("/api/view", usual, f'"{name}": {value}', f"{view} {name}") for value in VALUES]
        yield [("/api/view", body(usual, "text", value), f"{view} text = {value[:40]}") for value in VALUES]
    for function, module in ARRAY_FUNCTIONS.items():
        usual = {"model": "models/clear", "text": "the cat", "function": function}
        for row in keyword_settings(getattr(import_module(module), function)):
            name = row["name"]
            yield [setting_case("/api/arrays", usual, f'"{name}": {value}', f"{function} {name}") for value in VALUES]
    for number, key in enumerate(setting_table(TrainRecipe)):
        yield [
            setting_case("/api/runs", {"name": f"run-{number}-{at}"}, f'"text": ["words.txt"], "{key}": {value}', key)
            for at, value in enumerate(VALUES)
        ]


def setting_case(path: str, usual: dict[str, Any], settings: str, tried: str) -> Case:
    """A case whose settings are these, written as the inside of an object."""
    return path, body(usual, "", "", settings), f"{tried}: {settings[:80]}"


def check(studio: TestClient, case: Case) -> None:
    """The answer is data, or one sentence with a status of 4xx."""
    path, content, tried = case
    answer = studio.post(path, content=content, headers={"Content-Type": "application/json"})
    assert answer.status_code < 500, f"{path} {tried}: {answer.text[:300]}"
    if answer.status_code >= 400:
        sentence = answer.json()["error"]
        assert 10 < len(sentence) < 2100, f"{path} {tried}: {sentence[:300]}"
        assert "\n" not in sentence


def test_every_route_is_tried() -> None:
    tried = {case[0] for cases in (*field_cases(), *setting_cases()) for case in cases}
    assert tried == {endpoint.path for endpoint in ENDPOINTS if endpoint.method == "POST"}


def test_no_value_of_any_field_is_an_internal_error(studio: TestClient) -> None:
    for number, cases in enumerate(field_cases()):
        for case in islice(cases, number % 4, None, 4):  # each field with a quarter of the values
            check(studio, case)


def test_no_value_of_any_setting_is_an_internal_error(studio: TestClient) -> None:
    for number, cases in enumerate(setting_cases()):
        check(studio, cases[number % len(cases)])


@pytest.mark.slow
@pytest.mark.parametrize("cases", [field_cases, setting_cases])
def test_every_value_of_every_field_and_setting(studio: TestClient, cases: Any) -> None:
    for each in cases():
        for case in each:
            check(studio, case)


def test_odd_query_strings_are_answered(studio: TestClient) -> None:
    odd = ("", "%00", "%ff", "\\", "..", "a" * 2000, "%F0%9F%91%8D", "runs%2Fshort%00", "-1", "1e308", "9" * 5000, "[]")
    for endpoint in ENDPOINTS:
        if endpoint.request is None or endpoint.method != "GET":
            continue
        for name in [*setting_table(endpoint.request_class()), "unknown"]:
            for value in odd:
                rest = "" if name == "name" else "&name=runs/short"
                answer = studio.get(f"{endpoint.path}?{name}={value}{rest}")
                assert answer.status_code < 500, (endpoint.path, name, value, answer.text[:300])


def test_texts_and_bodies_are_bounded(studio: TestClient) -> None:
    def ask(**fields: Any) -> str:
        answer = studio.post("/api/trace", json={"model": "models/clear", **fields})
        assert answer.status_code == 400
        return str(answer.json()["error"])

    assert "at most 20,000" in ask(text="a" * 20_001)
    assert "more than 10,000 values" in ask(activations=["x"] * 10_001)
    assert "nested deeper than 16" in ask(text=json.loads("[" * 20 + "]" * 20))
    assert "64 bits" in ask(top=2**63)
    long = {"model": "models/clear", "view": "generation", "text": "a", "settings": {"max_tokens": 10**9}}
    assert "the studio takes at most 256" in studio.post("/api/view", json=long).text
