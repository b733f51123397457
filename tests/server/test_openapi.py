"""The description of the routes: valid, and true, as schemathesis finds by requests made from it."""

from __future__ import annotations

from typing import Any

import pytest
from served import MODEL
from starlette.testclient import TestClient

from clearstory.server.app import ROUTES


def test_every_route_is_described(client: TestClient) -> None:
    described = client.get("/openapi.json").json()
    for route in ROUTES:
        operation = described["paths"][route.path.replace(":path}", "}")][route.method.lower()]
        assert operation["summary"] == route.doc
        assert ("requestBody" in operation) == (route.fields is not None)
    chat = described["components"]["schemas"]["ChatCompletionRequest"]
    assert chat["required"] == ["model", "messages"] or set(chat["required"]) == {"model", "messages"}
    assert chat["additionalProperties"] is False
    assert all("description" in each or "$ref" in each for each in chat["properties"].values())


def test_requests_made_from_the_description_are_answered(client: TestClient) -> None:
    schemathesis = pytest.importorskip("schemathesis")
    described = client.get("/openapi.json").json()
    for schema in described["components"]["schemas"].values():
        if "model" in schema.get("properties", {}):
            schema["properties"]["model"] = {"const": MODEL}
        for name in ("max_tokens", "max_completion_tokens"):
            if name in schema.get("properties", {}):
                schema["properties"][name] = {"enum": [1, 2]}
    loaded = schemathesis.openapi.from_dict(described)
    for route in ROUTES:
        if route.fields is not None:
            check_route(client, route.path, loaded[route.path][route.method].as_strategy())


def check_route(client: TestClient, path: str, strategy: Any) -> None:
    """Send requests made from the description of a route."""
    from hypothesis import HealthCheck, Phase, given, settings

    @settings(
        max_examples=12,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=strategy)
    def check(case: Any) -> None:
        response = client.post(path, json=case.body)
        assert response.status_code in (200, 400, 404, 503), response.text
        if response.status_code != 200:
            error = response.json()["error"]
            assert set(error) == {"message", "type", "param", "code"}
            # Types are those of the description, so a field is refused for its meaning alone.
            assert error["code"] not in ("invalid_type", "unknown_parameter"), error

    check()
