"""Context, as a walk: one word in two texts, its two vectors parting layer by layer, and what moved them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F

from clearstory.errors import BadInput, BadSetting
from clearstory.lens.probes.example_sentences import EXAMPLE_SENTENCES
from clearstory.lens.probes.word_in_context import (
    WordBank,
    WordOccurrences,
    build_word_bank,
    cosines_by_layer,
    layer_at,
    word_occurrences,
    standardize,
)
from clearstory.lens.probes.x_moved import HeadContribution, head_contributions
from clearstory.lens.probes.next_token import text_ending
from clearstory.lens.views.map import Point
from clearstory.lens.probes.surprisal import format_probability
from clearstory.lens.hooks.activations import unwrap_model
from clearstory.lens.probes.x_vectors import nearest_tokens, project_to_plane, unit_word_vectors
from clearstory.lens.views import Cell, Curve, Grid, Line, Map, Panel, Table, Report
from clearstory.models.recurrent.model import Recurrent
from clearstory.text.tokenizers import Tokenizer

TEXTS = ("in the first text", "in the second text")

STATIC = 10
"""Neighbours of the word by itself that are followed through the layers."""


def contextual_embeddings(
    model: Any,
    tokenizer: Tokenizer,
    text: str,
    *,
    other_text: str | None = None,
    word: str | None = None,
    other_word: str | None = None,
    occurrence: int = 1,
    other_occurrence: int = 1,
    layer: int | None = None,
    top: int = 8,
    sentences_file: Path | Sequence[str] | None = None,
) -> Report:
    """The word `word` where it first stands in a text and in an `other_text`: how alike its two vectors are after each
    layer; their ways from where they begin; what each comes near of the word's static neighbours; its neighbours in
    context, from the sentences of `sentences_file` (a file of one a line; a few built in); and the heads that moved it.

    `layer` is where neighbours are looked for, the last when not given. `other_word` is another word for the other
    text; `occurrence` and `other_occurrence` are where the words stand when that is not the first time. Raises BadInput where a word
    is not in its text.
    """
    if other_text is None or word is None:
        raise BadInput(
            'one word is looked at in two texts; give the second and the word: --other-text "a fashion model" --word model'
        )
    if top < 1:
        raise BadSetting(f"top is {top}; show at least 1 neighbour")
    named_words = word, word if other_word is None else other_word
    two = word_occurrences(model, tokenizer, (text, other_text), named_words, (occurrence, other_occurrence))
    at = layer_at(two.names, layer)
    known = build_word_bank(model, tokenizer, read_sentences(sentences_file))
    steps: list[Panel] = [similarity_curve(two, known), trajectory_map(two, known)]
    steps += static_neighbour_grids(model, tokenizer, two, known)
    steps += nearest_tables(two, known, at, top)
    if not isinstance(unwrap_model(model), Recurrent):
        moved = [head_contributions(model, each, spot) for each, spot in zip(two.both, two.spots, strict=True)]
        steps.append(head_difference_table(moved[0], moved[1], top))
    return Report(
        title=occurrences_title((text, other_text), named_words),
        panels=tuple(steps),
        caption=f"{known.missing:,} of the bank's sentences do not fit the model and were left out."
        if known.missing
        else None,
    )


def occurrences_title(texts: tuple[str, str], words: tuple[str, str]) -> str:
    """Which words are looked at, and where.

    >>> titled(("a role model", "a car"), ("model", "car"))
    '‘model’ in “a role model” and ‘car’ in “a car”'
    """
    second = "" if words[0].lower() == words[1].lower() else f"‘{words[1]}’ in "
    return f"‘{words[0]}’ in “{text_ending(texts[0])}” and {second}“{text_ending(texts[1])}”"


def read_sentences(sentences_file: Path | Sequence[str] | None) -> Sequence[str]:
    """The bank's sentences: those given, a file's lines, or those built in."""
    if sentences_file is None:
        return EXAMPLE_SENTENCES
    if not isinstance(sentences_file, Path | str):
        return sentences_file
    try:
        lines = Path(sentences_file).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(
            f"the bank {sentences_file} cannot be read as text ({error}); give a file of sentences, one a line"
        ) from None
    found = [line.strip() for line in lines if line.strip()]
    if not found:
        raise BadInput(f"the bank {sentences_file} holds no sentence; give a file of them, one a line")
    return found


def similarity_curve(two: WordOccurrences, known: WordBank) -> Curve:
    """How alike the two are after each layer, beside two words drawn by chance."""
    names, words = two.names, two.words
    places = tuple(map(float, range(len(names))))
    raw = cosines_by_layer(*words)
    clear = cosines_by_layer(*[[known.cleared(at, each) for at, each in enumerate(word)] for word in words])
    lines = (
        Line("the two vectors", places, tuple(raw)),
        Line("the two, cleared", places, tuple(clear)),
        Line("two words by chance", places, tuple(known.alike()), dashed=True),
    )
    least = min(range(len(raw)), key=clear.__getitem__)
    return Curve(
        title="Cosine of the two, layer by layer",
        lines=lines,
        x_label=f"0 is {names[0]}, {len(names) - 1} is {layer_title(names[-1])}",
        y_label="cosine",
        caption=f"They begin at {raw[0]:.2f} and are least alike after {layer_title(names[least])}: {raw[least]:.2f} as is, "
        f"{clear[least]:.2f} cleared of what all words share (each dimension's mean and spread in the bank).",
    )


def layer_title(layer: str) -> str:
    """A layer in words."""
    words = {"words": "the words alone", "embedding_output": "the foot of the stack", "norm": "the last norm"}
    return words.get(layer, f"layer {layer}")


def trajectory_map(two: WordOccurrences, known: WordBank) -> Map:
    """Both ways through the layers on one plane; vectors cleared of what all words share there, of length 1."""
    names, words = two.names, two.words
    # Layers of a recurrent model may differ in width: a plane needs those of the last one's.
    wide = [at for at, each in enumerate(words[0]) if len(each) == len(words[0][-1])]
    vectors = torch.stack([F.normalize(known.cleared(at, word[at]), dim=-1) for word in words for at in wide])
    places, kept = project_to_plane(vectors)
    count = len(wide)
    points = tuple(
        Point(names[wide[number % count]], float(x), float(y), number // count)
        for number, (x, y) in enumerate(places.tolist())
    )
    links = tuple((first + at, first + at + 1) for first in (0, count) for at in range(count - 1))
    return Map(
        title="Their ways through the layers",
        points=points,
        links=links,
        groups=TEXTS,
        x_label="1st principal component",
        y_label="2nd",
        caption="Each point is the word's vector after a layer, cleared, at length 1; the plane keeps "
        f"{kept:.0%} of their variance.",
    )


def static_neighbour_grids(model: Any, tokenizer: Tokenizer, two: WordOccurrences, known: WordBank) -> list[Grid]:
    """How near each comes, layer by layer, to the neighbours that the other's word has by itself. Of a word in two
    texts they are the same for both.
    """
    if getattr(unwrap_model(model), "output_weight", None) is None:
        return []
    vectors = unit_word_vectors(model, tokenizer, centre=False).cpu()
    vectors = F.normalize(standardize(vectors, vectors), dim=-1)
    rows = [at for at, each in enumerate(two.words[0]) if len(each) == vectors.shape[1]]
    if not rows:
        return []
    near = [
        [each.id for each in nearest_tokens(vectors, vectors[list(own)].mean(0), STATIC, without=own)] for own in two.ids
    ]
    same = near[0] == near[1]
    grids = [
        torch.stack([F.cosine_similarity(known.cleared(at, word[at]), vectors[found], -1) for at in rows])
        for word, found in zip(two.words, reversed(near), strict=True)
    ]
    labels = [tuple(tokenizer.display_token(id) for id in found) for found in reversed(near)]
    apart = grids[0][-1] - grids[1][-1]
    said = None
    if same and float(apart.max()) > 0 > float(apart.min()):
        first, second = labels[0][int(apart.argmax())], labels[0][int(apart.argmin())]
        said = f"Of these the first text's word ends nearer than the other's to {first}, the second's to {second}."
    return [
        Grid(
            title=f"Cosine with what the {'' if same else 'other '}word is near by itself, {TEXTS[number]}",
            row_labels=tuple(layer_title(two.names[at]) for at in rows),
            column_labels=labels[number],
            values=tuple(tuple(row) for row in grid.double().tolist()),
            unit="cosine",
            dots=True,
            caption=said if number else None,
        )
        for number, grid in enumerate(grids)
    ]


def nearest_tables(two: WordOccurrences, known: WordBank, at: int, top: int) -> list[Table]:
    """The words of the bank nearest to each occurrence after a layer, each in its sentence."""
    values = F.normalize(known.cleared(at, known.values[at]), dim=-1)
    tables = []
    for word, which in zip(two.words, TEXTS, strict=True):
        found = nearest_tokens(values, known.cleared(at, word[at]), top)
        tables.append(
            Table(
                title=f"Nearest in the bank after {layer_title(two.names[at])}, {which}",
                columns=("word", "cosine", "where it stands"),
                rows=tuple((known.words[each.id][0], each.cosine, known.words[each.id][1]) for each in found),
                bar="cosine",
            )
        )
    return tables


def head_difference_table(one: Sequence[HeadContribution], other: Sequence[HeadContribution], top: int, layer: int | None = None) -> Table:
    """The heads whose ΔE at the word differ most between the two texts; of one layer, with all that they look at."""
    a, b = (torch.stack([each.added for each in side]) for side in (one, other))
    sizes = torch.stack([each.norm(dim=-1) for each in (a, b, a - b)], -1).tolist()
    order = sorted((at for at, each in enumerate(one) if layer in (None, each.layer)), key=lambda at: -sizes[at][2])
    order = order[:top]
    told = (lambda moved: moved.reads) if layer is None else looked
    rows: list[tuple[Cell, ...]] = [
        (one[at].layer, one[at].head, *sizes[at], told(one[at]), told(other[at])) for at in order
    ]
    whole = sum(size[2] for size in sizes)
    return Table(
        title="Heads that moved the two apart: the length of what each added to the word",
        columns=("layer", "head", "in the first", "in the second", "apart", "reads most, first", "reads most, second"),
        rows=tuple(rows),
        bar="apart",
        caption=f"These {len(rows):,} of {len(one):,} heads have {sum(sizes[at][2] for at in order) / whole:.0%} of the "
        "lengths by which heads differ, added up."
        if whole
        else "No head adds anything to one that it does not to the other.",
    )


def looked(moved: HeadContribution) -> str:
    """The tokens that a head looks at most, with their weights."""
    return ", ".join(f"{label} {format_probability(weight)}" for label, weight in moved.looks)
