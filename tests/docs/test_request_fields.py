"""The page of request fields is made from their declarations: `python tests/docs/test_request_fields.py` writes it."""

from __future__ import annotations

from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from clearstory.server.chat_completions import ChatCompletionRequest
from clearstory.server.completions import CompletionRequest
from clearstory.server.embeddings import EmbeddingRequest
from clearstory.server.field_rules import describe_type
from clearstory.server.fields import field_types, rule_of

PAGE = Path(__file__).parents[2] / "docs" / "request-fields.md"

ROUTES = {
    "/v1/chat/completions": ChatCompletionRequest,
    "/v1/completions": CompletionRequest,
    "/v1/embeddings": EmbeddingRequest,
}

HEAD = """# Request fields

Supported and unsupported fields of three routes. This page is generated from the declarations by which
[the server](http-api.md) checks requests; `GET /openapi.json` has all routes. `null` stands for the default of an
optional field. Unsupported fields are errors with status 400, except for `null` and the values listed.
"""


def table(route: str, kind: type[Any]) -> str:
    """The fields of one route in two tables."""
    hints = field_types(kind)
    supported, refused = [], []
    for each in fields(kind):
        rule = rule_of(each)
        if rule.refusal is not None:
            harmless = ", ".join(f"`{plain(value)}`" for value in rule.harmless) or "none"
            refused.append(f"| `{each.name}` | {rule.refusal} | {harmless} |")
            continue
        required = each.default is MISSING and each.default_factory is MISSING
        default = "required" if required else "" if each.default is None else f"`{plain(each.default)}`"
        low, high = (None if bound is None else f"{bound:g}" for bound in (rule.minimum, rule.maximum))
        bounds = "" if low is None and high is None else f"; {low or '…'} to {high or '…'}"
        kind_text = describe_type(hints[each.name]).replace("|", "/")
        supported.append(f"| `{each.name}` | {kind_text}{bounds} | {default} | {rule.doc.replace('|', '/')} |")
    return "\n".join(
        [
            f"## {route}",
            "",
            "| field | type | default | meaning |",
            "|---|---|---|---|",
            *supported,
            *(["", "| unsupported field | reason | accepted values |", "|---|---|---|", *refused] if refused else []),
            "",
        ]
    )


def plain(value: Any) -> str:
    """A default value as JSON writes it."""
    return str(value).lower() if isinstance(value, bool) else str(value).replace("'", '"')


def page() -> str:
    """The whole page."""
    return HEAD + "\n" + "\n".join(table(*each) for each in ROUTES.items())


def test_the_page_has_the_fields_that_the_server_checks() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run: python tests/docs/test_request_fields.py"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
