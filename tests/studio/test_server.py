"""The server: its address, its token, and that it is there at once, asks nobody, and ends on Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from clearstory.errors import BadInput, BadSetting
from clearstory.recipes.settings.inference import StudioRecipe
from clearstory.studio.server import listen
from clearstory.studio.wait_policy import VARIABLE, original_environment, use_passive_wait

LISTENED = """
import sys
def hear(event, args):
    if event in ("socket.connect", "socket.sendto"):
        address = args[1]
        if isinstance(address, tuple) and address[0] not in ("127.0.0.1", "::1"):
            print("REACHED OUT", event, address, file=sys.stderr, flush=True)
    elif event in ("socket.getaddrinfo", "socket.gethostbyname") and args[0] not in ("127.0.0.1", "localhost", None):
        print("REACHED OUT", event, args, file=sys.stderr, flush=True)
sys.addaudithook(hear)
from clearstory.cli.main import main
sys.exit(main(sys.argv[1:]))
"""
"""The command with an ear on every socket."""


@contextmanager
def served(folder: Path, *words: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    """A studio process and the JSON object that it prints."""
    process = subprocess.Popen(
        [sys.executable, "-c", LISTENED, "studio", str(folder), "--port", "0", "--json", *words],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        yield process, json.loads(process.stdout.readline())
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def ask(url: str, result: dict[str, Any] | None = None) -> Any:
    """An answer's data."""
    data = None if result is None else json.dumps(result).encode()
    with urllib.request.urlopen(urllib.request.Request(url, data, {"Content-Type": "application/json"})) as answer:
        return json.load(answer)


def test_a_studio_serves_connects_nowhere_and_ends_on_ctrl_c(made: Path) -> None:
    with served(made) as (process, result):
        url = result["url"]
        assert result["port"] > 0
        assert result["token"] is None
        assert url == f"http://127.0.0.1:{result['port']}/"
        with urllib.request.urlopen(url) as page:
            assert b"data-page" in page.read()
        assert ask(f"{url}health")["status"] == "ok"
        assert "torch" not in modules(process.pid)  # the page is there before a model is asked for
        ask(f"{url}api/models")
        ask(f"{url}api/view", {"model": "models/clear", "text": "the cat"})
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
        assert process.returncode == 130
        assert out == ""  # one JSON object, and no more
        assert "REACHED OUT" not in err
        assert err.strip() == "clearstory studio: stopped"


def modules(pid: int) -> str:
    """Libraries that a process has mapped; nothing where the system does not tell."""
    maps = Path(f"/proc/{pid}/maps")
    return " ".join(line.rsplit("/", 1)[-1] for line in maps.read_text().splitlines()) if maps.exists() else ""


def test_the_page_is_served_within_seconds_of_the_command(made: Path) -> None:
    begun = time.perf_counter()
    with served(made) as (_, result):
        urllib.request.urlopen(result["url"]).read()
        # 0.9 s here; torch alone takes 3.
        assert time.perf_counter() - begun < 10 * float(os.environ.get("CLEARSTORY_PATIENCE", "1"))


def test_addresses_reachable_from_other_machines_have_a_token(tmp_path: Path) -> None:
    place = listen(StudioRecipe(folder=tmp_path, host="0.0.0.0", port=0))
    assert place.token is not None
    assert len(place.token) >= 20
    assert place.url.endswith(f"/?token={place.token}")
    place.listener.close()
    other = listen(StudioRecipe(folder=tmp_path, host="0.0.0.0", port=0))
    other.listener.close()
    assert other.token != place.token
    own = listen(StudioRecipe(folder=tmp_path, port=0, token="my-own"))
    own.listener.close()
    assert own.token == "my-own"
    assert "127.0.0.1" in own.hosts


def test_addresses_that_cannot_be_bound_are_reported(tmp_path: Path) -> None:
    taken = listen(StudioRecipe(folder=tmp_path, port=0))
    taken.listener.listen()
    with pytest.raises(BadSetting, match="--port 0"):
        listen(StudioRecipe(folder=tmp_path, port=taken.port))
    taken.listener.close()
    with pytest.raises(BadSetting, match="not a valid address"):
        listen(StudioRecipe(folder=tmp_path, host="no such host"))
    with pytest.raises(BadInput, match="there is no folder"):
        listen(StudioRecipe(folder=tmp_path / "nowhere"))
    with pytest.raises(BadSetting, match="between 0 and 65,535"):
        StudioRecipe(port=70_000)


def test_responses_are_sent_without_delay(tmp_path: Path) -> None:
    place = listen(StudioRecipe(folder=tmp_path, port=0))
    with place.listener as listener:
        listener.listen()
        with socket.create_connection(listener.getsockname()), listener.accept()[0] as accepted:
            assert accepted.proto == socket.IPPROTO_TCP  # by which asyncio knows that it may switch Nagle's waiting off


def test_the_wait_policy_is_passive_except_for_training_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clearstory.studio.wait_policy.CHANGED", [])
    monkeypatch.setenv(VARIABLE, "active")
    use_passive_wait()
    assert os.environ[VARIABLE] == original_environment()[VARIABLE] == "active"
    monkeypatch.delenv(VARIABLE)
    use_passive_wait()
    assert os.environ[VARIABLE] == "passive"
    assert VARIABLE not in original_environment()
