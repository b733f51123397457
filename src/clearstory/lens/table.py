"""Table: every view by its name on the command line, and what a model must have to show it.

Imports nothing until a view is asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from clearstory.errors import CannotDo, UnknownName, nearest
from clearstory.lens.views import View
from clearstory.models.encoder import Encoder
from clearstory.models.prompts import reads_source


@dataclass(frozen=True)
class Entry:
    """Where a view is made: a function (model, tokenizer, text, **settings) -> View.

    `part` is the attribute of a model that the view looks into and `needs` says in words what that is; None for views
    that ask only what every language model can do. A model that has no such part, or None there, cannot show it.
    `forwards`: it asks what comes next, which an encoder, that sees what comes, cannot be asked. `sourced`: it can be
    asked of a model that reads a source and writes a target from it.
    """

    function: str
    part: str | None = None
    needs: str = "any language model"
    forwards: bool = False
    sourced: bool = False


FORWARDS = "a model that reads left to right"

VIEWS: dict[str, Entry] = {
    "next": Entry("clearstory.lens.next:next_token", needs=FORWARDS, forwards=True, sourced=True),
    "surprise": Entry("clearstory.lens.surprise:surprise", needs=FORWARDS, forwards=True, sourced=True),
    "attention": Entry("clearstory.lens.attention:attention", "blocks", "attention, which a Transformer has"),
    "gates": Entry("clearstory.lens.gates:gates", "layers", "gates, which a recurrent model has"),
    "reach": Entry(
        "clearstory.lens.reach:reach", "embedding", "vectors that a gradient reaches, read left to right", True
    ),
    "states": Entry("clearstory.lens.states:states", "chain", "hidden states, which an hmm has"),
    "backoff": Entry("clearstory.lens.backoff:backoff", "grams", "tables of n-grams"),
    "neighbours": Entry(
        "clearstory.lens.neighbours:neighbours", "output_weight", "a vector for each word", sourced=True
    ),
}
"""From a view's name to where it is made and what it needs."""


def view_of(name: str) -> Callable[..., View]:
    """The function behind a view's name. Raises UnknownName with the nearest."""
    if name not in VIEWS:
        raise UnknownName(f"there is no view called '{name}'; {nearest(name, VIEWS)}")
    module, function = VIEWS[name].function.split(":")
    made: Any = getattr(import_module(module), function)
    return made  # type: ignore[no-any-return]  # a name from the table above


def able(model: Any) -> list[str]:
    """The names of the views that a model can show."""
    encoder, sourced = isinstance(model, Encoder), reads_source(model)
    return [
        name
        for name, entry in VIEWS.items()
        if (entry.part is None or getattr(model, entry.part, None) is not None)
        and not (encoder and entry.forwards)
        and not (sourced and not entry.sourced)
    ]


def check_able(name: str, model: Any) -> None:
    """Raises CannotDo, naming the views that it can show, for a model that cannot show this one."""
    if name in (can := able(model)):
        return
    family = getattr(getattr(model, "config", None), "family", type(model).__name__)
    lacks = f"and this model ({family}) has none"
    if isinstance(model, Encoder):
        lacks = "and this model is an encoder, which sees both sides (clearstory fill tells what may stand at a [MASK])"
    if reads_source(model):
        lacks = "and this model reads a source and writes another text, inside which no view looks yet"
    raise CannotDo(
        f"the view '{name}' needs {VIEWS[name].needs}, {lacks}; it can show {', '.join(can[:-1])} and {can[-1]}"
    )
