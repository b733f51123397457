"""Chat templates: the text that transformers makes of the same messages, and nothing but a text."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from clearstory.errors import BadInput, CannotDo
from clearstory.text.chat import ChatTemplate
from clearstory.text.learning import learn

CHATML = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou help.<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# Blocks on lines of their own, white space cut, a namespace, a loop left early, JSON, and the part to learn.
WORDY = """{{- bos_token }}
{%- set ns = namespace(count=0) %}
{%- for message in messages %}
    {%- if message.role == 'stop' %}{% break %}{% endif %}
    {%- set ns.count = ns.count + 1 %}
    {%- if message.role == 'assistant' %}{% generation %}{{ message.content | trim }}{% endgeneration %}
    {%- else %}
[{{ message.role | upper }} {{ ns.count }}] {{ {'c': message.content, 'n': ns.count * 2} | tojson }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
[ASSISTANT]{% endif %}{{ eos_token }}"""

MESSAGES = [
    {"role": "user", "content": "What's <b>bold</b> & naïve?"},
    {"role": "assistant", "content": "  東京 🙂  "},
    {"role": "user", "content": "<|im_end|>"},
]


@pytest.mark.parametrize("source", [CHATML, WORDY], ids=["chatml", "wordy"])
@pytest.mark.parametrize("answer", [True, False])
def test_a_template_writes_what_transformers_writes(source: str, answer: bool, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="transformers is not installed: clearstory[test]")
    tokenizer = learn("bytes", [])
    tokenizer = replace(tokenizer, config={**tokenizer.config, "chat_template": source})
    tokenizer.save(tmp_path)
    theirs = transformers.PreTrainedTokenizerFast.from_pretrained(tmp_path)
    written = ChatTemplate.of(tokenizer).render(MESSAGES, answer=answer)
    assert written == theirs.apply_chat_template(MESSAGES, tokenize=False, add_generation_prompt=answer)
    assert ("assistant" in written.lower()) == answer or source is CHATML


def test_of_several_templates_the_one_called_default_is_taken() -> None:
    tokenizer = learn("bytes", [])
    several = [{"name": "tools", "template": "no"}, {"name": "default", "template": "{{ messages[0].content }}"}]
    tokenizer = replace(tokenizer, config={**tokenizer.config, "chat_template": several})
    assert ChatTemplate.of(tokenizer).render([{"role": "user", "content": "Hi"}]) == "Hi"


def test_a_model_without_a_template_does_not_chat() -> None:
    with pytest.raises(CannotDo, match="has no chat template, so it was not taught to chat"):
        ChatTemplate.of(learn("bytes", []))


def test_the_date_is_handed_in() -> None:
    template = ChatTemplate("{{ strftime_now('%d %b %Y') }}")
    assert template.render(MESSAGES, today=datetime(2024, 7, 4)) == "04 Jul 2024"


def test_messages_are_left_as_they_were() -> None:
    messages: list[Any] = [{"role": "user", "content": "a", "tools": [1]}]
    ChatTemplate("{% set m = messages[0] %}{{ m.content }}").render(messages)
    assert messages == [{"role": "user", "content": "a", "tools": [1]}]


REACHING = [
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ cycler.__init__.__globals__.os.popen('touch ran').read() }}",
    "{{ range.__self__ }}{{ range.__func__.__globals__ }}",
    "{{ strftime_now.__self__.today() }}",
    "{{ raise_exception.__globals__['json'] }}",
    "{{ messages.append(1) }}",
    "{{ messages[0].update({'content': 1}) }}",
    "{{ (messages | map(attribute='__class__') | list | first).mro() }}",
    "{{ (''|attr('__class__')).mro() }}",
]


@pytest.mark.parametrize("source", REACHING)
def test_a_template_that_reaches_for_python_is_stopped(source: str, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadInput, match="tries to reach what is no concern of a text") as told:
        ChatTemplate(source).render(MESSAGES)
    assert "\n" not in str(told.value)
    assert not list(tmp_path.iterdir())


ENDLESS = {
    "{{ 'a' * 10**12 }}": "makes something 1,000,000,000,000 times as large",
    "{{ 10**12 * 'a' }}": "makes something 1,000,000,000,000 times as large",
    "{{ [1] * 10**9 }}": "1,000,000,000 times as large",
    "{{ 10 ** 10000000 }}": "10,000,000 times as large",
    "{{ '%1000000000d' % 1 }}": "formats text by %",
    "{% for i in range(10**9) %}{% endfor %}": "counts past 1,000,000",
    "{% for i in range(9999) %}{% for j in range(9999) %}{% endfor %}{% endfor %}": "counts past 1,000,000",
    "{% for i in range(999999) %}0123456789012345678901234567890123456789{% endfor %}": "writes more than 16,777,216",
    "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}": "fails on these messages",
    "{{ 'x' | center(10**12) }}": "No filter named 'center'",
}


@pytest.mark.parametrize("source", ENDLESS)
def test_a_template_without_end_is_stopped(source: str) -> None:
    with pytest.raises(BadInput, match=ENDLESS[source]):
        ChatTemplate(source).render(MESSAGES)


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("{% if %}", "is not Jinja that this house can read"),
        ("{{ raise_exception('roles must take turns') }}", "does not take these messages: roles must take turns"),
        ("{{ messages[9].content.x }}", "cannot make a text of these messages"),
        ("{{ 1 / 0 }}", "fails on these messages .ZeroDivisionError"),
        ("{% include '/etc/passwd' %}", "fails on these messages"),
        ("a" * 2**21, "has 2,097,152 characters"),
    ],
    ids=["syntax", "raised", "missing", "zero", "include", "long"],
)
def test_a_template_that_fails_says_how(source: str, sentence: str) -> None:
    with pytest.raises(BadInput, match=sentence) as told:
        ChatTemplate(source).render(MESSAGES)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("messages", [[], [{"role": "user"}], [{"content": "Hi"}], [{"role": 1, "content": ""}]])
def test_messages_that_are_none_are_told(messages: list[Any]) -> None:
    with pytest.raises(BadInput, match=r"give (at least one|.\"role\")"):
        ChatTemplate("x").render(messages)
