"""Context, as a walk: one word in two texts, its two vectors parting layer by layer, and what moved them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from clearstory.errors import BadInput, BadSetting
from clearstory.lens.bank import SENTENCES
from clearstory.lens.context import Bank, Layers, bank_of, cosines, found_in, layer_at, layers_of, moved_by, standard
from clearstory.lens.next import shown
from clearstory.lens.placed import Point
from clearstory.lens.trace import inner
from clearstory.lens.vectors import nearest_to, on_two_axes, word_vectors
from clearstory.lens.views import Cell, Curve, Grid, Line, Map, Step, Table, Walk
from clearstory.models.recurrent.model import Recurrent
from clearstory.text.tokenizers import Tokenizer

TEXTS = ("in the first text", "in the second text")

STATIC = 10
"""Neighbours of the word by itself that are followed through the layers."""


def context(
    model: Any,
    tokenizer: Tokenizer,
    text: str,
    *,
    other: str | None = None,
    target: str | None = None,
    layer: int | None = None,
    top: int = 8,
    bank: Path | Sequence[str] | None = None,
) -> Walk:
    """The word `target` where it first stands in a text and in an `other`: how alike its two vectors are after each
    layer; their ways from where they begin; what each comes near of the word's static neighbours; its neighbours in
    context, from the sentences of `bank` (a file of one a line; a few built in); and the heads that moved it.

    `layer` is where neighbours are looked for, the last when not given. Raises BadInput where the word is not in both.
    """
    if other is None or target is None:
        raise BadInput(
            'one word is looked at in two texts; give the second and the word: --other "a fashion model" --target model'
        )
    if top < 1:
        raise BadSetting(f"top is {top}; show at least 1 neighbour")
    both = [layers_of(model, tokenizer, each) for each in (text, other)]
    spots = [each.word(*found_in(each.text, target)) for each in both]
    words = [each.vectors(spot) for each, spot in zip(both, spots, strict=True)]
    at = layer_at(both[0].names, layer)
    known = bank_of(model, tokenizer, sentences(bank))
    steps: list[Step] = [parting(both, words, known), ways(both, words, known)]
    steps += static(model, tokenizer, both, words, known, spots[0])
    steps += [
        near(word, known, at, f"after {named(both[0].names[at])}, {which}", top)
        for word, which in zip(words, TEXTS, strict=True)
    ]
    if not isinstance(inner(model), Recurrent):
        steps.append(heads(model, both, spots, top))
    return Walk(
        title=f"‘{target}’ in “{shown(text)}” and “{shown(other)}”",
        steps=tuple(steps),
        look=f"{known.missing:,} of the bank's sentences do not fit the model and were left out."
        if known.missing
        else None,
    )


def sentences(bank: Path | Sequence[str] | None) -> Sequence[str]:
    """The bank's sentences: those given, a file's lines, or those built in."""
    if bank is None:
        return SENTENCES
    if not isinstance(bank, Path | str):
        return bank
    try:
        lines = Path(bank).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(
            f"the bank {bank} cannot be read as text ({error}); give a file of sentences, one a line"
        ) from None
    found = [line.strip() for line in lines if line.strip()]
    if not found:
        raise BadInput(f"the bank {bank} holds no sentence; give a file of them, one a line")
    return found


def parting(both: Sequence[Layers], words: Sequence[tuple[Tensor, ...]], known: Bank) -> Curve:
    """How alike the two are after each layer, beside two words drawn by chance."""
    places = tuple(map(float, range(len(both[0].names))))
    raw = cosines(*words)
    clear = cosines(*[[known.cleared(at, each) for at, each in enumerate(word)] for word in words])
    lines = (
        Line("the two vectors", places, tuple(raw)),
        Line("the two, cleared", places, tuple(clear)),
        Line("two words by chance", places, tuple(known.alike()), dashed=True),
    )
    least = min(range(len(raw)), key=clear.__getitem__)
    names = both[0].names
    return Curve(
        title="Cosine of the two, layer by layer",
        lines=lines,
        x_label=f"0 is {names[0]}, {len(names) - 1} is {named(names[-1])}",
        y_label="cosine",
        look=f"They begin at {raw[0]:.2f} and are least alike after {named(names[least])}: {raw[least]:.2f} as is, "
        f"{clear[least]:.2f} cleared of what all words share (each dimension's mean and spread in the bank).",
    )


def named(layer: str) -> str:
    """A layer in words."""
    words = {"words": "the words alone", "foot": "the foot of the stack", "norm": "the last norm"}
    return words.get(layer, f"layer {layer}")


def ways(both: Sequence[Layers], words: Sequence[tuple[Tensor, ...]], known: Bank) -> Map:
    """Both ways through the layers on one plane; vectors cleared of what all words share there, of length 1."""
    names = both[0].names
    # Layers of a recurrent model may differ in width: a plane needs those of the last one's.
    wide = [at for at, each in enumerate(words[0]) if len(each) == len(words[0][-1])]
    vectors = torch.stack([F.normalize(known.cleared(at, word[at]), dim=-1) for word in words for at in wide])
    places, kept = on_two_axes(vectors)
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
        look="Each point is the word's vector after a layer, cleared, at length 1; the plane keeps "
        f"{kept:.0%} of their variance.",
    )


def static(
    model: Any,
    tokenizer: Tokenizer,
    both: Sequence[Layers],
    words: Sequence[tuple[Tensor, ...]],
    known: Bank,
    spot: Sequence[int],
) -> list[Step]:
    """How near each comes, layer by layer, to the neighbours that the word has by itself."""
    if getattr(inner(model), "output_weight", None) is None:
        return []
    vectors = word_vectors(model, tokenizer, centre=False).cpu()
    vectors = F.normalize(standard(vectors, vectors), dim=-1)
    row = both[0].read.source or both[0].read.ids
    own = tuple(row[at] for at in spot)
    found = [each.id for each in nearest_to(vectors, vectors[list(own)].mean(0), STATIC, without=own)]
    labels = tuple(tokenizer.piece(id) for id in found)
    rows = [at for at, each in enumerate(words[0]) if len(each) == vectors.shape[1]]
    if not rows:
        return []
    grids = [
        torch.stack([F.cosine_similarity(known.cleared(at, word[at]), vectors[found], -1) for at in rows])
        for word in words
    ]
    apart = grids[0][-1] - grids[1][-1]
    first, second = labels[int(apart.argmax())], labels[int(apart.argmin())]
    said = f"Of these the first text's word ends nearer than the other's to {first}, the second's to {second}."
    return [
        Grid(
            title=f"Cosine with what the word is near by itself, {TEXTS[number]}",
            row_labels=tuple(named(each.names[at]) for at in rows),
            column_labels=labels,
            values=tuple(tuple(row) for row in grid.double().tolist()),
            unit="cosine",
            dots=True,
            look=said if number and float(apart.max()) > 0 > float(apart.min()) else None,
        )
        for number, (each, grid) in enumerate(zip(both, grids, strict=True))
    ]


def near(word: Sequence[Tensor], known: Bank, at: int, where: str, top: int) -> Table:
    """The words of the bank nearest to one occurrence after a layer, each in its sentence."""
    values = F.normalize(known.cleared(at, known.values[at]), dim=-1)
    found = nearest_to(values, known.cleared(at, word[at]), top)
    return Table(
        title=f"Nearest in the bank {where}",
        columns=("word", "cosine", "where it stands"),
        rows=tuple((known.words[each.id][0], each.cosine, known.words[each.id][1]) for each in found),
        bar="cosine",
    )


def heads(model: Any, both: Sequence[Layers], spots: Sequence[Sequence[int]], top: int) -> Table:
    """The heads whose ΔE at the word differ most between the two texts."""
    one, other = (moved_by(model, each, spot) for each, spot in zip(both, spots, strict=True))
    sizes = [
        (float(a.added.norm()), float(b.added.norm()), float((a.added - b.added).norm()))
        for a, b in zip(one, other, strict=True)
    ]
    order = sorted(range(len(one)), key=lambda at: -sizes[at][2])[:top]
    rows: list[tuple[Cell, ...]] = [
        (one[at].layer, one[at].head, *sizes[at], one[at].reads, other[at].reads) for at in order
    ]
    whole = sum(size[2] for size in sizes)
    return Table(
        title="Heads that moved the two apart: the length of what each added to the word",
        columns=("layer", "head", "in the first", "in the second", "apart", "reads most, first", "reads most, second"),
        rows=tuple(rows),
        bar="apart",
        look=f"These {len(rows):,} of {len(one):,} heads have {sum(sizes[at][2] for at in order) / whole:.0%} of the "
        "lengths by which heads differ, added up."
        if whole
        else "No head adds anything to one that it does not to the other.",
    )
