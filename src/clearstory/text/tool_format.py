"""Formats of tool calls: how a chat template writes the calls of an assistant, found by letting it write some.

| model | a call of f with {"x": 1} |
|---|---|
| Hermes, Qwen | <tool_call>, on the next line {"name": "f", "arguments": {"x": 1}}, on the next </tool_call> |
| Llama 3 | {"name": "f", "parameters": {"x": 1}} |
| Mistral | [TOOL_CALLS] [{"name": "f", "arguments": {"x": 1}, "id": "VvvODy9mT"}] |

Formats with a tag for each argument are in `tagged_calls`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import lru_cache, partial
from typing import Any

from clearstory.errors import BadInput, CannotDo
from clearstory.text.chat_template import ChatTemplate
from clearstory.text.tagged_calls import (
    KEYS,
    NAMES,
    TaggedCallFormat,
    before_any,
    common_prefix,
    read_tagged_calls,
)
from clearstory.text.tokenizers import Tokenizer

CALL_ID = "\ufdd8"
"""Placeholder of the id of a call in a template."""

TURN_ENDS = ("<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<|end|>", "<end_of_turn>", "</s>", "<|endoftext|>")
"""Tokens that end a turn, besides a tokenizer's end token."""

IDS = ("q1call111", "q2call222")
"""Of the calls that a template is given to write. Mistral's ids have 9 letters and digits."""

USER = {"role": "user", "content": "q0user"}
NOW = datetime(2000, 1, 1)


@dataclass(frozen=True)
class ToolCallFormat:
    """The text of calls: begin NAME middle ARGUMENTS, for each further call between NAME middle ARGUMENTS, then end.

    Args:
        begin: before the name of the first function.
        middle: between a name and its arguments, which are a JSON object.
        between: after the arguments of a call that another one follows; None if an answer has one call only.
        end: after the last arguments.
        mark: the text by which `begin` is recognized after other text, its own beginning; empty if calls begin an
            answer.
        spelled: special tokens in these texts.
        arguments_as_text: whether the template takes arguments as JSON text, not as an object.
    """

    begin: str
    middle: str
    between: str | None
    end: str
    mark: str = ""
    spelled: frozenset[str] = frozenset()
    arguments_as_text: bool = False


CallFormat = ToolCallFormat | TaggedCallFormat
"""A format of calls."""


def find_tool_format(tokenizer: Tokenizer) -> CallFormat:
    """The format of a tokenizer's chat template; found once.

    Raises CannotDo for a template without tools, and for one whose calls have another format.
    """
    return cached_format(tokenizer, ChatTemplate.from_tokenizer(tokenizer, tools=True).source)


def takes_text_arguments(tokenizer: Tokenizer) -> bool:
    """Whether the chat template takes the arguments of calls as JSON text, not as an object."""
    try:
        form = find_tool_format(tokenizer)
    except (CannotDo, BadInput):
        return False
    return isinstance(form, ToolCallFormat) and form.arguments_as_text


@lru_cache(maxsize=8)
def cached_format(tokenizer: Tokenizer, source: str) -> CallFormat:
    """The same; `source` is the template, which does not count where tokenizers are compared."""
    template = ChatTemplate.from_tokenizer(tokenizer, tools=True)
    if "q9tool" not in try_render(template, [USER], answer=True):
        raise CannotDo(
            "this model's chat template takes no tools; leave tools out, or serve a model that was trained to call them"
        )
    ends = {*TURN_ENDS} & {*tokenizer.special_names, *tokenizer.added_names}
    if tokenizer.eos_token_id is not None:
        ends.add(tokenizer.display_token(tokenizer.eos_token_id))
    for as_text in (False, True):
        if (found := read_calls(template, ends, as_text)) is not None:
            begin, middle, between, end = found
            spelled, mark = names_in(found, tokenizer), mark_of(begin, named_tokens(tokenizer))
            return ToolCallFormat(begin, middle, between, end, mark, spelled, as_text)
    if (tagged := read_tagged_calls(partial(written_calls, template), ends)) is not None:
        parts = (tagged.begin, tagged.first, tagged.middle, tagged.following, tagged.last, tagged.none, tagged.between)
        spelled = names_in((*parts, tagged.none_between), tokenizer)
        return replace(tagged, mark=mark_of(tagged.begin, named_tokens(tokenizer)), spelled=spelled)
    raise CannotDo(
        "this model's chat template writes calls of tools neither as a name and a JSON object nor with a tag for each "
        "argument, the supported formats; leave tools out"
    )


def names_in(parts: Sequence[str | None], tokenizer: Tokenizer) -> frozenset[str]:
    """The special tokens in the texts of a format."""
    return frozenset(name for name in tokenizer.special_names if any(name in (part or "") for part in parts))


def named_tokens(tokenizer: Tokenizer) -> frozenset[str]:
    """Tokens by which the beginning of a call may be recognized."""
    return frozenset({*tokenizer.special_names, *tokenizer.added_names})


def read_calls(template: ChatTemplate, ends: Collection[str], as_text: bool) -> tuple[str, str, str | None, str] | None:
    """`begin`, `middle`, `between` and `end` of a format; None if the template writes no such calls."""
    made: list[Any] = [json.dumps({key: 1}) if as_text else {key: 1} for key in KEYS[:2]]
    one, two = written_calls(template, made[:1]), written_calls(template, made)
    name, arguments = one.find(NAMES[0]), arguments_span(one, KEYS[0])
    if name < 0 or arguments is None or arguments[0] < name:
        return None
    begin, middle = one[:name], one[name + len(NAMES[0]) : arguments[0]]
    between, last = None, one[arguments[1] :]
    first, second = arguments_span(two, KEYS[0]), arguments_span(two, KEYS[1])
    if first is not None and second is not None and NAMES[1] in two[first[1] : second[0]]:
        between = two[first[1] : two.index(NAMES[1], first[1])].replace(IDS[0], CALL_ID)
        last = two[second[1] :]
    end = before_any(last, ends)
    if end is None or NAMES[0] in begin + middle:
        return None
    return begin, middle, between, end.replace(IDS[1], CALL_ID).replace(IDS[0], CALL_ID)


def written_calls(template: ChatTemplate, arguments: Sequence[Any]) -> str:
    """The text that a template writes after the header of the assistant's turn for calls with these arguments and their
    results; empty if it refuses them.
    """
    calls: list[dict[str, Any]] = [
        {"id": id, "type": "function", "function": {"name": name, "arguments": each}}
        for id, name, each in zip(IDS, NAMES, arguments, strict=False)
    ]
    results = [
        {"role": "tool", "name": call["function"]["name"], "tool_call_id": call["id"], "content": "0"} for call in calls
    ]
    prompt = try_render(template, [USER], answer=True)
    whole = try_render(
        template, [USER, {"role": "assistant", "content": "", "tool_calls": calls}, *results], answer=False
    )
    return whole[len(common_prefix([prompt, whole])) :] if whole else ""


def try_render(template: ChatTemplate, messages: list[dict[str, Any]], *, answer: bool) -> str:
    """The text of a template with a tool; empty if it refuses the messages."""
    parameters = {"type": "object", "properties": {"x": {"type": "integer", "description": "x"}}, "required": ["x"]}
    tool = {"type": "function", "function": {"name": "q9tool", "description": "f", "parameters": parameters}}
    try:
        return template.render(messages, answer=answer, today=NOW, tools=[tool])
    except BadInput:
        return ""


def arguments_span(text: str, key: str) -> tuple[int, int] | None:
    """Where the arguments with this key stand, as a JSON object."""
    found = re.search(rf'\{{\s*"{key}"\s*:\s*1\s*\}}', text)
    return None if found is None else found.span()


def mark_of(begin: str, names: Collection[str]) -> str:
    """The part of `begin` that no other text has: a token of the vocabulary, or the first word before the JSON.

    >>> mark_of('<tool_call>\\n{"name": "', []), mark_of('{"name": "', [])
    ('<tool_call>', '')
    """
    head = begin.split("{", 1)[0].lstrip()
    token = max((name for name in names if head.startswith(name)), key=len, default="")
    word = token or (head.split()[0] if head.split() else "")
    return begin[: begin.index(word) + len(word)] if word else ""
