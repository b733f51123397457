"""Chat templates: the same text as transformers, rendered in a sandbox."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from clearstory.errors import BadInput, CannotDo
from clearstory.text import template_process
from clearstory.text.chat_template import ChatTemplate
from clearstory.text.train_tokenizer import train_tokenizer

CHATML = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou help.<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# Blocks on their own lines, trimmed white space, a namespace, a loop with break, JSON, and a generation block.
BLOCKS = """{{- bos_token }}
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
# Also compared: operators, slices, lists, calls of methods and macros, a set block, tests and filters.
OPERATORS = """\
{% macro shown(m, loud=false) %}{{ (m.role ~ ':' ~ number) | upper if loud else m['role'] }}{% endmacro %}
{%- set number = 1 + 2 * 3 ** 2 // 4 % 5 %}
{%- for m in messages[::-1] if m.role != 'system' %}
{{ loop.length }}{{ loop.last }}{{ shown(m) }}{{ shown(m, loud=true) }}
{{ m.content.split('>')[-1].strip().replace('e', 'E') }}
{%- endfor %}
{%- set block %}{% for pair in {'a': [1, 2.5], 'b': none}.items() %}{{ pair }}{% endfor %}{% endset %}{{ block * 2 }}
{{ messages | map(attribute='role') | unique | join(', ') }} {{ ['x', 3] + [messages | length] }} {{ 'a' in 'cat' }}
{{ '{} and {name}'.format('one', name='two') }} {{ ', '.join(messages | map(attribute='role')) }}
{{ (messages | selectattr('role', 'equalto', 'user') | list | first).content | tojson(indent=2) }}
{{ dict(a=(1, 'b')) }} {{ block | replace('a', 'bb') }} {{ 'b' < 'c' <= 'd' }} {{ 'x' | default('y') }}
{{ messages[5] is defined }} {{ none is none }} {{ 7 is divisibleby(7) }} {{ -3 | abs }}"""

MESSAGES = [
    {"role": "user", "content": "What's <b>bold</b> & naïve?"},
    {"role": "assistant", "content": "  東京 🙂  "},
    {"role": "user", "content": "<|im_end|>"},
]


@pytest.mark.parametrize("source", [CHATML, BLOCKS, OPERATORS], ids=["chatml", "blocks", "operators"])
@pytest.mark.parametrize("answer", [True, False])
def test_a_template_renders_the_text_of_transformers(source: str, answer: bool, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="transformers is not installed: clearstory[test]")
    tokenizer = train_tokenizer("bytes", [])
    tokenizer = replace(tokenizer, config={**tokenizer.config, "chat_template": source})
    tokenizer.save(tmp_path)
    theirs = transformers.PreTrainedTokenizerFast.from_pretrained(tmp_path)
    written = ChatTemplate.from_tokenizer(tokenizer).render(MESSAGES, answer=answer)
    assert written == theirs.apply_chat_template(MESSAGES, tokenize=False, add_generation_prompt=answer)
    assert ("assistant" in written.lower()) == answer or source is not BLOCKS


def test_the_template_named_default_is_chosen() -> None:
    tokenizer = train_tokenizer("bytes", [])
    several = [{"name": "tools", "template": "no"}, {"name": "default", "template": "{{ messages[0].content }}"}]
    tokenizer = replace(tokenizer, config={**tokenizer.config, "chat_template": several})
    assert ChatTemplate.from_tokenizer(tokenizer).render([{"role": "user", "content": "Hi"}]) == "Hi"


def test_a_model_without_a_template_is_not_a_chat_model() -> None:
    with pytest.raises(CannotDo, match="has no chat template, so it is not a chat model"):
        ChatTemplate.from_tokenizer(train_tokenizer("bytes", []))


def test_the_date_is_an_argument() -> None:
    template = ChatTemplate("{{ strftime_now('%d %b %Y') }}")
    assert template.render(MESSAGES, today=datetime(2024, 7, 4)) == "04 Jul 2024"


def test_rendering_does_not_modify_the_messages() -> None:
    messages: list[Any] = [{"role": "user", "content": "a", "tools": [1]}]
    ChatTemplate("{% set m = messages[0] %}{{ m.content }}").render(messages)
    assert messages == [{"role": "user", "content": "a", "tools": [1]}]


UNSAFE = [
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ namespace.__init__.__globals__.os.popen('touch ran').read() }}",
    "{{ range.__globals__['json'] }}",
    "{{ strftime_now.__globals__['json'] }}",
    "{{ raise_exception.__globals__['json'] }}",
    "{{ messages.append(1) }}",
    "{{ messages[0].update({'content': 1}) }}",
    "{{ (messages | map(attribute='__class__') | list | first).mro() }}",
    "{{ (''|attr('__class__')).mro() }}",
]


@pytest.mark.parametrize("source", UNSAFE)
def test_a_template_that_accesses_python_internals_is_stopped(source: str, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadInput, match=r"tries to access unsafe attributes .*and was stopped") as error:
        ChatTemplate(source).render(MESSAGES)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


DOUBLED = "{% set n = namespace(x=['ab']) %}{% for i in range(99) %}{% set n.x = n.x + n.x %}{% endfor %}"
TOO_LARGE, TOO_SLOW = "needs too much memory", r"takes more than [\d.]+ s of CPU time"
HOSTILE = {
    "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(60) }}": TOO_SLOW,
    "{% for i in range(9999) %}{% for j in range(9999) %}x{% endfor %}{% endfor %}": TOO_SLOW,
    "{{ 'a' * 10**9 }}": TOO_LARGE,
    "{{ [1] * 10**12 }}": TOO_LARGE,
    "{{ '%1000000000d' % 1 }}": TOO_LARGE,
    "{{ '{:1000000000}'.format(1) }}": TOO_LARGE,
    "{{ 'x' | center(10**12) }}": TOO_LARGE,
    "{{ range(10**8) | list }}": TOO_LARGE,
    "{{ (1).to_bytes(10**12) }}": TOO_LARGE,
    "{{ 'a' * 10**7 }}": "it outputs more than",
    DOUBLED: TOO_LARGE,
    "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}": "RecursionError",
    "{% for i in [1] recursive %}{{ loop([1]) }}{% endfor %}": "RecursionError",
    "{{ " + "(" * 9999 + "1" + ")" * 9999 + " }}": "is not valid Jinja",
}


@pytest.fixture
def little_time(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A process that may take less time than usual, which keeps the tests short."""
    template_process.stop_process()
    monkeypatch.setattr(template_process, "CPU_SECONDS", 0.3)
    yield
    template_process.stop_process()


def test_a_hostile_template_is_stopped_and_the_next_one_renders(little_time: None) -> None:
    for source, sentence in HOSTILE.items():
        # Which limit is reached first depends on the processor.
        with pytest.raises(BadInput, match=f"{sentence}|{TOO_SLOW}") as error:
            ChatTemplate(source).render(MESSAGES)
        assert "\n" not in str(error.value)
    assert ChatTemplate("{{ messages | length }}").render(MESSAGES) == "3"


def test_the_process_is_kept_and_replaced_when_it_has_ended() -> None:
    template = ChatTemplate("{{ messages | length }}")
    template.render(MESSAGES)
    process = template_process._process
    template.render(MESSAGES)
    assert template_process._process is process
    assert process is not None
    process.kill()
    process.wait()
    assert template.render(MESSAGES) == "3"


def test_all_of_jinjas_own_filters_and_methods_work() -> None:
    source = "{{ 'x' | center(5) }}|{{ 'a\nb' | indent(2) }}|{{ '%s-%d' | format('a', 3) }}|{{ 'x'.ljust(3) }}|"
    source += "{{ [1, 2] | sum }}"
    assert ChatTemplate(source).render(MESSAGES) == "  x  |a\n  b|a-3|x  |3"


def test_messages_that_are_no_json_are_refused() -> None:
    with pytest.raises(BadInput, match="must be text, numbers and lists"):
        ChatTemplate("x").render([{"role": "user", "content": object()}])


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("{% if %}", "is not valid Jinja"),
        (
            "{{ raise_exception('roles must take turns') }}",
            r"does not accept these messages \(.*user.*\): roles must take turns",
        ),
        ("{{ messages[9].content.x }}", "fails on these messages: list object has no element 9"),
        ("{{ 1 / 0 }}", "fails on these messages: ZeroDivisionError"),
        ("{% include '/etc/passwd' %}", "fails on these messages"),
        ("a" * 2**21, "has 2,097,152 characters"),
    ],
    ids=["syntax", "raised", "missing", "zero", "include", "long"],
)
def test_an_error_of_a_template_is_reported(source: str, sentence: str) -> None:
    with pytest.raises(BadInput, match=sentence) as error:
        ChatTemplate(source).render(MESSAGES)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("messages", [[], [{"role": "user"}], [{"content": "Hi"}], [{"role": 1, "content": ""}]])
def test_invalid_messages_are_refused(messages: list[Any]) -> None:
    with pytest.raises(BadInput, match=r"give (at least one|.\"role\")"):
        ChatTemplate("x").render(messages)
