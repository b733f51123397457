"""Chat: messages as the one text that a model was taught to answer, by the template that came with it.

A template is a small program of Jinja by whoever made the model. It runs in a `sandbox`: Python cannot be reached,
nothing that was handed in can be changed, and what it may write, make and repeat has an end.
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
"""Characters of how a date is to be written."""

Message = Mapping[str, Any]

# Which part of a text is the answer, for training; it writes nothing.
GENERATION = re.compile(r"\{%-?\s*(end)?generation\s*-?%\}")


@dataclass(frozen=True)
class ChatTemplate:
    """How a model was taught to read a conversation.

    >>> template = ChatTemplate("{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}<assistant>")
    >>> template.render([{"role": "user", "content": "Hi"}])
    '<user>Hi<assistant>'
    """

    source: str = field(repr=False)
    tokens: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def from_tokenizer(cls, tokenizer: Tokenizer) -> ChatTemplate:
        """The template saved with a tokenizer; of several, the one called default. Raises CannotDo without one."""
        said = tokenizer.config.get("chat_template")
        if isinstance(said, Sequence) and not isinstance(said, str):
            named = {each.get("name"): each.get("template") for each in said if isinstance(each, Mapping)}
            said = named.get("default")
        if not isinstance(said, str) or not said:
            raise CannotDo("this model has no chat template, so it was not taught to chat; let it write on: generate")
        return cls(said, dict(special_token_variables(tokenizer.config)))

    def render(self, messages: Sequence[Message], *, answer: bool = True, today: datetime | None = None) -> str:
        """The text to go on from; with `answer`, up to where the model's own words begin. Its special tokens are
        spelt out, as `Tokenizer.encode_parsing_special` reads them.

        `today` is for templates that tell the date. Raises BadInput for messages or a template that cannot be used.
        """
        from jinja2 import TemplateError
        from jinja2.exceptions import SecurityError

        check(messages)
        date = datetime.now() if today is None else today
        given = {
            **self.tokens,
            "messages": [dict(message) for message in messages],
            "add_generation_prompt": answer,
            "tools": None,
            "documents": None,
            "strftime_now": lambda form: date.strftime(str(form)[:MAX_DATE_FORMAT]),
            "raise_exception": raise_exception,
        }
        try:
            return str(compile_template(self.source).render(**given))
        except SecurityError as error:
            raise BadInput(
                f"the chat template tries to reach what is no concern of a text ({error}); it was stopped, so do not "
                "trust its model's folder"
            ) from None
        except TemplateError as error:
            raise BadInput(f"the chat template cannot make a text of these messages: {one_line(error)}") from None
        except BadInput:
            raise
        except Exception as error:  # whatever a template's own arithmetic and filters may raise
            reason = f"{type(error).__name__}: {one_line(error)}"
            raise BadInput(f"the chat template fails on these messages ({reason}); use another") from None


@lru_cache(maxsize=16)
def compile_template(source: str) -> Any:
    """A template made ready once. Raises BadInput for one that is no Jinja."""
    from jinja2 import TemplateError

    from clearstory.text.jinja_sandbox import Sandbox

    if len(source) > MAX_TEMPLATE_LENGTH:
        raise BadInput(f"the chat template has {len(source):,} characters, and none that is known has {MAX_TEMPLATE_LENGTH:,}")
    try:
        return Sandbox().from_string(GENERATION.sub("", source))
    except (TemplateError, RecursionError) as error:
        raise BadInput(f"the chat template is not Jinja that this house can read: {one_line(error)}") from None


def raise_exception(message: object) -> NoReturn:
    """What a template calls for messages it does not take."""
    raise BadInput(f"the chat template does not take these messages: {one_line(message)}")


def check(messages: Sequence[Message]) -> None:
    """Messages are a role and a content each."""
    for number, message in enumerate(messages, start=1):
        if not isinstance(message, Mapping) or not isinstance(message.get("role"), str) or "content" not in message:
            raise BadInput(f'message {number} is {str(message)[:60]}; give {{"role": "user", "content": "..."}}')
    if not messages:
        raise BadInput("there are no messages to answer; give at least one")


def special_token_variables(config: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The special tokens that a template may name."""
    found = []
    for name in ("bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token", "mask_token"):
        token = config.get(name)
        token = token.get("content") if isinstance(token, Mapping) else token
        if isinstance(token, str):
            found.append((name, token))
    return found


def one_line(error: object) -> str:
    """What was said, short and on one line."""
    return " ".join(str(error).split())[:200]
