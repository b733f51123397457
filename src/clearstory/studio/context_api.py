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
from clearstory.lens.probes.example_sentences import EXAMPLE_SENTENCES
from clearstory.lens.probes.word_in_context import WordBank, build_word_bank, find_word, word_occurrences, align_text
from clearstory.lens.probes.contextual_embeddings import head_difference_table, layer_title, nearest_tables, similarity_curve, static_neighbour_grids, occurrences_title, trajectory_map
from clearstory.lens.probes.x_moved import head_contributions
from clearstory.lens.hooks.activations import unwrap_model
from clearstory.lens.views import Grid
from clearstory.models.recurrent.model import Recurrent

WORD_BANKS: WeakKeyDictionary[nn.Module, WordBank] = WeakKeyDictionary()
"""By model, weakly: one that is put away takes its bank along."""


def example_word_bank(model: Any, tokenizer: Any) -> WordBank:
    """The bank as a model reads it, read now or kept from before."""
    network = unwrap_model(model)
    if network not in WORD_BANKS:
        WORD_BANKS[network] = build_word_bank(model, tokenizer, EXAMPLE_SENTENCES)
    return WORD_BANKS[network]


def find_example_sentence(model: Any, tokenizer: Any, word: str) -> str:
    """A sentence of the bank in which a word stands and that fits the model. Raises BadInput where there is none."""
    for sentence in EXAMPLE_SENTENCES:
        with suppress(BadInput, ContextOverflow):
            find_word(sentence, word)
            align_text(model, tokenizer, sentence)
            return sentence
    raise BadInput(f"no sentence is kept in which ‘{word}’ stands; write a second one with it, or mark another word")


def contextual_embeddings(
    model: Any,
    tokenizer: Any,
    text: str,
    *,
    other_text: str | None = None,
    word: str = "",
    other_word: str | None = None,
    occurrence: int = 1,
    other_occurrence: int = 1,
    top: int = 8,
) -> dict[str, Any]:
    """The word `word` in a text and in an `other_text` (one of the bank's that has it when not given), layer by layer.

    `rows` has for each layer the cosine of the two, as they are and cleared, that of two words by chance, and the mean
    cosine of each with what the other's word is near by itself. `near` and `heads` have each layer's tables.
    """
    if not target:
        raise BadInput("no word is marked; click one in the sentence")
    if top < 1:
        raise BadSetting(f"top is {top}; show at least 1 neighbour")
    other_text = find_example_sentence(model, tokenizer, word) if other_text is None else other_text
    second = word if other_word is None else other_word
    two = word_occurrences(model, tokenizer, (text, other_text), (word, second), (occurrence, other_occurrence))
    known = example_word_bank(model, tokenizer)
    curve, grids = similarity_curve(two, known), static_neighbour_grids(model, tokenizer, two, known)
    raw, clear, chance = (line.y for line in curve.lines)
    means = [mean_rows(grid) for grid in grids] or [{}, {}]
    rows = [
        {
            "name": name,
            "words": layer_title(name),
            "cosine": raw[at],
            "cleared": clear[at],
            "chance": chance[at],
            "near": [each.get(layer_title(name)) for each in means],
        }
        for at, name in enumerate(two.names)
    ]
    layers = [name for name in two.names if name.isdecimal()]
    moved = None
    if not isinstance(unwrap_model(model), Recurrent):
        one, others = (head_contributions(model, each, spot) for each, spot in zip(two.both, two.spots, strict=True))
        moved = {name: head_difference_table(one, others, len(one), int(name)).to_json() for name in layers}
    return {
        "other_text": other_text,
        "title": occurrences_title((text, other_text), (word, second)),
        "caption": curve.caption,
        "missing": known.missing,
        "tokens": [list(spot) for spot in two.spots],
        "rows": rows,
        "least": min(layers, key=lambda name: clear[two.names.index(name)]),
        "parting": curve.to_json(),
        "ways": trajectory_map(two, known).to_json(),
        "static": [grid.to_json() for grid in grids],
        "near": {name: [each.to_json() for each in nearest_tables(two, known, at, top)] for at, name in enumerate(two.names)},
        "heads": moved,
    }


def mean_rows(grid: Grid) -> dict[str, float]:
    """The mean of each row, by its label."""
    return {label: mean(row) for label, row in zip(grid.row_labels, grid.values, strict=True)}


def mean(row: Sequence[float]) -> float:
    """The mean of some numbers."""
    return sum(row) / len(row)
