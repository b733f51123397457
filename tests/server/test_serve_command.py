"""The command serve: its settings, its address and keys, what it prints, and how it ends."""

from __future__ import annotations

import http.client
import json
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from served import HOME
from starlette.testclient import TestClient

from clearstory.cli.commands.serve import describe
from clearstory.errors import BadSetting, ClearstoryError
from clearstory.http.listening import make_server
from clearstory.models.base import LanguageModel
from clearstory.recipes.settings.serving import ServeRecipe
from clearstory.server import thread_choice
from clearstory.server.process import (
    KEY_VARIABLE,
    OpenAIProtocol,
    OpenedServer,
    api_keys,
    named_models,
    open_server,
    serving_server,
)

KEY = "sk-a-secret-key"


@contextmanager
def opened(folder: Path, **settings: Any) -> Iterator[OpenedServer]:
    """A server of one model that is ready and does not serve yet."""
    defaults: dict[str, Any] = {"models": (f"tiny={folder}",), "port": 0, "threads": 1, "precision": "fp32"}
    server = open_server(ServeRecipe(**{**defaults, **settings}), lambda _: None)
    try:
        yield server
    finally:
        server.listener.close()
        for engine in server.engines.values():
            engine.stop()


def test_models_are_named_by_their_folders_or_as_the_command_says(tmp_path: Path) -> None:
    recipe = ServeRecipe(models=("runs/book/model", "small=models/a.gguf", "models/b.gguf"))
    assert named_models(recipe) == {"book": "runs/book/model", "small": "models/a.gguf", "b": "models/b.gguf"}
    odd = tmp_path / "a=b"
    odd.mkdir()
    assert named_models(ServeRecipe(models=(str(odd),))) == {"a=b": str(odd)}
    with pytest.raises(BadSetting, match="two models have the name 'a'"):
        named_models(ServeRecipe(models=("x/a", "y/a")))
    with pytest.raises(BadSetting, match="MODEL is missing"):
        ServeRecipe(models=())


def test_settings_reach_the_engines_and_the_policy(model_folder: Path) -> None:
    with opened(
        model_folder, max_running=3, max_waiting=5, timeout=7.5, allow_host=("models.example",),
        allow_origin=("http://localhost:3000",), int8=True, precision="auto", device="cpu",
    ) as server:  # fmt: skip
        engine = server.engines["tiny"]
        assert (engine.limits.max_running, engine.limits.max_waiting, engine.limits.timeout) == (3, 5, 7.5)
        assert engine.limits.threads == 1
        assert engine.served.int8
        assert "models.example" in server.policy.hosts
        assert server.policy.origins == {"http://localhost:3000"}
        told = server.to_json()
        assert told["port"] == server.listener.getsockname()[1] > 0
        assert told["url"] == f"http://127.0.0.1:{told['port']}/v1"
        shown = describe(server)
        assert f"serving at {told['url']}" in shown
        assert "curl http://127.0.0.1:" in shown
        assert '"model": "tiny"' in shown


def test_limits_reach_the_requests(model_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    limits: dict[str, Any] = {"max_tokens": 5, "max_request_bytes": 2000, "drain_seconds": 9, "log_contents": True}
    with opened(model_folder) as server:
        ready = serving_server(server, ServeRecipe(models=("tiny",), **limits))
        assert ready.config.timeout_graceful_shutdown == 9
        client = TestClient(ready.config.app, base_url=HOME)  # type: ignore[arg-type]
        body = {"model": "tiny", "prompt": "a", "max_tokens": 6}
        assert client.post("/v1/completions", json=body).json()["error"]["code"] == "integer_above_max_value"
        assert client.post("/v1/completions", json={**body, "prompt": "a" * 2000}).status_code == 413
        assert "max_tokens" in json.loads(capsys.readouterr().err.splitlines()[0])["contents"]


def test_handlers_of_other_libraries_stay_open() -> None:
    class Handler(logging.NullHandler):
        closed = False

        def close(self) -> None:
            self.closed = True
            super().close()

    handler = Handler()
    make_server(None, OpenAIProtocol, drain_seconds=1)
    assert not handler.closed
    handler.close()


def test_other_machines_need_a_key_or_open_access(model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    with pytest.raises(BadSetting, match=r"there is no API key; .*--open-access"):
        open_server(ServeRecipe(models=("none",), host="0.0.0.0", port=0), lambda _: None)
    with opened(model_folder, host="0.0.0.0", open_access=True) as server:
        assert server.policy.keys == ()
    with opened(model_folder, host="0.0.0.0", api_key=KEY) as server:
        assert server.policy.keys == (KEY,)
        assert "Authorization: Bearer $CLEARSTORY_API_KEY" in describe(server)
        assert KEY not in describe(server) + json.dumps(server.to_json()) + repr(server)


def test_keys_come_from_the_flag_the_file_and_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "keys.txt"
    file.write_text("one\n\n  two  \n")
    monkeypatch.setenv(KEY_VARIABLE, "three")
    recipe = ServeRecipe(models=("m",), api_key="zero", api_key_file=file)
    assert api_keys(recipe) == ["zero", "one", "two", "three"]
    file.write_text("\n")
    with pytest.raises(BadSetting, match="contains no API key"):
        api_keys(recipe)
    file.write_text("a key\n")
    with pytest.raises(BadSetting, match="with spaces"):
        api_keys(recipe)
    with pytest.raises(ClearstoryError, match=r"missing\.txt"):
        api_keys(ServeRecipe(models=("m",), api_key_file=tmp_path / "missing.txt"))
    with pytest.raises(BadSetting, match="api_key") as error:
        ServeRecipe(models=("m",), api_key="sécret")
    assert "sécret" not in str(error.value)


def test_addresses_and_models_that_cannot_be_used_are_one_sentence(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(BadSetting, match="--port 0"):
            open_server(ServeRecipe(models=("m",), port=taken.getsockname()[1]), lambda _: None)
    with pytest.raises(ClearstoryError, match="nowhere"):
        open_server(ServeRecipe(models=(str(tmp_path / "nowhere"),), port=0), lambda _: None)
    with pytest.raises(BadSetting, match="between 0 and 65,535"):
        ServeRecipe(models=("m",), port=70_000)
    with pytest.raises(BadSetting, match="allow_origin is 'localhost'"):
        ServeRecipe(models=("m",), allow_origin=("localhost",))


def test_the_fastest_number_of_threads_is_chosen(served_model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    def speeds(values: dict[int, float]) -> Any:
        def measure(model: LanguageModel, numbers: list[int]) -> dict[int, float]:
            assert numbers == [4, 2, 1]
            return values

        return measure

    before = torch.get_num_threads()
    try:
        for values, chosen in (
            ({4: 90.0, 2: 60.0, 1: 40.0}, 4),
            ({4: 50, 2: 90.0, 1: 60}, 2),
            ({4: 98, 2: 100, 1: 9}, 4),
        ):
            monkeypatch.setattr(thread_choice, "measure_speeds", speeds(values))  # type: ignore[arg-type]
            choice = thread_choice.choose_threads([served_model.model], 4)
            assert choice.threads == torch.get_num_threads() == chosen
            assert f"{values[chosen]:,.0f} tokens/s with {chosen}" in str(choice)
        monkeypatch.undo()
        assert set(thread_choice.measure_speeds(served_model.model, [1])) == {1}
        assert str(thread_choice.choose_threads([], 2)) == "2 CPU threads"
    finally:
        torch.set_num_threads(before)


def test_a_server_outlives_its_models_folder_and_finishes_requests_after_a_signal(
    model_folder: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(model_folder, tmp_path / "model")
    process = subprocess.Popen(
        [sys.executable, "-m", "clearstory", "serve", f"tiny={folder}", "--port", "0", "--threads", "1", "--json"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, KEY_VARIABLE: KEY},
    )  # fmt: skip
    try:
        assert process.stdout is not None
        told = json.loads(process.stdout.readline())
        assert told["needs_key"] is True
        shutil.rmtree(folder)
        connection = http.client.HTTPConnection("127.0.0.1", told["port"], timeout=60)
        body = {"model": "tiny", "prompt": "a", "max_tokens": 120, "stream": True, "ignore_eos": True}
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {KEY}"}
        connection.request("POST", "/v1/completions", json.dumps(body), headers)
        response = connection.getresponse()
        assert response.status == 200
        process.send_signal(signal.SIGTERM)
        assert response.read().endswith(b"data: [DONE]\n\n")
        connection.close()
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0
        assert out == ""
        assert KEY not in err
        line = json.loads(err.splitlines()[-1])
        assert (line["status"], line["generated_tokens"]) == (200, 120)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", told["port"]), timeout=5).close()
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()
