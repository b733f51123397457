"""Odd requests: every one gets a response in OpenAI's form, none a traceback or a status of 500."""

from __future__ import annotations

import json
from typing import Any

import pytest
from odd_values import odd_bodies
from served import MODEL, SilentLog, client_of
from starlette.testclient import TestClient

from clearstory.errors import BadInput
from clearstory.http.json_values import parse_object
from clearstory.server.app import ROUTES
from clearstory.server.errors import RequestError
from clearstory.server.fields import parse_fields
from clearstory.server.openapi import ApiRoute

POSTED = [each for each in ROUTES if each.fields is not None]

VALID: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {
        "messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}],
        "max_tokens": 1,
        "stream_options": {"include_usage": True},
        "stream": True,
    },
    "/v1/completions": {"prompt": "Hi", "max_tokens": 1, "n": 2, "logprobs": 2},
    "/v1/embeddings": {"input": "Hi"},
    "/tokenize": {"prompt": "Hi"},
    "/detokenize": {"tokens": [1, 2]},
    "/fill-mask": {"input": "Hi"},
}
"""A valid body of each route, without the model."""

JSON = {"Content-Type": "application/json"}


def is_openai_error(body: Any) -> bool:
    """Whether a body is an error in OpenAI's form, of one sentence."""
    error = body["error"]
    return (
        set(error) == {"message", "type", "param", "code"}
        and 10 < len(error["message"]) <= 2100
        and "Traceback" not in error["message"]
        and "\n" not in error["message"]
        and isinstance(error["type"], str)
    )


@pytest.mark.parametrize("route", POSTED, ids=lambda route: route.path)
def test_every_odd_value_of_every_field_is_answered(route: ApiRoute, engines: Any) -> None:
    """What the fields refuse is refused there, since HTTP takes ten times as long; the rest is sent."""
    assert route.fields is not None
    wrong, counts, log = [], {"refused": 0, "sent": 0}, SilentLog()
    with client_of(engines, log=log) as client:
        for name, content in odd_bodies(route.fields, {"model": MODEL, **VALID[route.path]}):
            refusal = refusal_of(route.fields, content)
            counts["refused" if refusal else "sent"] += 1
            if refusal is not None and counts["refused"] % 50:
                wrong += [] if is_openai_error(refusal.body()) and refusal.status == 400 else [f"{name}: {refusal}"]
                continue
            response = client.post(route.path, content=content, headers=JSON)
            good = response.status_code == 200 or (
                response.status_code in (400, 404, 503) and is_openai_error(response.json())
            )
            if not good or (refusal is not None and response.status_code != 400):
                wrong.append(f"{name}: {response.status_code} {response.text[:300]}")
    assert not wrong, "\n".join(wrong)
    assert counts["refused"] > 20
    assert counts["sent"] >= 3
    assert not [line for line in log.lines if "where" in line]


def refusal_of(kind: type[Any], content: bytes) -> RequestError | None:
    """The error with which a body is refused before its route is called."""
    try:
        parse_fields(kind, parse_object(content))
    except RequestError as error:
        return error
    except BadInput as error:
        return RequestError(str(error), code="invalid_json")
    return None


@pytest.mark.parametrize("route", POSTED, ids=lambda route: route.path)
def test_an_error_names_the_field(route: ApiRoute, client: TestClient) -> None:
    response = client.post(route.path, json={**VALID[route.path], "model": 3})
    assert response.json()["error"]["param"] == "model"
    response = client.post(route.path, json={**VALID[route.path], "modle": MODEL})
    assert response.json()["error"]["param"] == "modle"
    assert "did you mean 'model'?" in response.json()["error"]["message"]


@pytest.mark.parametrize(
    "content",
    [
        b"", b"{", b"[]", b"null", b'"text"', b"3", b"\xff\xfe\x00", b"{}}", b'{"model": "\xff"}', b"{'model': 1}",
        b'{"model": NaN}', b'{"model": "a", "model": "b"}', b"[" * 100_000, b'{"a":' * 100_000, b"\x00" * 100,
        "{}".encode("utf-16"), b'{"messages": [' + b"{}," * 100_000 + b"{}]}",
    ],
)  # fmt: skip
def test_bodies_that_are_no_requests_are_refused(client: TestClient, content: bytes) -> None:
    for path in ("/v1/chat/completions", "/v1/embeddings"):
        response = client.post(path, content=content, headers=JSON)
        assert response.status_code == 400, response.text
        assert is_openai_error(response.json())


def test_sizes_paths_methods_and_types_have_their_statuses(client: TestClient) -> None:
    large = json.dumps({"model": MODEL, "prompt": "a" * 5_000_000}).encode()
    cases = [
        (client.post("/v1/completions", content=large, headers=JSON), 413, "request_too_large"),
        (client.post("/v1/completions", content=b"model=tiny"), 415, "wrong_content_type"),
        (
            client.post("/v1/completions", content=b"", headers={**JSON, "Content-Encoding": "gzip"}),
            415,
            "wrong_content_encoding",
        ),
        (client.get("/v1/completions"), 405, "method_not_allowed"),
        (client.put("/v1/models"), 405, "method_not_allowed"),
        (client.get("/v1/engines"), 404, "unknown_path"),
        (client.get("/v1/models/none"), 404, "model_not_found"),
        (client.get("/v1/models/../../etc/passwd"), 404, None),
        (client.get("/v1/models?x=1"), 400, "unknown_parameter"),
        (client.get("/v1/models/" + "a" * 5000), 404, "model_not_found"),
    ]
    for response, status, code in cases:
        assert response.status_code == status
        assert is_openai_error(response.json())
        assert code is None or response.json()["error"]["code"] == code
    for method in ("OPTIONS", "DELETE"):
        refused = client.request(method, f"/v1/models/{MODEL}")
        assert (refused.status_code, refused.headers["Allow"]) == (405, "GET, HEAD")
        assert refused.json()["error"]["message"] == f"/v1/models/{MODEL} supports GET, not {method}"
        assert client.request(method, "/v1/completions").headers["Allow"] == "POST"
    head, whole = client.head("/v1/models"), client.get("/v1/models")
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["Content-Length"] == whole.headers["Content-Length"]


def test_a_prompt_beyond_the_context_is_refused_with_both_lengths(client: TestClient) -> None:
    for path, body in (
        ("/v1/completions", {"prompt": "word " * 20_000}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "word " * 20_000}]}),
    ):
        error = client.post(path, json={"model": MODEL, **body}).json()["error"]
        assert error["code"] == "context_length_exceeded"
        assert "160" in error["message"]
