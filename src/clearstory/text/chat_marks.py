"""Marks: strings put into messages before a chat template renders them, to find their parts in the result."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

from clearstory.text.encoding import TextPiece, special_pattern, split_special


@dataclass(frozen=True)
class Marks:
    """Strings put into messages and into the template before it renders them, to find the parts of the result.

    Args:
        start: before the text, after its leading white space, which many templates remove.
        stop: after the text, before its trailing white space.
        held: placeholder of the string of a special token in a text, followed by its index in `names` and by `end`.
        end: end of a placeholder.
        generation: start and end of the assistant's generated text in the template.
        names: all strings of special tokens.
    """

    start: str
    stop: str
    held: str
    end: str
    generation: tuple[str, str]
    names: tuple[str, ...]

    @classmethod
    def of(cls, secret: int, names: list[str]) -> Marks:
        """Marks of noncharacters and a random number. Digits, since templates can change the case."""
        kinds = "\ufdd2\ufdd3\ufdd4\ufdd5\ufdd6\ufdd7"
        start, stop, held, end, first, last = (f"\ufdd0{secret}{kind}\ufdd1" for kind in kinds)
        return cls(start, stop, held, end, (first, last), tuple(names))

    def mark_special(self, text: str, names: Collection[str]) -> str:
        """The text with every one of these strings of special tokens held back."""
        if not any(name in text for name in names):
            return text
        index = {name: number for number, name in enumerate(self.names)}
        return special_pattern(names).sub(lambda match: f"{self.held}{index[match[0]]}{self.end}", text)

    def mark_user(self, text: str, names: Collection[str]) -> str:
        """The same with a mark before and one after the text, inside its outer white space."""
        body = text.strip()
        if not body:
            return text
        at = text.index(body)
        return f"{text[:at]}{self.start}{self.mark_special(body, names)}{self.stop}{text[at + len(body) :]}"

    @property
    def pattern(self) -> re.Pattern[str]:
        """Pattern of any mark."""
        edges = "|".join(map(re.escape, (self.start, self.stop, *self.generation)))
        return re.compile(f"{edges}|{re.escape(self.held)}(?P<held>\\d+){re.escape(self.end)}")

    def remove(self, rendered: str) -> str:
        """The text as it is without marks."""
        return self.pattern.sub(lambda match: self.names[int(match["held"])] if match["held"] else "", rendered)

    def split(
        self, rendered: str, names: frozenset[str], start: int
    ) -> tuple[tuple[TextPiece, ...], tuple[tuple[int, int], ...]]:
        """The rendered text in pieces: special tokens of the template, its other text, and the user's text; and the
        characters that the template marks as generated.

        `start`: index of the first character of the user's text that is not white space.
        """
        pieces: list[TextPiece] = []
        generated: list[tuple[int, int]] = []
        inside, at, done, written, generated_from = False, start, 0, 0, 0

        def append_until(stop: int) -> None:
            nonlocal at, written
            text = rendered[done:stop]
            written += len(text)
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
                written += len(name)
            elif match[0] == self.generation[0]:
                generated_from = written
            elif match[0] == self.generation[1]:
                generated.append((generated_from, written))
            else:
                inside = match[0] == self.start
                at = start if inside else at
        append_until(len(rendered))
        return tuple(pieces), tuple(generated)
