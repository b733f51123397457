"""Plain: what all kinds of views share, themselves as plain data."""

from __future__ import annotations

import math
from dataclasses import fields, is_dataclass
from typing import Any, ClassVar, cast

Cell = str | int | float | None


class View:
    """A kind of view: lists, dictionaries, text and numbers, and itself on a notebook's page."""

    kind: ClassVar[str]

    def to_json(self) -> dict[str, Any]:
        """Plain data with its `kind`; numbers that are none become null."""
        return {"kind": self.kind, **named(self)}

    def _repr_html_(self) -> str:
        """What a notebook shows in place of the name: the page of `inspect --out`, in a frame of its own."""
        from clearstory.lens.rendering.render import to_frame

        return to_frame(cast(Any, self))


def named(data: Any) -> dict[str, Any]:
    """The fields of a dataclass by their names, as plain data."""
    return {field.name: plain(getattr(data, field.name)) for field in fields(data)}


def plain(value: Any) -> Any:
    """Plain data: lists, dictionaries, text and finite numbers.

    >>> plain((1, float("nan"), ("a",)))
    [1, None, ['a']]
    """
    if isinstance(value, View):
        return value.to_json()
    if is_dataclass(value):
        return named(value)
    if isinstance(value, tuple | list):
        if set(map(type, value)) == {float} and all(map(math.isfinite, value)):
            return list(value)  # the rows of a grid: 512 tokens have a quarter of a million numbers
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
