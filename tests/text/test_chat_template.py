"""Chat templates: the same text as transformers, rendered in a sandbox."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from clearstory.errors import BadInput, CannotDo
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


DOUBLED = "{% set n = namespace(x='ab') %}{% for i in range(99) %}{% set n.x = ! %}{% endfor %}"
LISTS = "{% set n = namespace(x=['ab']) %}{% for i in range(99) %}{% set n.x = ! %}{% endfor %}"
LONG = "{% set n = namespace(x='ab') %}{% for i in range(16) %}{% set n.x = n.x + n.x %}{% endfor %}{% set x = n.x %}"
OVER_LIMIT = {
    "{{ 'a' * 10**12 }}": "creates a value 1,000,000,000,000 times as large",
    "{{ 10**12 * 'a' }}": "creates a value 1,000,000,000,000 times as large",
    "{{ [1] * 10**9 }}": "1,000,000,000 times as large",
    "{{ 10 ** 10000000 }}": "10,000,000 times as large",
    "{{ '%1000000000d' % 1 }}": "formats text by %",
    "{{ '{:1000000000}'.format(1) }}": "formats text with a width",
    "{{ ('{0}' * 9999).format('a' * 9999) }}": "creates a text or list of",
    "{% for i in range(10**9) %}{% endfor %}": "iterates more than 3,000",
    "{% for i in range(99) %}{% for j in range(99) %}{% endfor %}{% endfor %}": "iterates more than 3,000",
    "{% set l = range(99)|list %}{% for i in l %}{% for j in l %}{% endfor %}{% endfor %}": "iterates more than 3,000",
    "{% for i in [[1]] recursive %}{{ loop(i) }}{% endfor %}": "a recursive loop",
    "{% for i in range(2999) %}" + "0123456789" * 999 + "{% endfor %}": "outputs more than 262,144",
    "{% set x %}{% for i in range(2999) %}"
    + "0123456789" * 20
    + "{% endfor %}{% endset %}": "outputs more than 262,144",
    "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}": "fails on these messages",
    "{% macro m(x) %}{{ x }}{{ x }}{% endmacro %}" + "{{ " + "m(" * 30 + "'a'" + ")" * 30 + " }}": "outputs more than",
    "{{ 'x' | center(10**12) }}": "No filter named 'center'",
    "{{ 'x'.ljust(10**12) }}": "calls ljust, whose result can be of any size",
    "{{ (1).to_bytes(10**12) }}": "calls to_bytes",
    "{{ 'x'.expandtabs(10**12) }}": "calls expandtabs",
    **{
        DOUBLED.replace("!", expression): "creates a text or list of [35]|more than 262,144 characters"
        for expression in (
            "n.x + n.x",
            "n.x ~ n.x",
            "[n.x, n.x] | join",
            "''.join([n.x, n.x])",
            "n.x | replace('ab', 'abab')",
        )
    },
    DOUBLED.replace("!", "n.x.replace('ab', 'abab')"): "creates a text or list of",
    DOUBLED.replace("!", "'{}{}'.format(n.x, n.x)"): "creates a text or list of",
    LISTS.replace("!", "n.x + n.x"): "nested lists of more than 262,144 characters",
    LISTS.replace("!", "[n.x, n.x]"): "nested lists of more than 262,144 characters",
    LISTS.replace("!", "(n.x, n.x)"): "nested lists of more than 262,144 characters",
    LISTS.replace("!", "{'a': n.x, 'b': n.x}"): "nested lists of more than 262,144 characters",
    LISTS.replace("!", "dict(a=n.x, b=n.x)"): "nested lists of more than 262,144 characters",
    "{% macro m(n) %}{% set n.x = varargs %}{% endmacro %}"
    + LISTS.replace("{% set n.x = ! %}", "{{ m(n, n.x, n.x) }}"): ("nested lists of more than 262,144 characters"),
    "{% set n = namespace(x=3) %}{% for i in range(99) %}{% set n.x = n.x * n.x %}{% endfor %}": "times as large",
    # No operation of these is large; together they would run for hours, or fill the memory.
    LONG + "{% set y = x ~ '' %}{% for i in range(2900) %}{% if x == y %}{% endif %}{% endfor %}": "more than -1 s",
    LONG + "{% for i in range(999) %}{% set y = x[1:] %}{% endfor %}": r"and 2,[0-9,]+ in all",
    LONG + "{% for i in range(999) %}{% set y = x ~ i %}{% endfor %}": r"and 2,[0-9,]+ in all",
}


@pytest.mark.parametrize("source", OVER_LIMIT)
def test_a_template_that_exceeds_a_limit_is_stopped(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Smaller limits keep the test short.
    smaller = {"TEXT": 2**18, "TOTAL": 2**21, "ITERATIONS": 3000, "SECONDS": -1.0 if "x == y" in source else 60.0}
    for name, limit in smaller.items():
        monkeypatch.setattr(f"clearstory.text.template_limits.MAX_{name}", limit)
    with pytest.raises(BadInput, match=OVER_LIMIT[source]):
        ChatTemplate(source).render(MESSAGES)


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("{% if %}", "is not valid Jinja"),
        ("{{ raise_exception('roles must take turns') }}", "does not accept these messages: roles must take turns"),
        ("{{ messages[9].content.x }}", "fails on these messages: list object has no element 9"),
        ("{{ 1 / 0 }}", "fails on these messages .ZeroDivisionError"),
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
