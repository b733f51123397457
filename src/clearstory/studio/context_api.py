"""Context API: contextual embeddings of one word in two sentences, for all layers at once.

The embeddings of the example sentences, most of the work, are computed once per model and cached while it is open.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any
from weakref import WeakKeyDictionary

from torch import nn

from clearstory.errors import BadInput, BadSetting, ContextOverflow
from clearstory.lens.hooks.activations import unwrap_model
from clearstory.lens.probes.contextual_embeddings import (
    head_contributions,
    head_difference_table,
    layer_title,
    nearest_tables,
    occurrences_title,
    similarity_curve,
    static_neighbour_grids,
    trajectory_map,
)
from clearstory.lens.probes.word_in_context import (
    EXAMPLE_SENTENCES,
    WordBank,
    align_text,
    build_word_bank,
    find_word,
    word_occurrences,
)
from clearstory.lens.views import Grid
from clearstory.models.base import LanguageModel
from clearstory.models.capabilities import Capability, has_capability
from clearstory.text.tokenizers import Tokenizer

WORD_BANKS: WeakKeyDictionary[nn.Module, WordBank] = WeakKeyDictionary()
"""The word bank of each model. Weak keys: a model evicted from the model cache takes its word bank with it."""


def example_word_bank(model: LanguageModel, tokenizer: Tokenizer) -> WordBank:
    """The contextual embeddings of the example sentences, computed now or taken from the cache."""
    unwrapped = unwrap_model(model)
    if unwrapped not in WORD_BANKS:
        WORD_BANKS[unwrapped] = build_word_bank(model, tokenizer, EXAMPLE_SENTENCES)
    return WORD_BANKS[unwrapped]


def find_example_sentence(model: LanguageModel, tokenizer: Tokenizer, word: str) -> str:
    """The first example sentence that contains a word and fits the model. Raises BadInput if there is none."""
    for sentence in EXAMPLE_SENTENCES:
        with suppress(BadInput, ContextOverflow):
            find_word(sentence, word)
            align_text(model, tokenizer, sentence)
            return sentence
    raise BadInput(f"no example sentence contains ‘{word}’; write a second sentence with it, or choose another word")


def compare_contexts(
    model: LanguageModel,
    tokenizer: Tokenizer,
    text: str,
    *,
    other_text: str | None = None,
    word: str = "",
    other_word: str | None = None,
    occurrence: int = 1,
    other_occurrence: int = 1,
    top: int = 8,
) -> dict[str, Any]:
    """The contextual embeddings of `word` in a text and in `other_text`, compared layer by layer.

    Without `other_text` an example sentence that contains the word is used. `layers` has for each layer the cosine of
    the two vectors, with and without centring, that of two random words, and each vector's mean cosine with the static
    neighbours of the other word. `nearest` and `heads` hold one table per layer.
    """
    if not word:
        raise BadInput("no word is selected; click one in the sentence")
    if top < 1:
        raise BadSetting(f"top is {top}; give at least 1")
    other_text = find_example_sentence(model, tokenizer, word) if other_text is None else other_text
    other_word = word if other_word is None else other_word
    pair = word_occurrences(model, tokenizer, (text, other_text), (word, other_word), (occurrence, other_occurrence))
    bank = example_word_bank(model, tokenizer)
    curve, grids = similarity_curve(pair, bank), static_neighbour_grids(model, tokenizer, pair, bank)
    raw, centred, chance = (line.y for line in curve.lines)
    means = [mean_rows(grid) for grid in grids] or [{}, {}]
    rows = [
        {
            "name": name,
            "title": layer_title(name),
            "cosine": raw[layer],
            "centred": centred[layer],
            "chance": chance[layer],
            "static_similarity": [each.get(layer_title(name)) for each in means],
        }
        for layer, name in enumerate(pair.names)
    ]
    layers = [name for name in pair.names if name.isdecimal()]
    head_tables = None
    if has_capability(unwrap_model(model), Capability.ATTENTION):
        first, second = (
            head_contributions(model, vectors, positions)
            for vectors, positions in zip(pair.texts, pair.positions, strict=True)
        )
        head_tables = {name: head_difference_table(first, second, len(first), int(name)).to_json() for name in layers}
    return {
        "other_text": other_text,
        "title": occurrences_title((text, other_text), (word, other_word)),
        "caption": curve.caption,
        "missing": bank.missing,
        "tokens": [list(each) for each in pair.positions],
        "layers": rows,
        "least_similar": min(layers, key=lambda name: centred[pair.names.index(name)]),
        "similarity": curve.to_json(),
        "trajectories": trajectory_map(pair, bank).to_json(),
        "static_neighbours": [grid.to_json() for grid in grids],
        "nearest": {
            name: [table.to_json() for table in nearest_tables(pair, bank, layer, top)]
            for layer, name in enumerate(pair.names)
        },
        "heads": head_tables,
    }


def mean_rows(grid: Grid) -> dict[str, float]:
    """The mean of each row of a grid, by row label."""
    return {label: mean(row) for label, row in zip(grid.row_labels, grid.values, strict=True)}


def mean(row: Sequence[float]) -> float:
    """The arithmetic mean."""
    return sum(row) / len(row)
