"""Contexts: one word in two texts, with every layer's numbers at once, so that a page can go from layer to layer.

The bank of sentences, most of the work, is read once for each model and kept as long as that is open.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any
from weakref import WeakKeyDictionary

from torch import nn

from clearstory.errors import BadInput, BadSetting, ContextOverflow
from clearstory.lens.probes.x_bank import SENTENCES
from clearstory.lens.probes.word_in_context import Bank, bank_of, found_in, occurrences, placement
from clearstory.lens.probes.contextual_embeddings import heads, named, near, parting, static, titled, ways
from clearstory.lens.probes.x_moved import moved_by
from clearstory.lens.hooks.trace import inner
from clearstory.lens.views.kinds import Grid
from clearstory.models.recurrent.model import Recurrent

BANKS: WeakKeyDictionary[nn.Module, Bank] = WeakKeyDictionary()
"""By model, weakly: one that is put away takes its bank along."""


def bank(model: Any, tokenizer: Any) -> Bank:
    """The bank as a model reads it, read now or kept from before."""
    network = inner(model)
    if network not in BANKS:
        BANKS[network] = bank_of(model, tokenizer, SENTENCES)
    return BANKS[network]


def example(model: Any, tokenizer: Any, word: str) -> str:
    """A sentence of the bank in which a word stands and that fits the model. Raises BadInput where there is none."""
    for sentence in SENTENCES:
        with suppress(BadInput, ContextOverflow):
            found_in(sentence, word)
            placement(model, tokenizer, sentence)
            return sentence
    raise BadInput(f"no sentence is kept in which ‘{word}’ stands; write a second one with it, or mark another word")


def words_in_context(
    model: Any,
    tokenizer: Any,
    text: str,
    *,
    other: str | None = None,
    target: str = "",
    other_target: str | None = None,
    nth: int = 1,
    other_nth: int = 1,
    top: int = 8,
) -> dict[str, Any]:
    """The word `target` in a text and in an `other` (one of the bank's that has it when not given), layer by layer.

    `rows` has for each layer the cosine of the two, as they are and cleared, that of two words by chance, and the mean
    cosine of each with what the other's word is near by itself. `near` and `heads` have each layer's tables.
    """
    if not target:
        raise BadInput("no word is marked; click one in the sentence")
    if top < 1:
        raise BadSetting(f"top is {top}; show at least 1 neighbour")
    other = example(model, tokenizer, target) if other is None else other
    second = target if other_target is None else other_target
    two = occurrences(model, tokenizer, (text, other), (target, second), (nth, other_nth))
    known = bank(model, tokenizer)
    curve, grids = parting(two, known), static(model, tokenizer, two, known)
    raw, clear, chance = (line.y for line in curve.lines)
    means = [mean_rows(grid) for grid in grids] or [{}, {}]
    rows = [
        {
            "name": name,
            "words": named(name),
            "cosine": raw[at],
            "cleared": clear[at],
            "chance": chance[at],
            "near": [each.get(named(name)) for each in means],
        }
        for at, name in enumerate(two.names)
    ]
    layers = [name for name in two.names if name.isdecimal()]
    moved = None
    if not isinstance(inner(model), Recurrent):
        one, others = (moved_by(model, each, spot) for each, spot in zip(two.both, two.spots, strict=True))
        moved = {name: heads(one, others, len(one), int(name)).to_json() for name in layers}
    return {
        "other": other,
        "title": titled((text, other), (target, second)),
        "caption": curve.caption,
        "missing": known.missing,
        "tokens": [list(spot) for spot in two.spots],
        "rows": rows,
        "least": min(layers, key=lambda name: clear[two.names.index(name)]),
        "parting": curve.to_json(),
        "ways": ways(two, known).to_json(),
        "static": [grid.to_json() for grid in grids],
        "near": {name: [each.to_json() for each in near(two, known, at, top)] for at, name in enumerate(two.names)},
        "heads": moved,
    }


def mean_rows(grid: Grid) -> dict[str, float]:
    """The mean of each row, by its label."""
    return {label: mean(row) for label, row in zip(grid.row_labels, grid.values, strict=True)}


def mean(row: Sequence[float]) -> float:
    """The mean of some numbers."""
    return sum(row) / len(row)
