"""Grammars: texts of a random model follow JSON schemas, regular expressions and grammars; bad ones are refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from jsonschema import Draft202012Validator

from clearstory.errors import BadInput, CannotDo, ClearstoryError, GrammarViolation
from clearstory.generation.engine import Engine
from clearstory.generation.grammar import JSON_CHARACTERS, Grammar
from clearstory.generation.grammar_tokens import contains_match
from clearstory.generation.json_schema import JSONSchemaError, check_follows, check_schema
from clearstory.generation.settings import Sampling
from clearstory.models.build import build
from clearstory.recipes.inference.generate import generate
from clearstory.text.tokenizers import Tokenizer
from clearstory.text.train_tokenizer import train_tokenizer
from tiny import TINY_GPT2

BYTES = train_tokenizer("bytes", [])
END = BYTES.eos_token_id
TEXTS = ['{"name": "Ada", "tags": ["a", "b"], "n": [1, 2.5, true, null, false]}'] * 3 + ["x-y: é ñ"] * 2


@pytest.fixture(scope="module")
def schemas() -> list[dict[str, Any]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
        from structured_output import random_schemas

        return random_schemas(20, seed=5)


def generate_texts(tokenizer: Tokenizer, grammars: list[Grammar], max_tokens: int) -> list[tuple[str, str]]:
    """A text of a model of random weights for each grammar, all in one batch, and why it ended."""
    engine = Engine(build(replace(TINY_GPT2, vocab=tokenizer.vocab + 3, context=64), seed=1))
    ids: list[list[int]] = [[] for _ in grammars]
    finished = [""] * len(grammars)
    for seed, grammar in enumerate(grammars):
        mask = grammar.mask(tokenizer, tokenizer.eos_token_id)
        engine.add(
            [1], Sampling(max_tokens=max_tokens, seed=seed), eos_token_id=tokenizer.eos_token_id, token_mask=mask
        )
    while engine.has_unfinished:
        for output in engine.next_tokens():
            ids[output.request].append(output.token.id)
            finished[output.request] = output.finished or ""
    return [
        (tokenizer.decode_bytes(each, begins=False).decode(errors="replace"), why)
        for each, why in zip(ids, finished, strict=True)
    ]


def test_every_finished_text_follows_its_schema(schemas: list[dict[str, Any]]) -> None:
    texts = generate_texts(BYTES, [Grammar.of_json_schema(schema) for schema in schemas], 250)
    complete = 0
    for schema, (text, why) in zip(schemas, texts, strict=True):
        if why == "length":
            continue
        complete += 1
        assert not list(Draft202012Validator(schema).iter_errors(json.loads(text))), text
        check_follows(text, schema)
    assert complete >= 8


@pytest.mark.parametrize("spec", ["bpe:300", "unigram:300", "characters"])
def test_other_tokenizers_write_json(spec: str) -> None:
    tokenizer = train_tokenizer(spec, [*TEXTS, " ".join(sorted(JSON_CHARACTERS)), "3456789"] * 20)
    schema = {
        "type": "object",
        "properties": {"n": {"enum": [1, True]}},
        "required": ["n"],
        "additionalProperties": False,
    }
    for text, why in generate_texts(tokenizer, [Grammar.of_json_schema(schema)] * 3, 200):
        assert why == "length" or json.loads(text) in ({"n": 1}, {"n": True})


def test_tokenizers_that_cannot_write_json_are_refused() -> None:
    with pytest.raises(CannotDo, match="inserts white space between tokens"):
        Grammar.of_json_object().mask(train_tokenizer("words", ["a cat"]))
    with pytest.raises(CannotDo, match=r'no token for " , - \.'):
        Grammar.of_json_object().mask(train_tokenizer("characters", ["abc"]))


def test_an_end_token_is_allowed_only_where_the_text_is_complete() -> None:
    mask = Grammar.of_regex("[0-9]{2,3}").mask(BYTES, END)
    seen = []
    for id in b"12":
        seen.append(bool(mask.allowed()[END]))
        mask.advance(id)
    assert seen == [False, False]
    assert mask.allowed()[END]
    assert not mask.finished  # a third digit may follow
    other = mask.copy()
    other.advance(ord("3"))
    assert other.finished
    assert not mask.finished
    mask.advance(END)
    assert mask.finished


def test_a_text_ends_without_an_end_token_when_nothing_may_follow() -> None:
    [(text, why)] = generate_texts(BYTES, [Grammar.of_lark('start: "yes" | "no"')], 10)
    assert (text in ("yes", "no"), why) == (True, "eos")


@pytest.mark.parametrize(
    "schema",
    [{"type": "object"}, {"type": "object", "patternProperties": {"^a": {"type": "integer"}}}, {"type": "array"}],
)
def test_white_space_is_bounded_everywhere(schema: dict[str, Any]) -> None:
    mask = Grammar.of_json_schema(schema).mask(BYTES, END)
    space = 0
    for _ in range(400):
        allowed = mask.allowed()
        if mask.finished:
            break
        if allowed[ord("\n")]:  # not in strings
            space += 1
            assert space <= 20
            mask.advance(ord("\n"))
            continue
        space = 0
        # What closes comes first, so that the text ends.
        choices = [id for id in b'1":,a]}' if allowed[id]]
        mask.advance(choices[0] if choices else int(np.flatnonzero(allowed.numpy())[0]))


def test_a_name_cannot_be_spelled_by_numbers_of_its_characters() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    mask = Grammar.of_json_schema(schema).mask(BYTES, END)
    for id in b'{"b":1,"\\':
        assert mask.allowed()[id]
        mask.advance(id)
    assert not mask.allowed()[ord("u")]


@pytest.mark.parametrize(
    ("schema", "path", "reason"),
    [
        ({"properties": {"a": {"items": {"not": {}}}}}, "properties.a.items.not", "not a supported keyword"),
        ({"anyOf": [{}, {"not": {}}]}, "anyOf[1].not", "not a supported keyword"),
        ({"minlength": 3}, "minlength", "did you mean 'minLength'"),
        ({"x-guidance": {"lenient": True}}, "x-guidance", "not a supported keyword"),
        ({"type": "text"}, "type", 'is "text", which is not a valid value'),
        ({"properties": {"a": {"minimum": "1"}}}, "properties.a.minimum", "not a valid value"),
        ({"format": "regex"}, "format", "supported: date-time"),
        ({"pattern": "a(?=b)"}, "pattern", "look-around"),
        ({"$ref": "https://example.org/schema"}, "$ref", "only references into the schema itself"),
        ({"$ref": "#/$defs/none"}, "", "does not exist"),
        ({"type": "integer", "minimum": 3, "maximum": 2}, "", "minimum"),
        ({"oneOf": [{"type": "integer"}, {"type": "number"}]}, "", "use anyOf"),
        ({"minProperties": 2}, "minProperties", "listed|list them"),
        ({"$schema": "http://json-schema.org/draft-04/schema#"}, "$schema", "drafts 6"),
        ({"description": "x" * 2**18}, "", "characters"),
    ],
)  # fmt: skip
def test_a_schema_that_cannot_be_followed_is_refused_with_the_place(schema: Any, path: str, reason: str) -> None:
    with pytest.raises(JSONSchemaError, match=reason) as caught:
        Grammar.of_json_schema(schema)
    assert caught.value.path == path


def test_a_deep_schema_is_refused() -> None:
    schema: dict[str, Any] = {}
    for _ in range(5000):
        schema = {"items": schema}
    with pytest.raises(JSONSchemaError, match="nested too deeply"):
        Grammar.of_json_schema(schema)
    with pytest.raises(JSONSchemaError, match="must be an object"):
        check_schema([])


@pytest.mark.parametrize("pattern", ["(", "a(?=b)", r"(a)\1"])
def test_a_regular_expression_that_is_invalid_is_refused(pattern: str) -> None:
    with pytest.raises(BadInput, match="not valid"):
        Grammar.of_regex(pattern)


@pytest.mark.parametrize("source", ["", "start: nothing", 'start: ""'])
def test_a_grammar_that_is_invalid_or_empty_is_refused(source: str) -> None:
    with pytest.raises(BadInput, match="grammar"):
        Grammar.of_lark(source).mask(BYTES)


def test_a_grammar_without_an_end_or_without_tokens_is_an_error_and_not_a_loop() -> None:
    endless = {"$defs": {"a": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}
    with pytest.raises(CannotDo, match="the grammar allows no token"):
        Grammar.of_json_schema(endless).mask(BYTES)
    with pytest.raises(CannotDo, match="simplify it, or use another model"):
        Grammar.of_regex("aé").mask(train_tokenizer("characters", ["abc"]))


@pytest.mark.parametrize(
    ("schema", "right", "wrong"),
    [
        ({"type": "number", "multipleOf": 0.01}, "0.07", "0.075"),
        ({"type": "string", "pattern": "^a+$"}, '"aa"', '"ab"'),
        ({"patternProperties": {"^x": {"type": "integer"}}, "additionalProperties": False}, '{"x1":1}', '{"y":1}'),
        ({"patternProperties": {"^x": {"type": "integer"}}}, '{"x":1,"y":"a"}', '{"x":"a"}'),
        ({"additionalProperties": {"type": "integer"}, "properties": {"a": {}}}, '{"a":"b"}', '{"b":"b"}'),
        ({"type": "integer"}, "9" * 5000, "1.5"),
        ({}, "[]", "[" * 3000),
    ],
)
def test_texts_are_checked_against_their_schema(schema: Any, right: str, wrong: str) -> None:
    check_follows(right, schema)
    with pytest.raises(GrammarViolation):
        check_follows(wrong, schema)


def test_patterns_are_matched_in_linear_time() -> None:
    assert not contains_match("^(a+)+$", "a" * 5000 + "b")  # exponential in Python's re
    assert contains_match("b", "abc")
    assert not contains_match("^b$", "abc")


def test_a_regular_expression_is_checked_from_beginning_to_end() -> None:
    grammar = Grammar.of_regex("a/b|c")
    grammar.check("a/b")
    with pytest.raises(GrammarViolation):
        grammar.check("a/bc")


def test_generate_holds_texts_to_a_schema_and_an_expression(tmp_path: Path) -> None:
    opened: Any = SimpleNamespace(
        model=build(replace(TINY_GPT2, vocab=BYTES.vocab, context=64), seed=1), tokenizer=BYTES
    )
    schema = {"type": "object", "properties": {"a": {"enum": [1, 2]}}, "required": ["a"], "additionalProperties": False}
    file = tmp_path / "schema.json"
    file.write_text(json.dumps(schema))
    for given in (schema, file):
        found = generate(opened, ["x", "y"], json_schema=given, max_tokens=200, seed=1)
        assert all(json.loads(each.text)["a"] in (1, 2) for each in found.completions if each.finished == "eos")
    assert generate(opened, "x", regex="(yes|no)!", seed=2).text in ("yes!", "no!")
    for wrong, reason in (
        ({"json_schema": schema, "regex": "a"}, "both json_schema and regex"),
        ({"regex": "a", "beam": 2}, "beam is 2"),
        ({"regex": "a", "stop": ("a",)}, "stop string"),
        ({"json_schema": tmp_path / "none.json"}, "cannot be read"),
    ):
        with pytest.raises(ClearstoryError, match=reason):
            generate(opened, "x", **wrong)
