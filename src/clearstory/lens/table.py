"""Table: every view by its name on the command line. Imports nothing until one is asked for."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

from clearstory.errors import UnknownName, nearest
from clearstory.lens.views import View

VIEWS: dict[str, str] = {
    "next": "clearstory.lens.next:next_token",
    "attention": "clearstory.lens.attention:attention",
    "neighbours": "clearstory.lens.neighbours:neighbours",
}
"""From a view's name to the function that makes it: (model, tokenizer, text, **settings) -> View."""


def view_of(name: str) -> Callable[..., View]:
    """The function behind a view's name. Raises UnknownName with the nearest."""
    if name not in VIEWS:
        raise UnknownName(f"there is no view called '{name}'; {nearest(name, VIEWS)}")
    module, function = VIEWS[name].split(":")
    made: Any = getattr(import_module(module), function)
    return made  # type: ignore[no-any-return]  # a name from the table above
