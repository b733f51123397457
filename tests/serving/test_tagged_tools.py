"""Tools of models whose calls have a tag for each argument: what the grammar allows is parsed into JSON arguments."""

from __future__ import annotations

import json
from random import Random
from typing import Any

import pytest
from tool_templates import PAIRED, TAGGED, TAGGED_TEMPLATES, check_allowed, check_calls, tool_tokenizer

from clearstory.errors import BadInput
from clearstory.serving.tool_calls import ToolCallParser
from clearstory.serving.tools import Tool, ToolUse
from clearstory.text.chat_prompt import encode_chat
from clearstory.text.tagged_calls import TaggedCallFormat
from clearstory.text.tokenizers import Tokenizer
from clearstory.text.tool_format import find_tool_format

TRIP = Tool(
    name="book_trip",
    parameters={
        "type": "object",
        "properties": {
            "city": {"type": "string"},
            "class": {"enum": ["first", "2", 2, None]},
            "days": {"type": "integer", "minimum": 1, "maximum": 30},
            "note": {"anyOf": [{"type": "string"}, {"type": "null"}]},
            "code": {"type": "string", "pattern": "^[A-Z]{2}/[0-9]$"},
            "name": {"type": "string", "minLength": 2, "maxLength": 4},
            "stops": {"type": "array", "items": {"$ref": "#/$defs/stop"}, "maxItems": 2},
            "on": {"$ref": "#/$defs/day"},
        },
        "required": ["city", "days", "code", "on"],
        "$defs": {
            "stop": {"type": "object", "properties": {"x": {"type": "string"}}, "additionalProperties": False},
            "day": {"type": "string", "format": "date"},
        },
    },
)
TOOLS = (TRIP, Tool(name="now"))

FULL = {
    "city": 'São <b> </parameter> "x" \\n',
    "class": None,
    "days": 7,
    "note": "12",
    "code": "AB/1",
    "name": "é\nü",
    "stops": [{"x": "a, b</v>"}, {}],
    "on": "2026-11-30",
}
SHORT = {"city": "", "days": 30, "note": None, "code": "XY/0", "on": "1999-01-31"}


def use_of(tokenizer: Tokenizer, tools: tuple[Tool, ...] = TOOLS, **options: Any) -> ToolUse:
    """The use of tools: required and parallel, if not said otherwise."""
    options = {"required": True, "parallel": True, **options}
    return ToolUse(tools=tools, callable=tools, format=find_tool_format(tokenizer), **options)


def parse(tokenizer: Tokenizer, ids: list[int], tools: tuple[Tool, ...] = TOOLS) -> tuple[ToolCallParser, list[Any]]:
    """The parser after all ids, and the pieces it returned."""
    use = use_of(tokenizer, tools)
    parser = ToolCallParser(tokenizer, use.format, use.schemas)
    pieces = [piece for id in ids for piece in parser.push(id)]
    return parser, [*pieces, *parser.flush()]


def rendered(tokenizer: Tokenizer, made: list[tuple[str, dict[str, Any]]]) -> list[int]:
    """The ids that the template writes for calls."""
    calls = [
        {"id": "c", "type": "function", "function": {"name": name, "arguments": arguments}} for name, arguments in made
    ]
    messages: list[dict[str, Any]] = [{"role": "user", "content": "?"}]
    tools = [tool.template_value() for tool in TOOLS]
    prompt = encode_chat(tokenizer, messages, tools=tools).ids
    answer = {"role": "assistant", "content": "", "tool_calls": calls}
    whole = encode_chat(tokenizer, [*messages, answer], answer=False, tools=tools).ids
    assert whole[: len(prompt)] == prompt
    rest = list(whole[len(prompt) :])
    return rest[: rest.index(tokenizer.ids["<|im_end|>"])]


def test_the_tags_are_read_off_the_template() -> None:
    form = find_tool_format(tool_tokenizer(TAGGED))
    assert isinstance(form, TaggedCallFormat)
    assert (form.begin, form.mark) == ("<tool_call>\n<function=", "<tool_call>")
    assert (form.first, form.middle, form.following) == (">\n<parameter=", ">\n", "\n</parameter>\n<parameter=")
    assert (form.last, form.none) == ("\n</parameter>\n</function>\n</tool_call>", ">\n</function>\n</tool_call>")
    assert form.none_between == ">\n</function>\n</tool_call>\n<tool_call>\n<function="
    once = PAIRED.replace("{% for c in m.tool_calls or [] %}", "{% for c in (m.tool_calls or [])[:1] %}")
    single = find_tool_format(tool_tokenizer(once))
    assert isinstance(single, TaggedCallFormat)
    assert single.between is None


@pytest.mark.parametrize("special", [(), ("<tool_call>", "</tool_call>")], ids=["added", "special"])
@pytest.mark.parametrize("name", TAGGED_TEMPLATES)
def test_what_the_template_writes_is_allowed_and_parsed(name: str, special: tuple[str, ...]) -> None:
    tokenizer = tool_tokenizer(TAGGED_TEMPLATES[name], special)
    made: list[tuple[str, dict[str, Any]]] = [("book_trip", FULL), ("now", {}), ("book_trip", SHORT), ("now", {})]
    ids, use = rendered(tokenizer, made), use_of(tokenizer)
    check_allowed(use, tokenizer, ids)
    check_calls(use, *parse(tokenizer, ids), made)  # "12" is no null, so it is a text


@pytest.mark.parametrize("name", TAGGED_TEMPLATES)
def test_random_answers_that_must_call_are_calls(name: str) -> None:
    tokenizer = tool_tokenizer(TAGGED_TEMPLATES[name])
    end = tokenizer.ids["<|im_end|>"]
    for seed, parallel in enumerate([True, False]):
        use, random, ids = use_of(tokenizer, parallel=parallel), Random(seed), list[int]()
        mask = use.grammar().mask(tokenizer, end)
        while not mask.finished and len(ids) < 900:
            allowed = mask.allowed().nonzero().flatten().tolist()
            closing = [id for id in allowed if id in (*b"\n<]}", end)]
            ids.append(random.choice(closing if closing and random.random() < 0.7 else allowed))
            if len(ids) > 450 and end in allowed:
                ids[-1] = end
            mask.advance(ids[-1])
        parser, _ = parse(tokenizer, [id for id in ids if id != end])
        assert parser.calls
        if mask.finished:
            use.check(parser.calls)
        assert parallel or len(parser.calls) == 1


def test_a_call_may_follow_text() -> None:
    tokenizer = tool_tokenizer(TAGGED)
    end = tokenizer.ids["<|im_end|>"]
    mask = use_of(tokenizer, required=False).grammar().mask(tokenizer, end)
    ids = [*tokenizer.encode("Let me <see> "), *rendered(tokenizer, [("now", {})])]
    for id in ids:
        assert mask.allowed()[id]
        mask.advance(id)
    parser, pieces = parse(tokenizer, ids)
    assert (parser.text, [(call.name, call.arguments) for call in parser.calls]) == ("Let me <see> ", [("now", "{}")])
    assert "".join(piece for piece in pieces if isinstance(piece, str)) == parser.text


def test_a_cut_call_has_its_complete_arguments() -> None:
    tokenizer = tool_tokenizer(TAGGED)
    ids = rendered(tokenizer, [("book_trip", FULL)])
    text = tokenizer.decode(ids)
    cut = text[: text.index("7\n")]
    parser, _ = parse(tokenizer, tokenizer.encode(cut))
    [call] = parser.calls
    assert json.loads(call.arguments + "}") == {"city": FULL["city"], "class": None}


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        ({"anyOf": [{"type": "object"}]}, "anyOf is not supported by this model"),
        ({"required": ["a"]}, "required names 'a'"),
        ({"properties": {"a": {"type": "string", "format": "email"}}}, "properties.a.format is 'email'"),
        ({"properties": {"a": {"type": "string", "maxLength": 10**6}}}, "properties.a.maxLength is 1,000,000"),
        ({"properties": {"a": {"type": "string", "pattern": "^a|b$"}}}, "properties.a.pattern is"),
        ({"properties": {"a>b": {"type": "string"}}}, "rename it"),
        ({"properties": {"a": {"type": ["string", "integer"], "maxLength": 3}}}, "allow one"),
        ({"properties": {"a": {"enum": ["x", "\n</parameter>\n</"]}}}, "closes an argument"),
        ({"properties": {"b": {"enum": ["x"], "minLength": 3}}}, "no value"),
    ],
)
def test_what_tags_cannot_express_is_refused(schema: dict[str, Any], reason: str) -> None:
    form = find_tool_format(tool_tokenizer(TAGGED))
    with pytest.raises(BadInput, match=reason):
        Tool(name="f", parameters=schema).check(form)
