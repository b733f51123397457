"""Chat prompts: the text of a user as a message in a chat template, whose special tokens alone are parsed."""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from clearstory.errors import BadInput
from clearstory.text.chat_template import ChatTemplate, find_template, named_templates
from clearstory.text.encoding import EncodedText, TextPiece, encode_pieces, special_pattern, split_special
from clearstory.text.tokenizers import Tokenizer


def has_chat_template(tokenizer: Tokenizer) -> bool:
    """Whether a chat template is saved with a tokenizer."""
    return find_template(tokenizer.config) is not None or bool(named_templates(tokenizer.config))


def ends_turns(tokenizer: Tokenizer, token: str) -> bool:
    """Whether the chat template of a tokenizer writes its end token, by its name or as it is."""
    source = find_template(tokenizer.config) or ""
    return token in source or "eos_token" in source


def encode_chat_prompt(
    tokenizer: Tokenizer, text: str, system: str | None = None, *, today: datetime | None = None
) -> EncodedText:
    """Token ids of a text as the only message of a user, with the header of the assistant's turn after it.

    Special tokens of the template are parsed, and the same strings in `text` and `system` are plain text. The ids of
    ordinary text are those of `apply_chat_template` in transformers. Raises CannotDo for a tokenizer without a chat
    template, BadInput for a template that fails.
    """
    try:
        template = ChatTemplate.from_tokenizer(tokenizer)
    except BadInput as error:
        raise BadInput(f"{error}; --raw (raw=True) reads the text without one") from None
    names = control_names(tokenizer, template)
    marks = Marks.of(secrets.randbelow(10**12), sorted(names))
    today = today or datetime.now()
    try:
        plain = template.render(as_messages(text, system), today=today)
        marked = template.render(as_messages(marks.mark_user(text), system and marks.mark_special(system)), today=today)
    except BadInput as error:
        way_out = "leave the system message out, or read the text without the template: --raw (raw=True)"
        raise BadInput(
            f"{error}; {'--raw (raw=True) reads the text without it' if system is None else way_out}"
        ) from None
    if marks.remove(marked) == plain or marks.holds_special(marked):
        pieces = marks.split(marked, names, len(text) - len(text.lstrip()))
    else:  # a template that reads its messages, and does not print them all alike
        pieces = split_at_text(plain, names, text.strip())
    return encode_pieces(tokenizer, pieces, add_special_tokens=False, names=names)


def as_messages(text: str, system: str | None) -> list[dict[str, Any]]:
    """The messages of a chat that begins with this text."""
    first = [] if system is None else [{"role": "system", "content": system}]
    return [*first, {"role": "user", "content": text}]


def control_names(tokenizer: Tokenizer, template: ChatTemplate) -> frozenset[str]:
    """Strings that a user cannot type: special tokens, and added tokens that the template writes."""
    return tokenizer.special_names | {name for name in tokenizer.added_names if name in template.source}


@dataclass(frozen=True)
class Marks:
    """Strings put into messages before they are rendered, to find the user's text in the result.

    Args:
        start: before the text, after its leading white space, which many templates remove.
        stop: after the text, before its trailing white space.
        held: stands for the string of a special token in a text, followed by its index in `names` and by `end`.
        end: ends what `held` begins.
        names: all strings of special tokens.
    """

    start: str
    stop: str
    held: str
    end: str
    names: tuple[str, ...]

    @classmethod
    def of(cls, secret: int, names: list[str]) -> Marks:
        """Marks of noncharacters and a number that nobody can guess. Digits, since templates may change the case."""
        start, stop, held, end = (f"\ufdd0{secret}{kind}\ufdd1" for kind in "\ufdd2\ufdd3\ufdd4\ufdd5")
        return cls(start, stop, held, end, tuple(names))

    def mark_special(self, text: str) -> str:
        """The text with every string of a special token held back."""
        if not self.names:
            return text
        index = {name: number for number, name in enumerate(self.names)}
        return special_pattern(self.names).sub(lambda match: f"{self.held}{index[match[0]]}{self.end}", text)

    def mark_user(self, text: str) -> str:
        """The same with a mark before and one after the text, inside its outer white space."""
        body = text.strip()
        if not body:
            return text
        at = text.index(body)
        return f"{text[:at]}{self.start}{self.mark_special(body)}{self.stop}{text[at + len(body) :]}"

    def holds_special(self, rendered: str) -> bool:
        """Whether a string of a special token was held back."""
        return self.held in rendered

    @property
    def pattern(self) -> re.Pattern[str]:
        """Pattern of any mark."""
        edges = f"{re.escape(self.start)}|{re.escape(self.stop)}"
        return re.compile(f"{edges}|{re.escape(self.held)}(?P<held>\\d+){re.escape(self.end)}")

    def remove(self, rendered: str) -> str:
        """The text as it is without marks."""
        return self.pattern.sub(lambda match: self.names[int(match["held"])] if match["held"] else "", rendered)

    def split(self, rendered: str, names: frozenset[str], start: int) -> list[TextPiece]:
        """The rendered text in pieces: special tokens of the template, its other text, and the user's text.

        `start`: index of the first character of the user's text that is not white space.
        """
        pieces: list[TextPiece] = []
        inside, at, done = False, start, 0

        def append_until(stop: int) -> None:
            nonlocal at
            text = rendered[done:stop]
            if inside and text:
                pieces.append(TextPiece(text, start=at))
                at += len(text)
            else:
                pieces.extend(split_special(text, names, start=None))

        for match in self.pattern.finditer(rendered):
            append_until(match.start())
            done = match.end()
            if match["held"]:
                name = self.names[int(match["held"])]
                pieces.append(TextPiece(name, start=at if inside else None))
                at += len(name) if inside else 0
            elif match[0] == self.start:
                inside, at = True, start
            else:
                inside = False
        append_until(len(rendered))
        return pieces


def split_at_text(rendered: str, names: frozenset[str], text: str) -> list[TextPiece]:
    """The rendered text in pieces, the last occurrence of `text` as the user's."""
    at = rendered.rfind(text) if text else -1
    if at < 0:
        return split_special(rendered, names, start=None)
    before, after = rendered[:at], rendered[at + len(text) :]
    middle = TextPiece(text, start=0)
    return [*split_special(before, names, start=None), middle, *split_special(after, names, start=None)]
