"""Table of objectives by name, and selection of the objective of a run. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module
from typing import TYPE_CHECKING, Literal, get_args

from clearstory.errors import BadSetting

if TYPE_CHECKING:
    from clearstory.training.objectives.base import ObjectiveSpec

ObjectiveName = Literal[
    "auto",
    "causal",
    "mlm",
    "mlm+nsp",
    "seq2seq",
    "span_corruption",
]
"""Names of the training objectives; auto selects by architecture and text.

A new objective is a line here and `SPECS` in a module of its name up to "+". The first objective that trains an
architecture on a kind of text is the default for it.
"""

OBJECTIVES: tuple[str, ...] = tuple(name for name in get_args(ObjectiveName) if name != "auto")
"""Names of the training objectives, without auto."""


def objective_spec(name: str) -> ObjectiveSpec:
    """The specification of an objective, from `SPECS` of its module, which is imported on demand.

    >>> objective_spec("mlm+nsp").architectures
    ('encoder',)
    """
    module = import_module(f"clearstory.training.objectives.{name.partition('+')[0]}")
    specs: dict[str, ObjectiveSpec] = module.SPECS
    return specs[name]


def resolve_objective(name: str, architecture: str, pairs: bool = False) -> str:
    """The name of the objective for a model architecture, on pairs or on running text; "auto" takes the default.

    Raises BadSetting if the objective trains no such model, or no objective trains it on such text.

    >>> resolve_objective("auto", "decoder"), resolve_objective("auto", "encoder-decoder", pairs=True)
    ('causal', 'seq2seq')
    """
    supported = [each for each in OBJECTIVES if architecture in objective_spec(each).architectures]
    fitting = [each for each in supported if objective_spec(each).pairs == pairs]
    model = f"{'an' if architecture[0] in 'aeiou' else 'a'} {architecture}"
    if name != "auto" and name not in supported:
        raise BadSetting(f"objective is {name}, which does not train {model}; objectives that do: {join(supported)}")
    if not fitting or name not in ("auto", *fitting):
        text = "pairs of a source and a target" if pairs else "running text"
        subject = f"objective is {name}" if fitting else f"the model is {model}"
        remedy = f"choose {join(fitting)}" if fitting else "choose an encoder-decoder, such as clear-translate"
        raise BadSetting(f"{subject}, which is not trained on {text}, as this text is; {remedy}")
    return fitting[0] if name == "auto" else name


def join(names: Iterable[str]) -> str:
    """Names as alternatives: a or b."""
    return " or ".join(names)
