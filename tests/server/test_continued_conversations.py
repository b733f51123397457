"""Conversations whose last message is continued: the ids of transformers' `continue_final_message`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from clearstory.errors import BadInput
from clearstory.server.chat_completions import ChatCompletionRequest
from clearstory.server.chat_messages import template_messages
from clearstory.server.errors import RequestError
from clearstory.server.fields import parse_fields
from clearstory.text.chat_prompt import encode_chat
from generation.test_chat_prompts import END, START, TEMPLATE, chat_tokenizer

KEEPING = TEMPLATE.replace(" | trim", "")
THINKING = TEMPLATE.replace(
    "{{ m.content | trim }}", "{% if m.role == 'assistant' %}<think>\n\n{% endif %}{{ m.content }}"
)


@pytest.mark.parametrize("template", [TEMPLATE, KEEPING, THINKING], ids=["trims", "keeps space", "adds thinking"])
@pytest.mark.parametrize("beginning", ["It is", "It is ", " It is\n", "<|im_end|>"])
def test_it_ends_with_the_last_message_as_in_transformers(template: str, beginning: str, tmp_path: Path) -> None:
    transformers: Any = pytest.importorskip("transformers")
    tokenizer = chat_tokenizer(template)
    messages = [{"role": "user", "content": "What?"}, {"role": "assistant", "content": beginning}]
    encoded = encode_chat(tokenizer, messages, continue_last=True)
    tokenizer.save(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    text = theirs.apply_chat_template(messages, tokenize=False, continue_final_message=True)
    if beginning != "<|im_end|>":
        assert list(encoded.ids) == theirs(text, add_special_tokens=False).input_ids
    else:  # a string of a special token in a message stays text
        assert encoded.ids.count(END) == 1
        assert tokenizer.decode(encoded.ids).endswith(beginning)
    assert encoded.ids.count(START) == 2


def test_what_cannot_be_continued_is_refused() -> None:
    for content in ("", "  "):
        messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": content}]
        with pytest.raises(BadInput, match="empty, so there is no text to continue"):
            encode_chat(chat_tokenizer(), messages, continue_last=True)
    silent = chat_tokenizer(TEMPLATE.replace("{{ m.content | trim }}", "{{ m.content | length }}"))
    with pytest.raises(BadInput, match="does not write the last message as it is"):
        encode_chat(silent, [{"role": "user", "content": "abc"}], continue_last=True)


def messages_of(*messages: dict[str, Any]) -> list[dict[str, Any]]:
    """Messages of a request as a template reads them."""
    request = parse_fields(ChatCompletionRequest, {"model": "m", "messages": list(messages)})
    return template_messages(request.messages, TEMPLATE)


def test_messages_of_all_forms_become_those_of_a_template() -> None:
    parts = [{"type": "text", "text": "How "}, {"type": "text", "text": "now?"}]
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}
    assert messages_of(
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": parts, "name": "Ann"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "2", "tool_call_id": "c1"},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}], "audio": None},
    ) == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "How now?", "name": "Ann"},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": {"x": 1}}}],
        },
        {"role": "tool", "content": "2", "tool_call_id": "c1"},
        {"role": "assistant", "content": "No."},
    ]


@pytest.mark.parametrize(
    ("message", "param"),
    [
        (
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]},
            "messages[0].content[0].type",
        ),
        ({"role": "user"}, "messages[0].content"),
        ({"role": "function", "content": "a"}, "messages[0].role"),
        ({"role": "assistant"}, "messages[0].content"),
        ({"role": "user", "content": "a", "weight": 1}, "messages[0].weight"),
        ({"role": "tool", "content": "a"}, "messages[0].tool_call_id"),
        ({"role": "assistant", "content": "a", "function_call": {}}, "messages[0].function_call"),
    ],
)
def test_a_message_of_no_known_form_is_named(message: dict[str, Any], param: str) -> None:
    with pytest.raises(RequestError) as found:
        messages_of(message)
    assert found.value.param == param
    assert json.loads(json.dumps(found.value.body()))["error"]["type"] == "invalid_request_error"
