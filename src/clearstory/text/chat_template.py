"""Chat templates: messages rendered to the prompt format that a model was trained on.

A template is a Jinja program by the author of the model. It runs in a sandbox (`jinja_sandbox`): it cannot reach Python
or change its inputs, and its output, memory, iterations and time are limited.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import Any, NoReturn

from clearstory.errors import BadInput, CannotDo
from clearstory.text.tokenizers import Tokenizer

MAX_TEMPLATE_LENGTH = 2**20
"""Characters of a template."""

MAX_DATE_FORMAT = 200
"""Characters of a date format."""

Message = Mapping[str, Any]

# Marks the assistant's tokens for training; it prints nothing.
GENERATION = re.compile(r"\{%-?\s*(end)?generation\s*-?%\}")


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
    def from_tokenizer(cls, tokenizer: Tokenizer) -> ChatTemplate:
        """The template saved with a tokenizer; of several, the one named default. Raises CannotDo if there is none."""
        source = tokenizer.config.get("chat_template")
        if isinstance(source, Sequence) and not isinstance(source, str):
            named = {each.get("name"): each.get("template") for each in source if isinstance(each, Mapping)}
            source = named.get("default")
        if not isinstance(source, str) or not source:
            raise CannotDo(
                "this model has no chat template, so it is not a chat model; use generate to continue a text"
            )
        return cls(source, dict(special_token_variables(tokenizer.config)))

    def render(self, messages: Sequence[Message], *, answer: bool = True, today: datetime | None = None) -> str:
        """The prompt of the messages, with special tokens as text, to be encoded by `Tokenizer.encode_parsing_special`.

        `answer`: end with the header of the assistant's turn (`add_generation_prompt`). `today` is for templates that
        print the date. Raises BadInput for invalid messages or a template that fails.
        """
        from jinja2 import TemplateError
        from jinja2.exceptions import SecurityError

        check(messages)
        date = datetime.now() if today is None else today
        variables = {
            **self.tokens,
            "messages": [dict(message) for message in messages],
            "add_generation_prompt": answer,
            "tools": None,
            "documents": None,
            "strftime_now": lambda form: date.strftime(str(form)[:MAX_DATE_FORMAT]),
            "raise_exception": raise_exception,
        }
        try:
            return str(compile_template(self.source).render(**variables))
        except SecurityError as error:
            raise BadInput(
                f"the chat template tries to access unsafe attributes ({error}) and was stopped; do not "
                "trust the folder of this model"
            ) from None
        except TemplateError as error:
            raise BadInput(f"the chat template fails on these messages: {one_line(error)}") from None
        except BadInput:
            raise
        except Exception as error:  # whatever a template's arithmetic and filters may raise
            reason = f"{type(error).__name__}: {one_line(error)}"
            raise BadInput(f"the chat template fails on these messages ({reason}); use another") from None


@lru_cache(maxsize=16)
def compile_template(source: str) -> Any:
    """The compiled template, cached. Raises BadInput if it is not valid Jinja."""
    from jinja2 import TemplateError

    from clearstory.text.jinja_sandbox import Sandbox

    if len(source) > MAX_TEMPLATE_LENGTH:
        raise BadInput(
            f"the chat template has {len(source):,} characters; at most {MAX_TEMPLATE_LENGTH:,} are supported"
        )
    try:
        return Sandbox().from_string(GENERATION.sub("", source))
    except (TemplateError, RecursionError) as error:
        raise BadInput(f"the chat template is not valid Jinja: {one_line(error)}") from None


def raise_exception(message: object) -> NoReturn:
    """Raises BadInput; templates call it for messages that they do not support."""
    raise BadInput(f"the chat template does not accept these messages: {one_line(message)}")


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


def one_line(error: object) -> str:
    """An error message shortened to one line of at most 200 characters."""
    return " ".join(str(error).split())[:200]
