"""Fields by which a request says what its text must be: response_format, a regular expression or a grammar."""

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

    type: Literal["text"] = request_field("The form of the text.")


@dataclass(frozen=True, kw_only=True)
class JSONObjectFormat:
    """Any JSON object."""

    type: Literal["json_object"] = request_field("The form of the text.")


@dataclass(frozen=True, kw_only=True)
class NamedSchema:
    """A JSON schema with a name."""

    name: str = request_field("Name of the schema. It changes nothing.", min_length=1, max_length=64)
    schema: dict[str, Any] | None = request_field("The JSON schema; null for any JSON object.", None)
    description: str | None = request_field("What the JSON is for. It changes nothing.", None)
    strict: bool | None = request_field("Every text follows its schema, whether strict or not.", None)


@dataclass(frozen=True, kw_only=True)
class JSONSchemaFormat:
    """JSON that follows a schema."""

    type: Literal["json_schema"] = request_field("The form of the text.")
    json_schema: NamedSchema = request_field("The schema.")


@dataclass(frozen=True, kw_only=True)
class GrammarFields(TextFields):
    """Fields of a text and of what it must be; at most one of response_format, regex and grammar."""

    response_format: TextFormat | JSONObjectFormat | JSONSchemaFormat | None = request_field(
        "What the text must be: text, a JSON object, or JSON that follows a schema.", None
    )
    regex: str | None = request_field(
        "A regular expression that the whole text must match.", None, min_length=1, max_length=MAX_GRAMMAR_LENGTH
    )
    grammar: str | None = request_field(
        "A context-free grammar in Lark's notation, as llguidance reads it, that the whole text must follow.",
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
                f"{' and '.join(given)} are both given; one of them says what the text must be",
                param=given[0],
                code="invalid_value",
            )
        if given and self.stop_strings:
            raise refused_stop(given[0])

    @property
    def schema(self) -> dict[str, Any] | None:
        """The JSON schema that the text must follow; None where it may be something else."""
        if isinstance(self.response_format, JSONSchemaFormat):
            schema = self.response_format.json_schema.schema
            return {"type": "object"} if schema is None else schema
        return {"type": "object"} if isinstance(self.response_format, JSONObjectFormat) else None

    def grammar_of_text(self) -> Grammar | None:
        """The grammar of the text; None for any text. Raises RequestError that names the place of what is wrong."""
        if self.schema is not None:
            with naming_schema("response_format.json_schema.schema"):
                return Grammar.of_json_schema(self.schema)
        if self.regex is not None:
            with naming("regex"):
                return Grammar.of_regex(self.regex)
        return None if self.grammar is None else Grammar.of_lark(self.grammar)

    @property
    def grammar_field(self) -> str:
        """The field that says what the text must be."""
        return "regex" if self.regex is not None else "grammar" if self.grammar is not None else "response_format"


@contextmanager
def naming_schema(param: str) -> Iterator[None]:
    """A block in which errors of a JSON schema name the keyword inside this field."""
    try:
        yield
    except JSONSchemaError as error:
        path = f"{param}.{error.path}" if error.path else param
        raise RequestError(f"{path} {error.reason}", param=path, code="invalid_json_schema") from None


def refused_stop(name: str) -> RequestError:
    """The error for stop strings together with a field that says what the text must be."""
    return RequestError(
        f"stop and {name} are both given, and a stop string could end the text before it is complete; leave stop out",
        param="stop",
        code="invalid_value",
    )


def with_grammar(
    requests: Sequence[TextRequest], grammar: Grammar | None, served: ServedModel, param: str
) -> list[TextRequest]:
    """The requests, each with a mask of its own. Raises RequestError that names `param` for a grammar that the model's
    vocabulary cannot follow.

    Stop strings and constraints of the model's generation config do not apply to them: they could forbid the only token
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
    """The requests for texts with these fields, each with a mask if it must follow a grammar. Raises RequestError that
    names the place of what is wrong.
    """
    return with_grammar(requests, fields.grammar_of_text(), served, fields.grammar_field)
