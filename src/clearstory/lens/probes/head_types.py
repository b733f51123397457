"""Heads: what each head of a model does with a text, measured.

Shares of a head's weight, on average over the tokens that have a choice (Clark et al. 2019, section 3; induction as
the prefix matching of Olsson et al. 2022, which Elhage et al. 2021 found):

    previous    on the token before
    next        on the token after, where the mask lets it
    first       on the first token: [CLS], or whatever a text begins with
    last        on the last: [SEP] of an encoder, the end of a source
    same        on the token itself, and on others that are the same
    induction   on the token that came after this one when it last came, in tokens drawn by chance and then repeated
    diffuse     no share but an evenness: the entropy of its weights by that of equal ones

A head is called by the greatest that reaches its threshold, by "induction" before all others, since that is measured on
a text of its own, and "unclear" by none.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from clearstory.lens.probes.attention import attention_patterns, pooled_patterns
from clearstory.lens.hooks.passage import Passage, encode_passage
from clearstory.lens.hooks.attention_sites import AttentionPart, AttentionSite, attention_sites
from clearstory.lens.views import Cell, TileGrid, Table, Tile, Report
from clearstory.models.prompts import Truncate, first_token

THRESHOLDS = dict.fromkeys(("induction", "previous", "next", "first", "last", "same"), 0.4) | {"diffuse": 0.85}
"""From here on a head is called so; at 0.4 no third kind can be as strong."""

REPEATED = 50
"""Tokens drawn for induction, or as many as twice fit the context."""
SHOWN = 16
"""Cells of a thumbnail, each way."""


@dataclass(frozen=True)
class HeadMeasures:
    """Every head's measures, layer by layer: each of `scores` is (layers, heads), and `names` as long and as wide."""

    scores: Mapping[str, Float[Tensor, "L H"]]
    names: tuple[tuple[str, ...], ...]


Look = Callable[[Callable[[Tensor], Tensor]], list[Tensor]]
"""Goes through the layers' weights (1, H, T, S) of one reading, and gives what is kept of each."""


def measure_heads(
    model: Any, tokenizer: Any, read: Passage, part: AttentionPart | None = None, seed: int = 0, look: Look | None = None
) -> HeadMeasures:
    """What every head does with a passage, which is read unless `look` has done so. Induction is measured where a stack
    reads left to right.
    """
    of = attention_sites(model, part)
    scores = shares(look or partial(attention_patterns, model, read, of), read, of)
    if of[0].attention.causal:
        again, back = repeated_random_tokens(model, tokenizer, read, seed)
        marks = {"induction": offset(len(again.ids), back, 2 * back)}
        scores["induction"] = marked(partial(attention_patterns, model, again, of), of, marks)["induction"]
    return HeadMeasures(scores, tuple(map(tuple, named(scores))))


def shares(look: Look, read: Passage, of: list[AttentionSite]) -> dict[str, Float[Tensor, "L H"]]:
    """All measures that a text alone gives."""
    across = of[0].part == "cross"
    ids = torch.tensor(read.source if of[0].part == "encoder" and read.source else read.ids)
    keys = torch.tensor(read.source) if across else ids
    same = ids[:, None] == keys
    marks: dict[str, Tensor] = {"first": column(same, 0)}
    if not across:
        marks["previous"] = offset(len(ids), 1)
    marks["same"] = same
    if not of[0].attention.causal:
        marks["last"] = column(same, -1)
    if not of[0].attention.causal and not across:
        marks["next"] = offset(len(ids), -1)
        # Of the first and the last token themselves it is said by "same".
        marks["first"][0] = marks["last"][-1] = False
    return marked(look, of, marks)


def column(like: Bool[Tensor, "T S"], place: int) -> Bool[Tensor, "T S"]:
    """One key, of every query."""
    mask = torch.zeros_like(like)
    mask[:, place] = True
    return mask


def offset(count: int, back: int, start: int = 0) -> Bool[Tensor, "T T"]:
    """The key so many places back, of each query from `start` on.

    >>> offset(3, 1).int().tolist()
    [[0, 0, 0], [1, 0, 0], [0, 1, 0]]
    """
    mask = torch.ones(count, count, dtype=torch.bool).tril(-back).triu(-back)
    mask[:start] = False
    return mask


def marked(look: Look, of: list[AttentionSite], marks: Mapping[str, Bool[Tensor, "T S"]]) -> dict[str, Float[Tensor, "L H"]]:
    """The mean weight on what is marked, over the queries that have a choice and something marked; and "diffuse".

    A layer's weights are let go before the next layer's are made.
    """
    made: list[Tensor] = []  # the same for every layer

    def keep(pattern: Float[Tensor, "B H T S"]) -> Float[Tensor, "B N H"]:
        weights = pattern[0]
        if not made:
            made.extend(shared(of[0].visible(weights), [mark.to(weights.device) for mark in marks.values()]))
        masks, even = made
        rows = weights.flatten(1).double() @ masks
        entropy = -torch.special.xlogy(weights, weights).sum(-1, dtype=torch.float64) @ even
        return torch.cat([rows.T, entropy[None]])[None].cpu()

    found = torch.stack(look(keep))
    return {name: found[:, number] for number, name in enumerate((*marks, "diffuse"))}


def shared(
    seen: Int[Tensor, "T"], marks: Sequence[Bool[Tensor, "T S"]]
) -> tuple[Float[Tensor, "T*S N"], Float[Tensor, "T"]]:
    """What weights are multiplied with to be means: over a mark's queries, and of entropies as shares of even ones."""
    choice = seen > 1
    columns = []
    for mark in marks:
        asked = choice & mark.any(-1)
        columns.append((mark & asked[:, None]).double().flatten() / asked.sum().clamp(min=1))
    even = choice / seen.clamp(min=2).double().log() / choice.sum().clamp(min=1)
    return torch.stack(columns, -1), even


def repeated_random_tokens(model: Any, tokenizer: Any, read: Passage, seed: int) -> tuple[Passage, int]:
    """Tokens drawn by chance and then again, so that nothing but their having come before tells what comes; and how far
    back the token stands that followed this one then: one less than were drawn.
    """
    begin = first_token(tokenizer)
    most = (model.context or 2 * REPEATED + 1) - 1
    count = max(2, min(REPEATED, most // 2))
    plain = np.flatnonzero(~np.asarray(tokenizer.special_tokens_mask))
    drawn = np.random.default_rng(seed).choice(plain, count, replace=len(plain) < count).tolist()
    ids = (*(() if begin is None else (begin,)), *drawn, *drawn)
    return replace(read, ids=ids, pieces=tuple(tokenizer.display_token(id) for id in ids), segments=None), count - 1


def named(scores: Mapping[str, Float[Tensor, "L H"]]) -> list[list[str]]:
    """What each head is called.

    >>> one = torch.tensor([[0.6, 0.2, 0.1]])
    >>> named({"previous": one, "first": one.flip(1), "diffuse": torch.tensor([[0.1, 0.9, 0.1]])})
    [['previous', 'diffuse', 'first']]
    """
    order = [name for name in THRESHOLDS if name in scores]
    layers, heads = scores[order[0]].shape
    return [
        [head_type({name: float(scores[name][layer, head]) for name in order}) for head in range(heads)]
        for layer in range(layers)
    ]


def head_type(own: Mapping[str, float]) -> str:
    """What one head is called, by its measures."""
    reached = [name for name, score in own.items() if score >= THRESHOLDS[name]]
    if not reached:
        return "unclear"
    # Evenness is no share, so it is compared with none.
    clear = [name for name in reached if name != "diffuse"]
    return "induction" if "induction" in reached else max(clear, key=lambda name: own[name], default="diffuse")


def head_types(
    model: Any,
    tokenizer: Any,
    text: str,
    *,
    part: AttentionPart | None = None,
    target: str | None = None,
    truncate: Truncate | None = None,
) -> Report:
    """All heads of a model over a text: a small picture of each, what it is called, and all measures as a table.

    An encoder-decoder shows its encoder; `part` names its decoder, which has written `target`, or `cross`.
    """
    read = encode_passage(model, tokenizer, text, target=target, truncate=truncate)
    measured = measure_heads(model, tokenizer, read, part)
    small = pooled_patterns(model, read, part, SHOWN).tolist()
    best = {(layer, head): strongest(measured, layer, head) for layer, head in places(measured)}
    tiles = tuple(
        tuple(Tile(name, best[layer, head], cells_of(small[layer][head])) for head, name in enumerate(row))
        for layer, row in enumerate(measured.names)
    )
    order = [name for name in THRESHOLDS if name in measured.scores]
    rows: tuple[tuple[Cell, ...], ...] = tuple(
        (layer, head, measured.names[layer][head], *(float(measured.scores[name][layer, head]) for name in order))
        for layer, head in places(measured)
    )
    count = len(rows)
    return Report(
        title=f"All {count} heads: what each does with this text",
        caption=said_of(measured),
        panels=(
            TileGrid(
                title=f"{len(tiles)} layers of {len(tiles[0])} heads",
                row_labels=tuple(f"layer {layer}" for layer in range(len(tiles))),
                column_labels=tuple(map(str, range(len(tiles[0])))),
                tiles=tiles,
                kinds=(*order, "unclear"),
            ),
            Table(title="Their measures", columns=("layer", "head", "pattern", *order), rows=rows),
        ),
    )


def places(measured: HeadMeasures) -> list[tuple[int, int]]:
    """Every head's layer and number."""
    return [(layer, head) for layer, row in enumerate(measured.names) for head in range(len(row))]


def strongest(measured: HeadMeasures, layer: int, head: int) -> float:
    """The measure that a head is called by; of one that is unclear the greatest share."""
    name = measured.names[layer][head]
    if name != "unclear":
        return float(measured.scores[name][layer, head])
    return max(float(scores[layer, head]) for kind, scores in measured.scores.items() if kind != "diffuse")


def cells_of(rows: list[list[int]]) -> tuple[tuple[int, ...], ...]:
    """A small picture's cells."""
    return tuple(map(tuple, rows))


def said_of(measured: HeadMeasures) -> str:
    """How many heads are called what, and the clearest head of each kind."""
    counts = Counter(name for row in measured.names for name in row)
    total = sum(counts.values())
    said = []
    for name in THRESHOLDS:
        if counts[name]:
            own = [place for place in places(measured) if measured.names[place[0]][place[1]] == name]
            layer, head = max(own, key=lambda place: float(measured.scores[name][place]))
            said.append(
                f"{counts[name]} {name} (clearest {layer}.{head}: {float(measured.scores[name][layer, head]):.2f})"
            )
    said.append(f"{counts['unclear']} unclear")
    return f"Of {total} heads: {', '.join(said)}."
