"""Who may ask the studio: its own page on this machine, and nobody who only looks like it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient
from studio_home import HOME, client

ASK = {"model": "models/clear", "text": "the cat"}


def refused(answer: Any, status: int) -> str:
    """The sentence of a refusal."""
    assert answer.status_code == status, answer.text
    sentence: str = answer.json()["error"]
    assert len(sentence) > 20
    assert "\n" not in sentence
    return sentence


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8642", "127.0.0.1.evil.example", "localhost.evil.example:8642", "0.0.0.0", ""],
)
def test_a_name_that_was_made_to_point_here_is_not_answered(studio: TestClient, host: str) -> None:
    for path in ("/", "/health", "/api/models", "/static/app.js"):
        assert "cat" not in refused(studio.get(path, headers={"Host": host}), 400)


@pytest.mark.parametrize("host", ["127.0.0.1:8642", "localhost:1", "LOCALHOST", "[::1]:8642"])
def test_names_of_this_machine_are_answered(studio: TestClient, host: str) -> None:
    assert studio.get("/health", headers={"Host": host}).json()["status"] == "ok"


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:9999", "http://localhost"])
def test_another_sites_page_is_not_answered(studio: TestClient, origin: str) -> None:
    refused(studio.post("/api/trace", json=ASK, headers={"Origin": origin}), 403)
    refused(studio.get("/api/models", headers={"Origin": origin}), 403)


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_a_browser_that_says_who_asks_is_believed(studio: TestClient, site: str) -> None:
    refused(studio.get("/api/models", headers={"Sec-Fetch-Site": site}), 403)
    # A link to the studio may stand on any page; what it opens is ours.
    assert studio.get("/", headers={"Sec-Fetch-Site": site}).status_code == 200


def test_our_own_page_is_answered(studio: TestClient) -> None:
    own = {"Origin": HOME, "Sec-Fetch-Site": "same-origin"}
    assert studio.post("/api/trace", json=ASK, headers=own).status_code == 200


@pytest.mark.parametrize(
    "kind",
    ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "", "application/jsonp"],
)
def test_what_a_form_can_send_is_refused(studio: TestClient, kind: str) -> None:
    refused(studio.post("/api/trace", content=json.dumps(ASK), headers={"Content-Type": kind}), 415)


def test_every_method_that_changes_something_asks_for_json(studio: TestClient) -> None:
    for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS"):
        refused(studio.request(method, "/api/runs/stop", content=b"{}"), 415)


def test_a_body_that_is_too_large_is_refused_however_it_says_so(studio: TestClient) -> None:
    large = json.dumps({**ASK, "text": "a" * 2**21})
    head = {"Content-Type": "application/json"}
    refused(studio.post("/api/trace", content=large, headers=head), 413)
    parts = (large[at : at + 2**16].encode() for at in range(0, len(large), 2**16))  # no Content-Length
    refused(studio.post("/api/trace", content=parts, headers=head), 413)


def test_every_answer_forbids_what_is_not_ours(studio: TestClient) -> None:
    for path in ("/", "/api/models", "/static/app.js", "/nowhere", "/health"):
        headers = studio.get(path).headers
        policy = dict(part.strip().partition(" ")[::2] for part in headers["content-security-policy"].split(";"))
        assert policy["default-src"] == "'self'"
        assert policy["frame-ancestors"] == policy["base-uri"] == policy["object-src"] == "'none'"
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert "access-control-allow-origin" not in headers


def test_pages_are_asked_for_anew_and_answers_are_not_kept(studio: TestClient) -> None:
    first = studio.get("/static/app.js")
    assert first.headers["cache-control"] == "no-cache"
    assert studio.get("/static/app.js", headers={"If-None-Match": first.headers["etag"]}).status_code == 304
    assert studio.get("/api/models").headers["cache-control"] == "no-store"


def test_no_path_leaves_the_page_or_the_folder(studio: TestClient) -> None:
    for path in ("/static/../app.py", "/static/%2e%2e/app.py", "/static//etc/passwd"):
        assert studio.get(path).status_code == 404
    for name in ("../secret", "/etc", "models/../../x", "a\\b", "", "a\0b"):
        answer = studio.post("/api/trace", json={"model": name, "text": "x"})
        assert answer.status_code == 400, name


def test_a_token_is_asked_for_once_and_kept_in_a_cookie(made: Path) -> None:
    studio = client(made, token="s3cret-word", hosts={"127.0.0.1", "box.local"}, cookie="clearstory-8642")
    assert "token" in refused(studio.get("/"), 401)
    refused(studio.get("/api/models"), 401)
    refused(studio.get("/api/models?token=s3cret-word"), 401)  # in the address of the page alone
    refused(studio.get("/?token=s3cret-wore", follow_redirects=False), 401)
    refused(studio.get("/api/models", headers={"Authorization": "Bearer wrong"}), 401)
    assert studio.get("/api/models", headers={"Authorization": "Bearer s3cret-word"}).status_code == 200
    assert studio.get("/health").status_code == 200
    entry = studio.get("/?token=s3cret-word&page=next&text=a%20b", follow_redirects=False)
    assert entry.headers["location"] == "/?page=next&text=a+b"  # the token is not left in the address
    assert "httponly" in entry.headers["set-cookie"].lower()
    assert "samesite=lax" in entry.headers["set-cookie"].lower()
    assert studio.get("/api/models").status_code == 200


def test_with_a_token_addresses_of_numbers_are_answered_and_names_are_not(made: Path) -> None:
    studio = client(made, token="s3cret-word")
    head = {"Authorization": "Bearer s3cret-word"}
    assert studio.get("/api/models", headers={**head, "Host": "192.168.7.4:8642"}).status_code == 200
    refused(studio.get("/api/models", headers={**head, "Host": "evil.example"}), 400)
    refused(client(made).get("/api/models", headers={"Host": "192.168.7.4:8642"}), 400)
