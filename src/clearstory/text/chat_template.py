"""Chat templates: messages rendered to the prompt format that a model was trained on.

A template is a Jinja program by the author of the model. It runs in Jinja's sandbox, in a process with little time and
memory (`template_process`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from clearstory.errors import BadInput, CannotDo
from clearstory.text.template_process import render_template
from clearstory.text.tokenizers import Tokenizer

MAX_TEMPLATE_LENGTH = 2**20
"""Maximum number of characters of a template."""

Message = Mapping[str, Any]

GENERATION = re.compile(r"\{%(?P<left>[-+]?)\s*(?P<end>end)?generation\s*(?P<right>[-+]?)%\}")
"""The tag that marks the assistant's part of a turn, for training."""


@dataclass(frozen=True)
class ChatTemplate:
    """The prompt format of a chat model, as a Jinja template.

    >>> template = ChatTemplate("{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}<assistant>")
    >>> template.render([{"role": "user", "content": "Hi"}])
    '<user>Hi<assistant>'
    """

    source: str = field(repr=False)
    tokens: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def from_tokenizer(cls, tokenizer: Tokenizer, *, tools: bool = False) -> ChatTemplate:
        """The template saved with a tokenizer; of several, the one named default, or with `tools` the one named
        tool_use, if there is one. Raises CannotDo if there is none.
        """
        source = named_templates(tokenizer.config).get("tool_use") if tools else None
        source = source or find_template(tokenizer.config)
        if source is None and (named := named_templates(tokenizer.config)):
            names = ", ".join(repr(name[:40]) for name in sorted(named)[:8])
            raise BadInput(f"the model has the chat templates {names}, but none named 'default'")
        if source is None:
            raise CannotDo(
                "this model has no chat template, so it is not a chat model; use generate to continue a text"
            )
        return cls(source, dict(special_token_variables(tokenizer.config)))

    @property
    def marks_generation(self) -> bool:
        """Whether the template marks the assistant's generated text with {% generation %}."""
        return GENERATION.search(self.source) is not None

    def render(
        self,
        messages: Sequence[Message],
        *,
        answer: bool = True,
        today: datetime | None = None,
        marks: tuple[str, str] = ("", ""),
        tools: Sequence[Mapping[str, Any]] = (),
    ) -> str:
        """The prompt of the messages, with special tokens as text, to be encoded by `Tokenizer.encode_parsing_special`.

        `answer`: end with the header of the assistant's turn (`add_generation_prompt`). `today` is for templates that
        print the date. `marks` are put where {% generation %} begins and ends. `tools`: functions that the assistant
        may call, in the form of OpenAI's API. Raises BadInput for invalid messages or a template that fails.
        """
        check(messages)
        if len(self.source) > MAX_TEMPLATE_LENGTH:
            raise BadInput(
                f"the chat template has {len(self.source):,} characters; at most {MAX_TEMPLATE_LENGTH:,} are supported"
            )
        variables = {
            **self.tokens,
            "messages": [dict(message) for message in messages],
            "add_generation_prompt": answer,
            "tools": [dict(tool) for tool in tools] or None,
            "documents": None,
        }

        def mark(tag: re.Match[str]) -> str:
            # Two tags: the first takes the white space before it as the one tag does, the second that after it.
            shown = f"{{{{ '{marks[tag['end'] is not None]}' }}}}"
            return f"{{%{tag['left']} if true %}}{shown}{{% endif {tag['right']}%}}"

        return render_template(GENERATION.sub(mark, self.source), variables, datetime.now() if today is None else today)


def find_template(config: Mapping[str, Any]) -> str | None:
    """The chat template in a tokenizer_config.json (of several, the one named default), or None."""
    source = config.get("chat_template")
    source = source if isinstance(source, str) else named_templates(config).get("default")
    return source or None


def named_templates(config: Mapping[str, Any]) -> dict[str, str]:
    """The chat templates by name in a tokenizer_config.json that holds several; empty for one or none."""
    source = config.get("chat_template")
    pairs = list(source.items()) if isinstance(source, Mapping) else []
    if isinstance(source, list):
        pairs = [(each.get("name"), each.get("template")) for each in source if isinstance(each, Mapping)]
    return {name: each for name, each in pairs if isinstance(name, str) and isinstance(each, str) and each}


def check(messages: Sequence[Message]) -> None:
    """Raises BadInput unless every message has a role and a content."""
    for number, message in enumerate(messages, start=1):
        if not isinstance(message, Mapping) or not isinstance(message.get("role"), str) or "content" not in message:
            raise BadInput(f'message {number} is {str(message)[:60]}; give {{"role": "user", "content": "..."}}')
    if not messages:
        raise BadInput("there are no messages; give at least one")


def special_token_variables(config: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Names and values of the special tokens that a template may use."""
    found = []
    for name in ("bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token", "mask_token"):
        token = config.get(name)
        token = token.get("content") if isinstance(token, Mapping) else token
        if isinstance(token, str):
            found.append((name, token))
    return found
