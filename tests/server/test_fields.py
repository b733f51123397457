"""Fields of requests: what is accepted, and the errors that name the field."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import pytest

from clearstory.server.errors import RequestError
from clearstory.server.fields import parse_fields, refused_field, request_field
from clearstory.server.openapi import class_schema


@dataclass(frozen=True)
class TextPart:
    """A part."""

    text: str = request_field("A text.")
    type: Literal["text"] = request_field("Its type.", "text")


@dataclass(frozen=True)
class ImagePart:
    """A part of another type."""

    url: str = request_field("An address.")
    type: Literal["image"] = request_field("Its type.")


@dataclass(frozen=True)
class Turn:
    """A message."""

    role: Literal["user", "system"] = request_field("Who speaks.")
    content: str | tuple[TextPart | ImagePart, ...] | None = request_field("What is said.", None)


@dataclass(frozen=True)
class ExampleRequest:
    """A request."""

    messages: tuple[Turn, ...] = request_field("The conversation.", min_items=1)
    prompt: str | tuple[str, ...] | tuple[int, ...] | tuple[tuple[int, ...], ...] = request_field(
        "A prompt.", "", minimum=0
    )
    stop: str | tuple[str, ...] | None = request_field("Stop strings.", None, max_items=4, min_length=1)
    temperature: float = request_field("A number.", 1.0, minimum=0, maximum=2)
    logit_bias: dict[str, float] | None = request_field("Numbers.", None, minimum=-100, maximum=100)
    schema: dict[str, Any] | None = request_field("Any object.", None)
    n: int = request_field("A count.", 1, minimum=1, maximum=8)
    suffix: str | None = refused_field("send prompt", ("",))

    def __post_init__(self) -> None:
        if self.n == 7:
            raise RequestError("n is 7, which is odd enough", param="n")


USER = {"role": "user", "content": "a"}


def parse(**values: Any) -> ExampleRequest:
    """The request with these values."""
    return parse_fields(ExampleRequest, {"messages": [USER], **values})


def test_values_become_those_of_the_annotations() -> None:
    parsed = parse(
        messages=[{"role": "user", "content": [{"text": "a", "type": "text"}, {"url": "b", "type": "image"}]}],
        prompt=[[1], [2, 3]], stop=["x"], temperature=2, n=3.0, logit_bias={"5": 1}, schema={"a": [None]}, suffix="",
    )  # fmt: skip
    assert parsed.messages[0].content == (TextPart("a"), ImagePart("b", "image"))
    assert (parsed.prompt, parsed.stop, parsed.n, parsed.suffix) == (((1,), (2, 3)), ("x",), 3, None)
    assert isinstance(parsed.temperature, float)
    assert isinstance(parsed.n, int)
    assert parse(n=None, stop=None, prompt=None) == parse()


@pytest.mark.parametrize(
    ("values", "param", "code"),
    [
        ({"messages": None}, "messages", "missing_required_parameter"),
        ({"messages": []}, "messages", "empty_array"),
        ({"messages": "a"}, "messages", "invalid_type"),
        ({"messages": [{}]}, "messages[0].role", "missing_required_parameter"),
        ({"messages": [USER, {"role": "x"}]}, "messages[1].role", "invalid_value"),
        ({"messages": [{**USER, "nme": 1}]}, "messages[0].nme", "unknown_parameter"),
        ({"messages": [{**USER, "content": [{"text": 3}]}]}, "messages[0].content[0].type", "invalid_value"),
        ({"messages": [{**USER, "content": [{"type": "audio"}]}]}, "messages[0].content[0].type", "invalid_value"),
        ({"messages": [{**USER, "content": [1]}]}, "messages[0].content[0]", "invalid_type"),
        ({"prompt": [[1], [-1]]}, "prompt[1][0]", "integer_below_min_value"),
        ({"prompt": [1, 2**70]}, "prompt[1]", "integer_above_max_value"),
        ({"prompt": ["a", 1]}, "prompt[1]", "invalid_type"),
        ({"stop": ""}, "stop", "empty_string"),
        ({"stop": ["a"] * 5}, "stop", "array_above_max_length"),
        ({"temperature": True}, "temperature", "invalid_type"),
        ({"temperature": 1e308}, "temperature", "decimal_above_max_value"),
        ({"temperature": -0.5}, "temperature", "decimal_below_min_value"),
        ({"logit_bias": {"1": 101}}, "logit_bias.1", "decimal_above_max_value"),
        ({"schema": {"a": float("inf")}}, "schema", "invalid_value"),
        ({"prompt": "\ud800"}, "prompt", "invalid_value"),
        ({"n": 1.5}, "n", "invalid_type"),
        ({"n": 7}, "n", None),
        ({"suffix": "a"}, "suffix", "unsupported_parameter"),
        ({"m": 1}, "m", "unknown_parameter"),
    ],
)  # fmt: skip
def test_errors_name_the_field_and_a_code(values: dict[str, Any], param: str, code: str | None) -> None:
    with pytest.raises(RequestError) as error:
        parse(**values)
    assert (error.value.param, error.value.code, error.value.status) == (param, code, 400)
    assert error.value.message.startswith(param.split("[")[0]) or param in error.value.message


def test_the_schema_says_what_is_accepted() -> None:
    schemas: dict[str, Any] = {}
    assert class_schema(ExampleRequest, schemas) == {"$ref": "#/components/schemas/ExampleRequest"}
    properties = schemas["ExampleRequest"]["properties"]
    assert schemas["ExampleRequest"]["required"] == ["messages"]
    assert properties["n"]["anyOf"] == [{"type": "integer", "minimum": 1, "maximum": 8}, {"type": "null"}]
    assert properties["suffix"]["enum"] == [None, ""]
    assert properties["stop"]["anyOf"][1]["maxItems"] == 4
    assert schemas["Turn"]["properties"]["role"]["enum"] == ["user", "system"]
    assert set(schemas) == {"ExampleRequest", "Turn", "TextPart", "ImagePart"}
