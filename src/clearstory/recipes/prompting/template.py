"""Prompt templates: texts with {fields} of the data, of which the model completes {label}."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from string import Formatter

from clearstory.durable.paths import find_named_file
from clearstory.errors import BadInput, UnknownName, nearest

LABEL = "label"
"""The field that the model completes."""


@dataclass(frozen=True)
class PromptTemplate:
    """The text of an example, from its fields.

    Args:
        parts: pieces of text, each followed by the name of a field; "" at the end.

    >>> template = PromptTemplate.parse("Review: {text}\\nSentiment: {label}")
    >>> template.before_label({"text": "A joy."}), template.whole({"text": "A joy."}, "good")
    ('Review: A joy.\\nSentiment: ', 'Review: A joy.\\nSentiment: good')
    """

    parts: tuple[tuple[str, str], ...]

    @classmethod
    def parse(cls, text: str) -> PromptTemplate:
        """The template of a text; {{ and }} are braces. Raises BadInput for an invalid template."""
        parts = []
        try:
            for literal, name, form, conversion in Formatter().parse(text):
                if form or conversion:
                    raise ValueError(f"'{{{name}' has a format")
                parts.append((literal, (name or "").strip()))
                if name is not None and not name.strip():
                    raise ValueError("{} has no name")
        except ValueError as error:
            raise BadInput(
                f"the template is not a valid text with {{fields}} ({error}); write {{{{ and }}}} for braces"
            ) from None
        count = sum(name == LABEL for _, name in parts)
        if count != 1:
            raise BadInput(f"the template has {{label}} {count} times; put it once, where the answer belongs")
        return cls(tuple(parts))

    @classmethod
    def open(cls, source: str) -> PromptTemplate:
        """The template of a file, or of the text itself where no such file exists."""
        file = find_named_file(source) if "{" not in source else None
        if file is None and "{" not in source:
            raise BadInput(f"{source[:60]} is neither a file nor a text with {{label}}; give one of them")
        return cls.parse(source if file is None else Path(file).read_text(encoding="utf-8").removesuffix("\n"))

    @property
    def fields(self) -> tuple[str, ...]:
        """Names of the fields without the label."""
        return tuple(name for _, name in self.parts if name and name != LABEL)

    def check(self, known: Iterable[str]) -> None:
        """Raises UnknownName, with the nearest name, for a field that the data does not have."""
        known = [name for name in known if name != LABEL]
        missing = next((name for name in self.fields if name not in known), None)
        if missing is not None:
            raise UnknownName(
                f"the template has {{{missing[:60]}}}, which is not in the data; {nearest(missing, known)}"
            )

    def before_label(self, values: Mapping[str, str]) -> str:
        """The text up to the label."""
        return self._fill(self.parts[: self._label_index() + 1], values, "")

    def whole(self, values: Mapping[str, str], label: str) -> str:
        """The whole text."""
        return self._fill(self.parts, values, label)

    def _label_index(self) -> int:
        return next(index for index, (_, name) in enumerate(self.parts) if name == LABEL)

    def _fill(self, parts: Iterable[tuple[str, str]], values: Mapping[str, str], label: str) -> str:
        return "".join(literal + (label if name == LABEL else values[name] if name else "") for literal, name in parts)
