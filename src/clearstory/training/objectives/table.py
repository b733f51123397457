"""Table of objectives by the name people type, and which one a run uses."""

from __future__ import annotations

from collections.abc import Iterable

from clearstory.errors import BadSetting
from clearstory.training.objectives.base import ObjectiveSpec
from clearstory.training.objectives.causal import CAUSAL
from clearstory.training.objectives.mlm import MASKED, MASKED_NEXT_SENTENCE
from clearstory.training.objectives.seq2seq import SEQ2SEQ
from clearstory.training.objectives.span_corruption import SPAN_CORRUPTION

OBJECTIVES: dict[str, ObjectiveSpec] = {
    "causal": CAUSAL,
    "mlm": MASKED,
    "mlm+nsp": MASKED_NEXT_SENTENCE,
    "seq2seq": SEQ2SEQ,
    "span_corruption": SPAN_CORRUPTION,
}
"""Objectives by name. The first that trains an architecture on a kind of text is the default for it."""


def resolve_objective(name: str, architecture: str, pairs: bool = False) -> str:
    """The name of the objective for a model architecture, on pairs or on running text; "auto" takes the default.

    Raises BadSetting where the objective trains no such model, or no objective trains it on such text.

    >>> resolve_objective("auto", "decoder"), resolve_objective("auto", "encoder-decoder", pairs=True)
    ('causal', 'seq2seq')
    """
    supported = [each for each, spec in OBJECTIVES.items() if architecture in spec.architectures]
    fitting = [each for each in supported if OBJECTIVES[each].pairs == pairs]
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
