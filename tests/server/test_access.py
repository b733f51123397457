"""Access: Host, Origin, API keys, CORS, and what the log shows."""

from __future__ import annotations

import json
from typing import Any

import pytest
from served import HOME, MODEL, SilentLog, client_of
from starlette.testclient import TestClient

from clearstory.server.access_policy import AccessPolicy, make_policy

KEY = "sk-a-secret-key"
PAGE = "http://localhost:3000"


@pytest.fixture
def guarded(engines: Any) -> TestClient:
    """A client of a server with two API keys and an origin."""
    return client_of(engines, policy=AccessPolicy(keys=("other", KEY), origins=frozenset({PAGE})))


def code_of(response: Any, status: int) -> str:
    """The code of an error."""
    assert response.status_code == status, response.text
    code: str = response.json()["error"]["code"]
    return code


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "", "127.0.0.1@evil", "[::1", "0.0.0.0"])
def test_foreign_host_names_are_refused(client: TestClient, host: str) -> None:
    for path in ("/health", "/v1/models", "/none"):
        assert code_of(client.get(path, headers={"Host": host}), 400) == "wrong_host"


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:9999", f"{HOME}.evil", ""])
def test_pages_of_other_origins_are_refused(client: TestClient, origin: str) -> None:
    headers = {"Origin": origin}
    assert code_of(client.get("/v1/models", headers=headers), 403) == "wrong_origin"
    assert code_of(client.post("/v1/completions", json={}, headers=headers), 403) == "wrong_origin"
    preflight = {**headers, "Access-Control-Request-Method": "POST"}
    response = client.options("/v1/completions", headers=preflight)
    assert code_of(response, 403) == "wrong_origin"
    assert "access-control-allow-origin" not in response.headers


def test_the_server_answers_its_own_origin(client: TestClient) -> None:
    response = client.get("/v1/models", headers={"Origin": HOME})
    assert response.status_code == 200
    assert "access-control-allow-origin" not in response.headers
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["x-request-id"].startswith("req-")


def test_a_named_origin_is_allowed_and_needs_the_key_too(guarded: TestClient) -> None:
    headers = {"Origin": PAGE, "Access-Control-Request-Method": "POST"}
    preflight = guarded.options("/v1/chat/completions", headers=headers)
    assert preflight.status_code == 204
    assert preflight.headers["access-control-allow-origin"] == PAGE
    assert "Authorization" in preflight.headers["access-control-allow-headers"]
    refused = guarded.get("/v1/models", headers={"Origin": PAGE})
    assert code_of(refused, 401) == "missing_api_key"
    assert refused.headers["access-control-allow-origin"] == PAGE  # so that the page can show the error
    allowed = guarded.get("/v1/models", headers={"Origin": PAGE, "Authorization": f"Bearer {KEY}"})
    assert allowed.status_code == 200
    assert allowed.headers["vary"] == "Origin"


def test_api_keys_are_required_and_never_shown(engines: Any) -> None:
    log = SilentLog(contents=True)
    client = client_of(engines, policy=AccessPolicy(keys=("other", KEY)), log=log)
    assert client.get("/health").status_code == 200
    for header in (None, "", KEY, f"Basic {KEY}", "Bearer", "Bearer "):
        headers = {} if header is None else {"Authorization": header}
        assert code_of(client.get("/v1/models", headers=headers), 401) in ("missing_api_key", "invalid_api_key")
    for wrong in (KEY[:-1], KEY + "x", KEY.upper(), "sk-é".encode()):
        value = wrong if isinstance(wrong, bytes) else wrong.encode()
        response = client.get("/metrics", headers={b"Authorization": b"Bearer " + value})
        assert code_of(response, 401) == "invalid_api_key"
        assert response.headers["www-authenticate"] == "Bearer"
        assert KEY not in response.text
    assert client.get("/v1/models", headers={"Authorization": f"bearer {KEY}"}).status_code == 200
    assert client.get("/v1/models", headers={"Authorization": "Bearer other", "Host": "10.0.0.7"}).status_code == 200
    assert KEY not in json.dumps(log.lines)
    assert KEY not in repr(AccessPolicy(keys=(KEY,)))


def test_hosts_of_a_server_for_other_machines() -> None:
    policy = make_policy("192.168.1.4", "Desk", [KEY], ["Models.example"], ["https://Chat.example/"])
    assert {"192.168.1.4", "desk", "models.example", "localhost"} <= policy.hosts
    assert policy.origins == {"https://chat.example"}
    assert make_policy("127.0.0.1", "desk", [], [], []).hosts == {"127.0.0.1", "localhost", "::1"}


def test_the_log_has_a_line_for_each_request_without_contents(engines: Any) -> None:
    body = {"model": MODEL, "prompt": "a secret text", "max_tokens": 2, "temperature": 0, "ignore_eos": True}
    log = SilentLog()
    client_of(engines, log=log).post("/v1/completions", json=body)
    client_of(engines, log=log).post("/v1/completions", json={**body, "prompt": -1})
    good, bad = log.lines
    assert (good["route"], good["status"], good["model"]) == ("/v1/completions", 200, MODEL)
    assert (good["prompt_tokens"], good["generated_tokens"]) == (len("a secret text"), 2)
    assert good["milliseconds"] >= good["first_token_milliseconds"] > 0
    assert (bad["status"], bad["error"]) == (400, "invalid_type")
    assert "secret" not in json.dumps(log.lines)
    shown = SilentLog(contents=True)
    client_of(engines, log=shown).post("/v1/completions", json=body)
    assert "a secret text" in shown.lines[0]["contents"]


def test_an_unexpected_exception_is_one_sentence_and_the_log_says_where(
    engines: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise KeyError("a secret")

    monkeypatch.setattr(engines[MODEL], "submit", fail)
    log = SilentLog()
    response = client_of(engines, log=log).post("/v1/completions", json={"model": MODEL, "prompt": "a"})
    assert code_of(response, 500) == "internal_error"
    assert response.json()["error"]["type"] == "server_error"
    assert "secret" not in response.text
    assert "secret" not in json.dumps(log.lines)
    assert log.lines[0]["where"][-1] == "KeyError"
    assert any("fail" in frame for frame in log.lines[0]["where"])


def test_metrics_count_requests_and_tokens(engines: Any) -> None:
    client = client_of(engines)
    body = {"model": MODEL, "prompt": "some text", "max_tokens": 3, "temperature": 0, "ignore_eos": True}
    for _ in range(2):
        client.post("/v1/completions", json=body)
    client.post("/v1/completions", json={**body, "max_tokens": "3"})
    client.get("/nowhere")
    text = client.get("/metrics").text
    values = {
        name: float(value) for name, value in (line.rsplit(" ", 1) for line in text.splitlines() if line[0] != "#")
    }
    assert values['clearstory_requests_total{route="/v1/completions",status="200"}'] == 2
    assert values['clearstory_requests_total{route="/v1/completions",status="400"}'] == 1
    assert values['clearstory_requests_total{route="unmatched",status="404"}'] == 1
    assert values[f'clearstory_prompt_tokens_total{{model="{MODEL}"}}'] == 2 * len("some text")
    assert values[f'clearstory_generated_tokens_total{{model="{MODEL}"}}'] == 6
    assert values[f'clearstory_time_to_first_token_seconds_count{{model="{MODEL}"}}'] == 2
    assert values[f'clearstory_time_per_token_seconds_count{{model="{MODEL}"}}'] == 2
    assert values[f'clearstory_requests_running{{model="{MODEL}"}}'] == 0
