"""Chat templates in the forms of Hermes and Qwen, Llama 3, Mistral, Qwen3-Coder and GLM, and tokenizers with them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from clearstory.serving.tool_calls import ToolCallParser
from clearstory.serving.tools import ToolUse
from clearstory.text.tokenizers import Tokenizer
from clearstory.text.train_tokenizer import train_tokenizer

TURNS = "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n"
HEADER = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"

HERMES = (
    "{% if tools %}<|im_start|>system\n<tools>{% for t in tools %}{{ t | tojson }}{% endfor %}</tools><|im_end|>\n"
    "{% endif %}{% for m in messages %}{% if m.tool_calls %}<|im_start|>assistant\n{{ m.content }}"
    "{% for c in m.tool_calls %}{% if m.content or not loop.first %}{{ '\\n' }}{% endif %}<tool_call>\n"
    '{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments | tojson }}}\n</tool_call>{% endfor %}'
    "<|im_end|>\n{% elif m.role == 'tool' %}<|im_start|>user\n<tool_response>{{ m.content }}</tool_response>"
    "<|im_end|>\n{% else %}" + TURNS + "{% endif %}{% endfor %}" + HEADER
)
"""Hermes and Qwen: each call between <tool_call> and </tool_call>."""

LLAMA = (
    "{% if tools %}<|im_start|>system\n{% for t in tools %}{{ t | tojson(indent=4) }}\n{% endfor %}<|im_end|>\n"
    "{% endif %}{% for m in messages %}{% if m.tool_calls %}{% if m.tool_calls | length != 1 %}"
    "{{ raise_exception('one call') }}{% endif %}<|im_start|>assistant\n"
    '{"name": "{{ m.tool_calls[0].function.name }}", "parameters": {{ m.tool_calls[0].function.arguments | tojson }}}'
    "<|im_end|>\n{% else %}" + TURNS + "{% endif %}{% endfor %}" + HEADER
)
"""Llama 3: a single call, JSON alone."""

MISTRAL = (
    "{% for m in messages %}{% if m.role == 'user' %}{% if tools %}[AVAILABLE_TOOLS] {{ tools | tojson }}"
    "[/AVAILABLE_TOOLS]{% endif %}[INST] {{ m.content }}[/INST]{% elif m.tool_calls %}[TOOL_CALLS] ["
    "{% for c in m.tool_calls %}{% if c.id | length != 9 %}{{ raise_exception('ids have 9 characters') }}{% endif %}"
    '{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments | tojson }}, "id": "{{ c.id }}"}'
    "{% if not loop.last %}, {% endif %}{% endfor %}]<|im_end|>{% elif m.role == 'tool' %}[TOOL_RESULTS] "
    "{{ m.content }}[/TOOL_RESULTS]{% else %} {{ m.content }}<|im_end|>{% endif %}{% endfor %}"
)
"""Mistral: a list of calls with ids, after a special token."""

AS_TEXT = HERMES.replace("c.function.arguments | tojson", "c.function.arguments + ''")
"""Arguments are joined to other text, so they must be text."""

VALUE = "{{ value if value is string else value | tojson }}"

TAGGED = (
    "{% if tools %}<|im_start|>system\n{% for t in tools %}<function>{{ t.function.name }}</function>{% endfor %}"
    "<|im_end|>\n{% endif %}{% for m in messages %}{% if m.tool_calls %}<|im_start|>assistant\n{{ m.content }}"
    "{% for c in m.tool_calls %}{% if m.content or not loop.first %}{{ '\\n' }}{% endif %}<tool_call>\n"
    "<function={{ c.function.name }}>\n{% for name, value in c.function.arguments | items %}<parameter={{ name }}>\n"
    + VALUE
    + "\n</parameter>\n{% endfor %}</function>\n</tool_call>{% endfor %}<|im_end|>\n{% elif m.role == 'tool' %}"
    "<|im_start|>user\n{{ m.content }}<|im_end|>\n{% else %}" + TURNS + "{% endif %}{% endfor %}" + HEADER
)
"""Qwen3-Coder: an argument in each tag."""

PAIRED = (
    "{% if tools %}<|im_start|>system\n{{ tools | tojson }}<|im_end|>\n{% endif %}{% for m in messages %}"
    "<|im_start|>{{ m.role }}\n{{ m.content }}{% for c in m.tool_calls or [] %}<tool_call>{{ c.function.name }}"
    "{% for name, value in c.function.arguments | items %}<k>{{ name }}</k><v>"
    + VALUE
    + "</v>{% endfor %}</tool_call>{% endfor %}<|im_end|>\n{% endfor %}"
    + HEADER
)
"""GLM 4.5: names and values of arguments in pairs, without lines."""

TAGGED_TEMPLATES = {"tagged": TAGGED, "paired": PAIRED}

TEMPLATES = {"hermes": HERMES, "llama": LLAMA, "mistral": MISTRAL}


def tool_tokenizer(template: str, special: tuple[str, ...] = ("[TOOL_CALLS]",)) -> Tokenizer:
    """A byte tokenizer with a template, the tokens of ChatML, and <tool_call> as an added token."""
    plain = train_tokenizer("bytes", [])
    parts = json.loads(plain.contents)
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    for name in ("<|im_start|>", "<|im_end|>", "<tool_call>", "</tool_call>", *special):
        if name not in [token["content"] for token in parts["added_tokens"]]:
            token = {"id": plain.vocab + len(parts["added_tokens"]) - 1, "content": name, **flags}
            parts["added_tokens"].append({**token, "special": name in ("<|im_start|>", "<|im_end|>", *special)})
    return Tokenizer(json.dumps(parts), {"eos_token": "<|im_end|>", "chat_template": template})


def check_allowed(use: ToolUse, tokenizer: Tokenizer, ids: Sequence[int]) -> None:
    """The grammar of calls allows these ids, and the end of the turn after them."""
    end = tokenizer.ids["<|im_end|>"]
    mask = use.grammar().mask(tokenizer, end)
    for at, id in enumerate(ids):
        assert mask.allowed()[id], tokenizer.decode(ids[:at])
        mask.advance(id)
    assert mask.finished or mask.allowed()[end]


def check_calls(
    use: ToolUse, parser: ToolCallParser, pieces: Sequence[Any], made: Sequence[tuple[str, dict[str, Any]]]
) -> None:
    """An answer is these calls and no text; the pieces of each, joined, are the call."""
    assert [(call.name, json.loads(call.arguments)) for call in parser.calls] == list(made)
    assert parser.text == ""
    use.check(parser.calls)
    for index, call in enumerate(parser.calls):
        own = [piece for piece in pieces if piece.index == index]
        assert (own[0].id, own[0].name) == (call.id, call.name)
        assert "".join(piece.arguments for piece in own) == call.arguments
