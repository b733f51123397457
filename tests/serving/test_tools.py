"""Tools: the format of calls is that of the template, and what a grammar lets through is parsed into calls."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from tool_templates import AS_TEXT, HERMES, LLAMA, MISTRAL, TEMPLATES, check_allowed, check_calls, tool_tokenizer

from clearstory.errors import BadInput, CannotDo, GrammarViolation
from clearstory.serving.json_calls import JSONObjectEnd
from clearstory.serving.tool_calls import ToolCallParser
from clearstory.serving.tools import Tool, ToolUse, check_names
from clearstory.text.chat_prompt import encode_chat
from clearstory.text.tokenizers import Tokenizer
from clearstory.text.tool_format import ToolCallFormat, find_tool_format, takes_text_arguments
from generation.test_chat_prompts import TEMPLATE, chat_tokenizer

WEATHER = Tool(
    name="get_weather",
    description="The weather of a city.",
    parameters={
        "properties": {"city": {"type": "string", "maxLength": 6}, "unit": {"enum": ["C", "F"]}},
        "required": ["city", "unit"],
        "additionalProperties": False,
    },
)
TOOLS = (WEATHER, Tool(name="now"))


def use_of(tokenizer: Tokenizer, **options: Any) -> ToolUse:
    """The use of TOOLS: required and parallel, if not said otherwise."""
    options = {"tools": TOOLS, "callable": TOOLS, "required": True, "parallel": True, **options}
    return ToolUse(format=find_tool_format(tokenizer), **options)


def parse(tokenizer: Tokenizer, ids: list[int]) -> tuple[ToolCallParser, list[Any]]:
    """The parser after all ids, and the pieces it returned."""
    parser = ToolCallParser(tokenizer, find_tool_format(tokenizer))
    pieces = [piece for id in ids for piece in parser.push(id)]
    return parser, [*pieces, *parser.flush()]


def json_format(template: str) -> ToolCallFormat:
    """The format of a template whose calls are a name and a JSON object."""
    found = find_tool_format(tool_tokenizer(template))
    assert isinstance(found, ToolCallFormat)
    return found


def test_the_format_of_calls_is_read_off_the_template() -> None:
    hermes, llama, mistral = (json_format(template) for template in (HERMES, LLAMA, MISTRAL))
    assert (hermes.begin, hermes.middle, hermes.end) == (
        '<tool_call>\n{"name": "',
        '", "arguments": ',
        "}\n</tool_call>",
    )
    assert (hermes.between, hermes.mark) == ('}\n</tool_call>\n<tool_call>\n{"name": "', "<tool_call>")
    assert (llama.begin, llama.middle, llama.end) == ('{"name": "', '", "parameters": ', "}")
    assert (llama.between, llama.mark) == (None, "")
    assert (mistral.begin, mistral.mark) == ('[TOOL_CALLS] [{"name": "', "[TOOL_CALLS]")
    assert mistral.spelled == {"[TOOL_CALLS]"}
    assert takes_text_arguments(tool_tokenizer(AS_TEXT))
    assert not takes_text_arguments(tool_tokenizer(HERMES))


def test_templates_without_tools_or_without_json_are_refused() -> None:
    with pytest.raises(CannotDo, match="takes no tools"):
        find_tool_format(chat_tokenizer(TEMPLATE))
    tagged = HERMES.replace("c.function.arguments | tojson", "c.function.arguments.keys() | list")
    with pytest.raises(CannotDo, match="neither as a name and a JSON object nor with a tag"):
        find_tool_format(tool_tokenizer(tagged))


@pytest.mark.parametrize("special", [(), ("<tool_call>", "</tool_call>")], ids=["added", "special"])
@pytest.mark.parametrize("name", TEMPLATES)
def test_what_the_template_writes_is_allowed_and_parsed(name: str, special: tuple[str, ...]) -> None:
    tokenizer = tool_tokenizer(TEMPLATES[name], ("[TOOL_CALLS]", *special))
    made = [("get_weather", {"city": 'a"}é', "unit": "C"}), ("now", {})][: 1 if name == "llama" else 2]
    calls = [
        {"id": f"aaaabbb{index:02}", "type": "function", "function": {"name": function, "arguments": arguments}}
        for index, (function, arguments) in enumerate(made)
    ]
    messages: list[dict[str, Any]] = [{"role": "user", "content": "?"}]
    tools = [tool.template_value() for tool in TOOLS]
    prompt = encode_chat(tokenizer, messages, tools=tools).ids
    answer = {"role": "assistant", "content": "", "tool_calls": calls}
    whole = encode_chat(tokenizer, [*messages, answer], answer=False, tools=tools).ids
    end = tokenizer.ids["<|im_end|>"]
    ids = list(whole[len(prompt) : len(prompt) + whole[len(prompt) :].index(end)])
    assert whole[: len(prompt)] == prompt
    use = use_of(tokenizer)
    check_allowed(use, tokenizer, ids)
    check_calls(use, *parse(tokenizer, ids), made)


@pytest.mark.parametrize("name", TEMPLATES)
def test_random_answers_that_must_call_are_calls(name: str) -> None:
    tokenizer = tool_tokenizer(TEMPLATES[name])
    end = tokenizer.ids["<|im_end|>"]
    for seed, options in enumerate([{}, {"parallel": False}, {"callable": (WEATHER,), "parallel": False}]):
        use, random, ids = use_of(tokenizer, **options), Random(seed), list[int]()
        mask = use.grammar().mask(tokenizer, end)
        while not mask.finished and len(ids) < 500:
            allowed = mask.allowed().nonzero().flatten().tolist()
            closing = [id for id in allowed if id in (ord('"'), ord("}"), end)]
            ids.append(random.choice(closing if closing and random.random() < 0.5 else allowed))
            mask.advance(ids[-1])
        parser, _ = parse(tokenizer, [id for id in ids if id != end])
        assert mask.finished
        assert parser.calls
        use.check(parser.calls)
        assert use.parallel or len(parser.calls) == 1
        assert {call.name for call in parser.calls} <= {tool.name for tool in use.callable}


@pytest.mark.parametrize("name", ["hermes", "mistral"])
def test_a_call_may_follow_text(name: str) -> None:
    tokenizer = tool_tokenizer(TEMPLATES[name])
    form = json_format(TEMPLATES[name])
    end = tokenizer.ids["<|im_end|>"]
    mask = use_of(tokenizer, required=False).grammar().mask(tokenizer, end)
    mark = tokenizer.encode_parsing_special(form.mark)
    text = list(b"Let me see <tool [TOOL ")
    for id in [*text, *mark[:1]]:
        assert mask.allowed()[end]  # text may end anywhere
        assert mask.allowed()[id]
        mask.advance(id)
    assert not mask.allowed()[end]  # a call may not
    rest = tokenizer.encode(
        form.begin[len(form.mark) :] + "now" + form.middle + "{}" + form.end.replace("\ufdd8", "a" * 9)
    )
    for id in rest:
        assert mask.allowed()[id]
        mask.advance(id)
    parser, pieces = parse(tokenizer, [*text, *mark, *rest])
    assert (parser.text, [call.name for call in parser.calls]) == (bytes(text).decode(), ["now"])
    assert "".join(piece for piece in pieces if isinstance(piece, str)) == parser.text


def test_an_answer_without_a_call_is_text() -> None:
    for name in TEMPLATES:
        tokenizer = tool_tokenizer(TEMPLATES[name])
        text = "It is <tool cold, é"
        end = tokenizer.ids["<|im_end|>"]
        mask = use_of(tokenizer, required=False).grammar().mask(tokenizer, end)
        for id in tokenizer.encode(text):
            mask.advance(id)
        assert mask.allowed()[end]
        parser, pieces = parse(tokenizer, tokenizer.encode(text))
        assert (parser.text, parser.calls, "".join(pieces)) == (text, [], text)


def test_an_answer_that_calls_or_follows_a_schema() -> None:
    tokenizer = tool_tokenizer(HERMES)
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    grammar = use_of(tokenizer, required=False, answer=schema).grammar()
    for text in ('{"a": 1}', '<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>'):
        mask = grammar.mask(tokenizer, 0)
        for id in tokenizer.encode(text):
            assert mask.allowed()[id]
            mask.advance(id)


def test_a_cut_call_has_the_arguments_so_far() -> None:
    tokenizer = tool_tokenizer(HERMES)
    parser, _ = parse(tokenizer, tokenizer.encode('<tool_call>\n{"name": "get_weather", "arguments": {"city": "Ber'))
    assert [(call.name, call.arguments) for call in parser.calls] == [("get_weather", '{"city": "Ber')]
    with pytest.raises(GrammarViolation):
        use_of(tokenizer).check(parser.calls)


def test_braces_in_strings_do_not_end_arguments() -> None:
    text = '{"a": "}\\"}", "b": [{"c": 1}]}'
    end = JSONObjectEnd()
    assert [end.length(character) for character in text] == [1] * len(text)
    assert end.ended
    assert JSONObjectEnd().length(text + "}more") == len(text)


def test_bad_tools_are_refused() -> None:
    with pytest.raises(BadInput, match="not is not a supported keyword"):
        Tool(name="f", parameters={"properties": {"a": {"not": {}}}}).check()
    with pytest.raises(BadInput, match="are not an object"):
        Tool(name="f", parameters={"type": "array"}).check()
    with pytest.raises(BadInput, match="two tools have the name 'now'"):
        check_names([Tool(name="now"), Tool(name="now")])


def test_special_tokens_in_tools_are_text() -> None:
    tokenizer = tool_tokenizer(HERMES)
    end = tokenizer.ids["<|im_end|>"]
    tool = Tool(name="f", description="<|im_end|>", parameters={"properties": {"<|im_end|>": {"type": "string"}}})
    ids = encode_chat(tokenizer, [{"role": "user", "content": "?"}], tools=[tool.template_value()]).ids
    assert ids.count(end) == 2  # of the two turns
    assert tokenizer.decode(ids).count("<|im_end|>") == 2
