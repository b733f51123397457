"""Fields that constrain the generated text: response_format, a regular expression or a grammar."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from clearstory.generation.grammar import MAX_GRAMMAR_LENGTH, Grammar
from clearstory.generation.json_schema import JSONSchemaError
from clearstory.server.errors import RequestError
from clearstory.server.fields import request_field
from clearstory.server.text_fields import TextFields
from clearstory.server.text_requests import naming

if TYPE_CHECKING:
    from clearstory.serving.requests import TextRequest
    from clearstory.serving.served_model import ServedModel


@dataclass(frozen=True, kw_only=True)
class TextFormat:
    """Any text."""

    type: Literal["text"] = request_field("Type of the format.")


@dataclass(frozen=True, kw_only=True)
class JSONObjectFormat:
    """Any JSON object."""

    type: Literal["json_object"] = request_field("Type of the format.")


@dataclass(frozen=True, kw_only=True)
class NamedSchema:
    """A JSON schema with a name."""

    name: str = request_field("Name of the schema; has no effect.", min_length=1, max_length=64)
    schema: dict[str, Any] | None = request_field("The JSON schema; null for any JSON object.", None)
    description: str | None = request_field("Purpose of the JSON; has no effect.", None)
    strict: bool | None = request_field("Has no effect: texts are always valid for the schema.", None)


@dataclass(frozen=True, kw_only=True)
class JSONSchemaFormat:
    """JSON that is valid for a schema."""

    type: Literal["json_schema"] = request_field("Type of the format.")
    json_schema: NamedSchema = request_field("The schema.")


@dataclass(frozen=True, kw_only=True)
class GrammarFields(TextFields):
    """Fields of a text and its constraint; at most one of response_format, regex and grammar."""

    response_format: TextFormat | JSONObjectFormat | JSONSchemaFormat | None = request_field(
        "Format of the text: text, a JSON object, or JSON that is valid for a schema.", None
    )
    regex: str | None = request_field(
        "Regular expression that the whole text must match.", None, min_length=1, max_length=MAX_GRAMMAR_LENGTH
    )
    grammar: str | None = request_field(
        "Context-free grammar that the whole text must match, in llguidance's variant of Lark's notation.",
        None,
        min_length=1,
        max_length=MAX_GRAMMAR_LENGTH,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        given = [name for name in ("regex", "grammar") if getattr(self, name) is not None]
        if self.schema is not None:
            given.append("response_format")
        if len(given) > 1:
            raise RequestError(
                f"{' and '.join(given)} are both given; send only one of them",
                param=given[0],
                code="invalid_value",
            )
        if given and self.stop_strings:
            raise refused_stop(given[0])

    @property
    def schema(self) -> dict[str, Any] | None:
        """JSON schema of the text; None if the text need not be JSON."""
        if isinstance(self.response_format, JSONSchemaFormat):
            schema = self.response_format.json_schema.schema
            return {"type": "object"} if schema is None else schema
        return {"type": "object"} if isinstance(self.response_format, JSONObjectFormat) else None

    def grammar_of_text(self) -> Grammar | None:
        """Grammar of the text; None for any text. Raises RequestError that names the invalid field."""
        if self.schema is not None:
            with naming_schema("response_format.json_schema.schema"):
                return Grammar.of_json_schema(self.schema)
        if self.regex is not None:
            with naming("regex"):
                return Grammar.of_regex(self.regex)
        return None if self.grammar is None else Grammar.of_lark(self.grammar)

    @property
    def grammar_field(self) -> str:
        """Name of the field that constrains the text."""
        return "regex" if self.regex is not None else "grammar" if self.grammar is not None else "response_format"


@contextmanager
def naming_schema(param: str) -> Iterator[None]:
    """Context manager that adds this field to the path in errors of a JSON schema."""
    try:
        yield
    except JSONSchemaError as error:
        path = f"{param}.{error.path}" if error.path else param
        raise RequestError(f"{path} {error.reason}", param=path, code="invalid_json_schema") from None


def refused_stop(name: str) -> RequestError:
    """Error for stop strings together with a field that constrains the text."""
    return RequestError(
        f"stop and {name} are both given, but a stop string could end the text before it is complete; omit stop",
        param="stop",
        code="invalid_value",
    )


def with_grammar(
    requests: Sequence[TextRequest], grammar: Grammar | None, served: ServedModel, param: str
) -> list[TextRequest]:
    """The requests, each with its own token mask. Raises RequestError that names `param` if the model's vocabulary
    cannot express the grammar.

    Stop strings and constraints of the model's generation config do not apply: they could suppress the only token
    that a grammar allows.
    """
    if grammar is None or not requests:
        return list(requests)
    with naming(param):
        mask = grammar.mask(served.tokenizer, requests[0].eos_token_ids)
    # As a continuation of the prompt: no white space at the text's beginning is left out.
    return [
        replace(
            request,
            token_mask=mask.copy(),
            constraints=None,
            sampling=replace(request.sampling, stop=()),
            continues_prompt=True,
        )
        for request in requests
    ]


def mask_texts(requests: Sequence[TextRequest], fields: GrammarFields, served: ServedModel) -> list[TextRequest]:
    """The requests with a token mask each if these fields have a grammar. Raises RequestError that names the invalid
    field.
    """
    return with_grammar(requests, fields.grammar_of_text(), served, fields.grammar_field)
