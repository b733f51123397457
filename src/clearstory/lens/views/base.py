"""The base class of all views: plain data with a title and a caption, convertible to JSON."""

from __future__ import annotations

import math
from dataclasses import fields, is_dataclass
from importlib import import_module
from typing import Any, ClassVar

Cell = str | int | float | None
"""The value of a table cell."""

NOTEBOOK_RENDERER = "clearstory.lens.rendering.render:notebook_frame"
"""The function that renders a view for a notebook, loaded when a notebook asks for it: views import no rendering."""


class View:
    """Result of a probe: one kind of display (`kind`) as plain data, independent of rendering.

    Subclasses are frozen dataclasses. `title` names the quantity; `caption` is one sentence computed from the numbers,
    or None.
    """

    kind: ClassVar[str]
    title: str
    caption: str | None

    def to_json(self) -> dict[str, Any]:
        """The fields as lists, dictionaries, text and numbers, with the `kind`; nan and infinity become None."""
        return {"kind": self.kind, **fields_to_plain(self)}

    def _repr_html_(self) -> str:
        """HTML for a notebook: the page that `inspect --out` writes, in an iframe."""
        module, function = NOTEBOOK_RENDERER.split(":")
        html: str = getattr(import_module(module), function)(self)
        return html


def fields_to_plain(data: Any) -> dict[str, Any]:
    """The fields of a dataclass by name, as plain data."""
    return {field.name: to_plain(getattr(data, field.name)) for field in fields(data)}


def to_plain(value: Any) -> Any:
    """Plain data: lists, dictionaries, text and finite numbers.

    >>> to_plain((1, float("nan"), ("a",)))
    [1, None, ['a']]
    """
    if isinstance(value, View):
        return value.to_json()
    if is_dataclass(value):
        return fields_to_plain(value)
    if isinstance(value, tuple | list):
        if set(map(type, value)) == {float} and all(map(math.isfinite, value)):
            return list(value)  # the rows of a grid: 512 tokens have a quarter of a million numbers
        return [to_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
