"""Contextual embeddings: one word in two texts, how its vectors diverge layer by layer, and which heads cause it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from torch import Tensor
from torch.nn import functional as F

from clearstory.errors import BadInput, BadSetting
from clearstory.lens.hooks.activations import record_activations, transformer_stacks
from clearstory.lens.hooks.residual_stream import require_linear_outputs
from clearstory.lens.probes.embeddings import nearest_tokens, project_to_plane, unit_word_vectors
from clearstory.lens.probes.word_in_context import (
    EXAMPLE_SENTENCES,
    LayerVectors,
    WordBank,
    WordOccurrences,
    block_index,
    build_word_bank,
    cosines_by_layer,
    standardize,
    word_occurrences,
)
from clearstory.lens.views import Cell, Curve, Grid, Line, Map, Panel, Point, Report, Table
from clearstory.lens.views.formatting import format_probability, text_ending
from clearstory.models.base import LanguageModel, inference_mode
from clearstory.models.capabilities import Capability, require
from clearstory.models.transformer.block import Block
from clearstory.text.tokenizers import Tokenizer

TEXTS = ("in the first text", "in the second text")

STATIC_NEIGHBOURS = 10
"""Nearest tokens of the static embedding that are followed through the layers."""

ATTENDED = 3
"""Tokens that are named for each head."""


def contextual_embeddings(
    model: LanguageModel,
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
    """One word in a text and in `other_text`: the cosine of its two vectors after each layer; their trajectories; their
    cosines with the word's static neighbours; their nearest words in context; the heads with different contributions.

    Nearest words are taken after `layer` (the last by default) from the file `sentences_file`, one sentence per line,
    or from built-in sentences. `other_word` is another word for the other text; `occurrence` and `other_occurrence`
    select the nth occurrence. Raises BadInput if a word is not in its text.
    """
    if other_text is None or word is None:
        raise BadInput(
            "one word is compared in two texts; give the second text and the word: "
            '--other-text "a fashion model" --word model'
        )
    if top < 1:
        raise BadSetting(f"top is {top}; show at least 1 neighbour")
    words = word, word if other_word is None else other_word
    pair = word_occurrences(model, tokenizer, (text, other_text), words, (occurrence, other_occurrence))
    index = block_index(pair.names, layer)
    bank = build_word_bank(model, tokenizer, read_sentences(sentences_file))
    panels: list[Panel] = [similarity_curve(pair, bank), trajectory_map(pair, bank)]
    panels += static_neighbour_grids(model, tokenizer, pair, bank)
    panels += nearest_tables(pair, bank, index, top)
    if Capability.ATTENTION in model.capabilities:
        first, second = (
            head_contributions(model, each, positions)
            for each, positions in zip(pair.texts, pair.positions, strict=True)
        )
        panels.append(head_difference_table(first, second, top))
    return Report(
        title=occurrences_title((text, other_text), words),
        panels=tuple(panels),
        caption=f"{bank.missing:,} of the example sentences exceed the context and were skipped."
        if bank.missing
        else None,
    )


def occurrences_title(texts: tuple[str, str], words: tuple[str, str]) -> str:
    """Both words with their texts.

    >>> occurrences_title(("a role model", "a car"), ("model", "car"))
    '‘model’ in “a role model” and ‘car’ in “a car”'
    """
    second = "" if words[0].lower() == words[1].lower() else f"‘{words[1]}’ in "
    return f"‘{words[0]}’ in “{text_ending(texts[0])}” and {second}“{text_ending(texts[1])}”"


def read_sentences(sentences: Path | Sequence[str] | None) -> Sequence[str]:
    """The given sentences, the lines of a file, or the built-in sentences."""
    if sentences is None:
        return EXAMPLE_SENTENCES
    if not isinstance(sentences, Path | str):
        return sentences
    try:
        lines = Path(sentences).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(
            f"the sentences file {sentences} cannot be read as text ({error}); give a file with one sentence per line"
        ) from None
    found = [line.strip() for line in lines if line.strip()]
    if not found:
        raise BadInput(f"the sentences file {sentences} is empty; give a file with one sentence per line")
    return found


def similarity_curve(pair: WordOccurrences, bank: WordBank) -> Curve:
    """The cosine of the two vectors after each layer, compared with that of two random words."""
    names, vectors = pair.names, pair.vectors
    steps = tuple(map(float, range(len(names))))
    raw = cosines_by_layer(*vectors)
    standardized = cosines_by_layer(
        *[[bank.standardize(layer, each) for layer, each in enumerate(word)] for word in vectors]
    )
    lines = (
        Line("the two vectors", steps, tuple(raw)),
        Line("the two, standardized", steps, tuple(standardized)),
        Line("two random words", steps, tuple(bank.mean_cosines()), dashed=True),
    )
    least = min(range(len(raw)), key=standardized.__getitem__)
    return Curve(
        title="Cosine of the two vectors after each layer",
        lines=lines,
        x_label=f"0 is {layer_title(names[0])}, {len(names) - 1} is {layer_title(names[-1])}",
        y_label="cosine",
        caption=f"The cosine is {raw[0]:.2f} at the start and lowest after {layer_title(names[least])}: "
        f"{raw[least]:.2f}, or {standardized[least]:.2f} standardized (each dimension's mean and standard deviation "
        "over the example sentences).",
    )


def layer_title(layer: str) -> str:
    """A layer's name for people."""
    titles = {
        "embedding": "the token embedding",
        "embedding_output": "the embedding output",
        "norm": "the final norm",
    }
    return titles.get(layer, f"layer {layer}")


def trajectory_map(pair: WordOccurrences, bank: WordBank) -> Map:
    """Both words' vectors after each layer, standardized and of length 1, on their two principal components."""
    names, vectors = pair.names, pair.vectors
    # Layers of a recurrent model may differ in width: only those with the last layer's width are shown.
    kept = [layer for layer, each in enumerate(vectors[0]) if len(each) == len(vectors[0][-1])]
    unit = torch.stack(
        [F.normalize(bank.standardize(layer, word[layer]), dim=-1) for word in vectors for layer in kept]
    )
    coordinates, share = project_to_plane(unit)
    count = len(kept)
    points = tuple(
        Point(names[kept[index % count]], float(x), float(y), index // count)
        for index, (x, y) in enumerate(coordinates.tolist())
    )
    links = tuple((first + at, first + at + 1) for first in (0, count) for at in range(count - 1))
    return Map(
        title="Trajectories through the layers",
        points=points,
        links=links,
        groups=TEXTS,
        x_label="1st principal component",
        y_label="2nd",
        caption="Each point is the word's vector after a layer, standardized and of length 1; the two components hold "
        f"{share:.0%} of the variance.",
    )


def static_neighbour_grids(
    model: LanguageModel, tokenizer: Tokenizer, pair: WordOccurrences, bank: WordBank
) -> list[Grid]:
    """Cosines of each vector, layer by layer, with the nearest tokens of the other word's static embedding.

    For the same word in both texts, the neighbours are the same.
    """
    if Capability.OUTPUT_EMBEDDINGS not in model.capabilities:
        return []
    static = unit_word_vectors(model, tokenizer, centre=False, matrix="output").cpu()
    static = F.normalize(standardize(static, static), dim=-1)
    layers = [layer for layer, each in enumerate(pair.vectors[0]) if len(each) == static.shape[1]]
    if not layers:
        return []
    nearest = [
        [each.id for each in nearest_tokens(static, static[list(ids)].mean(0), STATIC_NEIGHBOURS, without=ids)]
        for ids in pair.ids
    ]
    same = nearest[0] == nearest[1]
    grids = [
        torch.stack([F.cosine_similarity(bank.standardize(layer, word[layer]), static[ids], -1) for layer in layers])
        for word, ids in zip(pair.vectors, reversed(nearest), strict=True)
    ]
    labels = [tuple(tokenizer.display_token(id) for id in ids) for ids in reversed(nearest)]
    difference = grids[0][-1] - grids[1][-1]
    caption = None
    if same and float(difference.max()) > 0 > float(difference.min()):
        first, second = labels[0][int(difference.argmax())], labels[0][int(difference.argmin())]
        caption = f"At the end the word in the first text is closer to {first}, in the second text to {second}."
    return [
        Grid(
            title=f"Cosine with the static neighbours of the {'' if same else 'other '}word, {TEXTS[index]}",
            row_labels=tuple(layer_title(pair.names[layer]) for layer in layers),
            column_labels=labels[index],
            values=tuple(tuple(row) for row in grid.double().tolist()),
            unit="cosine",
            dots=True,
            caption=caption if index else None,
        )
        for index, grid in enumerate(grids)
    ]


def nearest_tables(pair: WordOccurrences, bank: WordBank, layer: int, top: int) -> list[Table]:
    """The words of the bank nearest to each occurrence after a layer, each in its sentence."""
    values = F.normalize(bank.standardize(layer, bank.values[layer]), dim=-1)
    tables = []
    for word, which in zip(pair.vectors, TEXTS, strict=True):
        found = nearest_tokens(values, bank.standardize(layer, word[layer]), top)
        tables.append(
            Table(
                title=f"Nearest words in context after {layer_title(pair.names[layer])}, {which}",
                columns=("word", "cosine", "sentence"),
                rows=tuple((bank.words[each.id][0], each.cosine, bank.words[each.id][1]) for each in found),
                bar="cosine",
            )
        )
    return tables


@dataclass(frozen=True)
class HeadContribution:
    """Output of one head at a word, (W,), the mean over its tokens, and the tokens with the largest attention weights
    of the word in this head.
    """

    layer: int
    head: int
    added: Tensor
    attended: tuple[tuple[str, float], ...]


def head_contributions(model: LanguageModel, vectors: LayerVectors, positions: Sequence[int]) -> list[HeadContribution]:
    """The output of every head at some tokens of a text. Raises CannotDo for a model without attention."""
    require(model, Capability.ATTENTION)
    passage = vectors.aligned.passage
    prefix, stack = transformer_stacks(model)[0]
    require_linear_outputs(stack)
    labels = passage.source_labels or passage.labels
    names = [f"{prefix}blocks.*.attention.{each}" for each in ("head_outputs", "pattern")]
    found: list[HeadContribution] = []
    with inference_mode(model), record_activations(model, *names) as recorded:
        passage.forward(model)
        for layer, block in enumerate(cast(Sequence[Block], stack.blocks)):
            name = f"{prefix}blocks.{layer}.attention"
            outputs, pattern = recorded[f"{name}.head_outputs"][0], recorded[f"{name}.pattern"][0]
            weight = block.self_attention.output.weight
            weights = weight.unflatten(1, (outputs.shape[0], -1))  # type: ignore[no-untyped-call]  # torch's; (W, H, D)
            added = torch.einsum("htd,whd->htw", outputs[:, list(positions)].to(weights.dtype), weights).mean(1)
            attended = pattern[:, list(positions)].mean(1).topk(min(ATTENDED, len(labels)))
            rows = zip(attended.indices.tolist(), attended.values.tolist(), strict=True)
            found += [
                HeadContribution(
                    layer,
                    head,
                    added[head].float().cpu().clone(),
                    tuple((labels[index], weight) for index, weight in zip(indices, values, strict=True)),
                )
                for head, (indices, values) in enumerate(rows)
            ]
    return found


def head_difference_table(
    first: Sequence[HeadContribution], second: Sequence[HeadContribution], top: int, layer: int | None = None
) -> Table:
    """The heads whose outputs at the word differ most between the two texts; with `layer`, of one layer, with all
    tokens that they attend to.
    """
    a, b = (torch.stack([each.added for each in side]) for side in (first, second))
    sizes = torch.stack([each.norm(dim=-1) for each in (a, b, a - b)], -1).tolist()
    indices = (index for index, each in enumerate(first) if layer in (None, each.layer))
    order = sorted(indices, key=lambda index: -sizes[index][2])[:top]

    def attended_text(each: HeadContribution) -> str:
        if layer is None:
            return each.attended[0][0]
        return ", ".join(f"{label} {format_probability(weight)}" for label, weight in each.attended)

    rows: list[tuple[Cell, ...]] = [
        (
            first[index].layer,
            first[index].head,
            *sizes[index],
            attended_text(first[index]),
            attended_text(second[index]),
        )
        for index in order
    ]
    total = sum(size[2] for size in sizes)
    return Table(
        title="Heads with the most different outputs at the word (norms)",
        columns=("layer", "head", "first text", "second text", "difference", "attends to, first", "attends to, second"),
        rows=tuple(rows),
        bar="difference",
        caption=f"These {len(rows):,} of {len(first):,} heads hold "
        f"{sum(sizes[index][2] for index in order) / total:.0%} of the sum of all heads' differences."
        if total
        else "All heads have the same output in both texts.",
    )
