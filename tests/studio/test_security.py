"""Access control: only the studio's own page on this machine is accepted."""

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
    [
        "evil.example", "evil.example:8642", "127.0.0.1.evil.example", "localhost.evil.example:8642", "0.0.0.0", "",
        "[::1].evil", "[::1]evil:80", "127.0.0.1:80@evil", "127.0.0.1@evil", "evil@127.0.0.1", "127.0.0.1:",
        "127.0.0.1:x", "127.0.0.1:80:80", "127.0.0.1:99999", "127.0.0.1:-1", "127.0.0.1:+80", "localhost ",
        "localhost/x", "localhost?", "localhost#", "http://localhost", "[::1", "::1", "[::1]:", "[]", "[localhost]",
        "127.1", "127.0.0.2", "0x7f000001", "2130706433", "localhost.", "localhost,evil", "localhost;evil",
        "localhost\\evil", "localhost%00",
    ],
)  # fmt: skip
def test_foreign_and_odd_host_names_are_rejected(studio: TestClient, host: str) -> None:
    for path in ("/", "/health", "/api/models", "/static/app.js"):
        assert "cat" not in refused(studio.get(path, headers={"Host": host}), 400)


@pytest.mark.parametrize("host", ["127.0.0.1:8642", "localhost:1", "LOCALHOST", "[::1]:8642"])
def test_local_host_names_are_accepted(studio: TestClient, host: str) -> None:
    assert studio.get("/health", headers={"Host": host}).json()["status"] == "ok"


@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.example", "null", "http://127.0.0.1:9999", "http://localhost", f"{HOME}.evil", f"{HOME}@evil", "",
        f"{HOME}/", f"{HOME}, http://evil.example", "file://127.0.0.1:8642", "127.0.0.1:8642", f"evil {HOME}",
    ],
)  # fmt: skip
def test_foreign_origins_are_rejected(studio: TestClient, origin: str) -> None:
    refused(studio.post("/api/trace", json=ASK, headers={"Origin": origin}), 403)
    refused(studio.get("/api/models", headers={"Origin": origin}), 403)


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_sec_fetch_site_is_checked(studio: TestClient, site: str) -> None:
    refused(studio.get("/api/models", headers={"Sec-Fetch-Site": site}), 403)
    # A link to the studio may stand on any page; what it opens is ours.
    assert studio.get("/", headers={"Sec-Fetch-Site": site}).status_code == 200


def test_the_own_page_is_accepted(studio: TestClient) -> None:
    own = {"Origin": HOME, "Sec-Fetch-Site": "same-origin"}
    assert studio.post("/api/trace", json=ASK, headers=own).status_code == 200


@pytest.mark.parametrize(
    "kind",
    ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "", "application/jsonp"],
)
def test_content_types_of_html_forms_are_rejected(studio: TestClient, kind: str) -> None:
    refused(studio.post("/api/trace", content=json.dumps(ASK), headers={"Content-Type": kind}), 415)


def test_every_unsafe_method_requires_json(studio: TestClient) -> None:
    for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS"):
        refused(studio.request(method, "/api/runs/stop", content=b"{}"), 415)


def test_large_bodies_are_rejected(studio: TestClient) -> None:
    large = json.dumps({**ASK, "text": "a" * 2**21})
    head = {"Content-Type": "application/json"}
    refused(studio.post("/api/trace", content=large, headers=head), 413)
    parts = (large[at : at + 2**16].encode() for at in range(0, len(large), 2**16))  # no Content-Length
    refused(studio.post("/api/trace", content=parts, headers=head), 413)


def test_every_response_has_the_security_headers(studio: TestClient) -> None:
    for path in ("/", "/api/models", "/static/app.js", "/nowhere", "/health"):
        headers = studio.get(path).headers
        policy = dict(part.strip().partition(" ")[::2] for part in headers["content-security-policy"].split(";"))
        assert policy["default-src"] == "'self'"
        assert policy["frame-ancestors"] == policy["base-uri"] == policy["object-src"] == "'none'"
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert "access-control-allow-origin" not in headers


def test_page_files_are_revalidated_and_responses_not_cached(studio: TestClient) -> None:
    first = studio.get("/static/app.js")
    assert first.headers["cache-control"] == "no-cache"
    assert studio.get("/static/app.js", headers={"If-None-Match": first.headers["etag"]}).status_code == 304
    assert studio.get("/api/models").headers["cache-control"] == "no-store"


def test_no_path_escapes_the_folders(studio: TestClient) -> None:
    for path in ("/static/../app.py", "/static/%2e%2e/app.py", "/static//etc/passwd"):
        assert studio.get(path).status_code == 404
    for name in ("../secret", "/etc", "models/../../x", "a\\b", "", "a\0b"):
        answer = studio.post("/api/trace", json={"model": name, "text": "x"})
        assert answer.status_code == 400, name


def test_a_token_is_required_once_and_stored_in_a_cookie(made: Path) -> None:
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


def test_with_a_token_ip_addresses_are_accepted(made: Path) -> None:
    studio = client(made, token="s3cret-word")
    head = {"Authorization": "Bearer s3cret-word"}
    assert studio.get("/api/models", headers={**head, "Host": "192.168.7.4:8642"}).status_code == 200
    refused(studio.get("/api/models", headers={**head, "Host": "evil.example"}), 400)
    refused(client(made).get("/api/models", headers={"Host": "192.168.7.4:8642"}), 400)


def test_half_a_body_is_no_request(made: Path) -> None:
    import anyio

    from clearstory.studio.app import studio_app

    sent: list[Any] = []
    arrived = iter([{"type": "http.request", "body": b'{"name": "x"', "more_body": True}, {"type": "http.disconnect"}])

    async def ask() -> None:
        async def receive() -> Any:
            return next(arrived)

        async def send(message: Any) -> None:
            sent.append(message)

        headers = [(b"host", b"127.0.0.1"), (b"content-type", b"application/json")]
        scope = {
            "type": "http", "method": "POST", "path": "/api/runs/stop", "raw_path": b"/", "headers": headers,
            "query_string": b"", "root_path": "", "scheme": "http", "server": ("127.0.0.1", 80), "http_version": "1.1",
        }  # fmt: skip
        await studio_app(made)(scope, receive, send)

    anyio.run(ask)
    assert sent == []


def test_two_host_headers_are_rejected(studio: TestClient) -> None:
    refused(studio.get("/health", headers=[("Host", "127.0.0.1"), ("Host", "127.0.0.1")]), 400)


def test_a_response_after_the_server_has_refused_the_body_is_dropped_without_a_traceback() -> None:
    import asyncio

    from h11 import LocalProtocolError

    from clearstory.studio.security import SecurityMiddleware

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"{}", "more_body": False}

    async def send(message: Any) -> None:
        raise LocalProtocolError("the connection must close")

    scope = {"type": "http", "method": "GET", "path": "/health", "headers": [(b"host", b"127.0.0.1")]}
    asyncio.run(SecurityMiddleware(app, hosts=("127.0.0.1",), token=None, cookie="x")(scope, receive, send))
