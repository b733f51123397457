"""Table: every objective by the name people type, and the kinds of model it can teach."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from clearstory.errors import BadSetting
from clearstory.text.tokenizers import Tokenizer
from clearstory.training.masking import Masking
from clearstory.training.objectives.base import Objective
from clearstory.training.objectives.causal import Causal
from clearstory.training.objectives.masked import Masked
from clearstory.training.settings import TrainingSettings


@dataclass(frozen=True)
class Entry:
    """How an objective is made for a tokenizer, and which kinds of model (`TransformerConfig.kind`) it teaches.

    Models of other families read left to right, as decoders do. `sentences`: it reads text sentence by sentence.
    `masks`: what is to be told stands in the text itself, hidden.
    """

    make: Callable[[Tokenizer, TrainingSettings], Objective]
    kinds: tuple[str, ...]
    sentences: bool = False
    masks: bool = False


OBJECTIVES: dict[str, Entry] = {
    "causal": Entry(lambda tokenizer, settings: Causal(), ("decoder",)),
    "masked": Entry(
        lambda tokenizer, settings: Masked(Masking.of(tokenizer, settings.whole_words)), ("encoder",), masks=True
    ),
    "masked+next-sentence": Entry(
        lambda tokenizer, settings: Masked(Masking.of(tokenizer, settings.whole_words), pairs=True),
        ("encoder",),
        sentences=True,
        masks=True,
    ),
}
"""Objectives by the name people type. The first that teaches a kind of model is what it is usually taught by."""


def choose(name: str, kind: str) -> str:
    """The objective that is meant for a model of this kind; `auto` is the usual one.

    Raises BadSetting for one that does not teach such a model.

    >>> choose("auto", "decoder")
    'causal'
    """
    able = [each for each, entry in OBJECTIVES.items() if kind in entry.kinds]
    if name == "auto" and able:
        return able[0]
    if name not in able:
        article = "an" if kind[0] in "aeiou" else "a"
        known = " or ".join(able) or "none yet"
        raise BadSetting(f"objective is {name}, which does not teach {article} {kind}; what teaches one: {known}")
    return name
