"""Head types: every attention head of a model, classified by the tokens of a text to which it attends.

Mean shares of a head's weight, over the queries that see more than one key (Clark et al. 2019, section 3; induction as
the prefix matching score of Olsson et al. 2022, after Elhage et al. 2021):

    previous    on the previous token
    next        on the next token, where the mask allows it
    first       on the first token: [CLS], or the first of the text
    last        on the last token: [SEP] of an encoder, the end of a source
    same        on the token itself, and on equal tokens
    induction   on the token after the previous occurrence of this one, in random tokens that are repeated once
    diffuse     not a share: the entropy of the weights divided by that of uniform weights

A head has the type with the largest score among those above their thresholds; "induction" takes precedence since it is
measured on a separate text; the type is "unclear" if no score is above its threshold.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from clearstory.lens.hooks.attention_sites import (
    AttentionPart,
    AttentionSite,
    attention_patterns,
    attention_sites,
    pool_pattern,
)
from clearstory.lens.hooks.passage import Passage, encode_passage
from clearstory.lens.views import Cell, Report, Table, Tile, TileGrid
from clearstory.models.base import LanguageModel
from clearstory.models.prompts import PromptOptions, Truncation, bos_or_eos_token_id
from clearstory.text.tokenizers import Tokenizer

THRESHOLDS = dict.fromkeys(("induction", "previous", "next", "first", "last", "same"), 0.4) | {"diffuse": 0.85}
"""Minimum score of each type; at 0.4 at most two shares can reach it."""

REPEATED_TOKENS = 50
"""Random tokens that are repeated for the induction score, or as many as twice fit the context."""
THUMBNAIL_CELLS = 16
"""Rows and columns of a thumbnail."""


@dataclass(frozen=True)
class HeadMeasures:
    """Scores and types of all heads: each of `scores` is (layers, heads), and `types` has the same shape."""

    scores: Mapping[str, Float[Tensor, "L H"]]
    types: tuple[tuple[str, ...], ...]


PatternPass = Callable[[Callable[[Tensor], Tensor]], list[Tensor]]
"""Calls a function with each layer's weights (1, H, T, S) and returns the first row of each result."""


def head_types(
    model: LanguageModel,
    tokenizer: Tokenizer,
    text: str,
    *,
    part: AttentionPart | None = None,
    target: str | None = None,
    truncate: Truncation | None = None,
    prompt: PromptOptions = PromptOptions(),
) -> Report:
    """All heads of a model over a text: a thumbnail of each head's pattern, its type, and a table of all scores.

    For an encoder-decoder, the encoder's self-attention by default; `part` selects the decoder's self-attention, or
    cross-attention, after it has generated `target`.
    """
    passage = encode_passage(model, tokenizer, text, target=target, truncate=truncate, prompt=prompt)
    sites, pooled = attention_sites(model, part), list[Tensor]()

    def pattern_pass(measure: Callable[[Tensor], Tensor]) -> list[Tensor]:
        def measure_and_pool(pattern: Tensor) -> Tensor:
            pooled.append(pool_pattern(pattern, THUMBNAIL_CELLS)[0])
            return measure(pattern)

        return attention_patterns(model, passage, sites, measure_and_pool)

    measured = measure_heads(model, tokenizer, passage, part, pattern_pass=pattern_pass)
    thumbnails = [each.tolist() for each in pooled]
    tiles = tuple(
        tuple(
            Tile(name, type_score(measured, layer, head), tuple(map(tuple, thumbnails[layer][head])))
            for head, name in enumerate(row)
        )
        for layer, row in enumerate(measured.types)
    )
    order = [name for name in THRESHOLDS if name in measured.scores]
    rows: tuple[tuple[Cell, ...], ...] = tuple(
        (layer, head, measured.types[layer][head], *(float(measured.scores[name][layer, head]) for name in order))
        for layer, head in all_heads(measured)
    )
    return Report(
        title=f"Types of all {len(rows)} heads",
        caption=types_caption(measured),
        panels=(
            TileGrid(
                title=f"{len(tiles)} layers of {len(tiles[0])} heads",
                row_labels=tuple(f"layer {layer}" for layer in range(len(tiles))),
                column_labels=tuple(map(str, range(len(tiles[0])))),
                tiles=tiles,
                categories=(*order, "unclear"),
            ),
            Table(title="Scores", columns=("layer", "head", "type", *order), rows=rows),
        ),
    )


def measure_heads(
    model: LanguageModel,
    tokenizer: Tokenizer,
    passage: Passage,
    part: AttentionPart | None = None,
    seed: int = 0,
    pattern_pass: PatternPass | None = None,
) -> HeadMeasures:
    """Scores and types of all heads for a passage, from one forward pass, or from `pattern_pass` where it is given.

    Induction is measured in causal stacks only, in another forward pass over random tokens drawn with `seed`.
    """
    sites = attention_sites(model, part)
    scores = text_scores(pattern_pass or partial(attention_patterns, model, passage, sites), passage, sites)
    if sites[0].attention.causal:
        repeated, distance = repeated_random_tokens(model, tokenizer, passage, seed)
        masks = {"induction": diagonal(len(repeated.ids), distance, 2 * distance)}
        scores["induction"] = mean_weights(partial(attention_patterns, model, repeated, sites), sites, masks)[
            "induction"
        ]
    return HeadMeasures(scores, tuple(map(tuple, classify(scores))))


def text_scores(
    pattern_pass: PatternPass, passage: Passage, sites: list[AttentionSite]
) -> dict[str, Float[Tensor, "L H"]]:
    """All scores that are measured on the text itself."""
    cross = sites[0].part == "cross"
    ids = torch.tensor(passage.source if sites[0].part == "encoder" and passage.source else passage.ids)
    keys = torch.tensor(passage.source) if cross else ids
    same = ids[:, None] == keys
    masks: dict[str, Tensor] = {"first": column(same, 0)}
    if not cross:
        masks["previous"] = diagonal(len(ids), 1)
    masks["same"] = same
    if not sites[0].attention.causal:
        masks["last"] = column(same, -1)
    if not sites[0].attention.causal and not cross:
        masks["next"] = diagonal(len(ids), -1)
        # The first and last token's weight on themselves counts as "same".
        masks["first"][0] = masks["last"][-1] = False
    return mean_weights(pattern_pass, sites, masks)


def column(like: Bool[Tensor, "T S"], index: int) -> Bool[Tensor, "T S"]:
    """A mask of one key for all queries."""
    mask = torch.zeros_like(like)
    mask[:, index] = True
    return mask


def diagonal(count: int, back: int, start: int = 0) -> Bool[Tensor, "T T"]:
    """A mask of the key `back` positions before each query, from query `start` on.

    >>> diagonal(3, 1).int().tolist()
    [[0, 0, 0], [1, 0, 0], [0, 1, 0]]
    """
    mask = torch.ones(count, count, dtype=torch.bool).tril(-back).triu(-back)
    mask[:start] = False
    return mask


def mean_weights(
    pattern_pass: PatternPass, sites: list[AttentionSite], masks: Mapping[str, Bool[Tensor, "T S"]]
) -> dict[str, Float[Tensor, "L H"]]:
    """The mean weight inside each mask, over the queries with a choice and a masked key; and "diffuse".

    A layer's weights are freed before the next layer's are computed.
    """
    computed: list[Tensor] = []  # the same for every layer

    def reduce_pattern(pattern: Float[Tensor, "B H T S"]) -> Float[Tensor, "B N H"]:
        weights = pattern[0]
        if not computed:
            on_device = [mask.to(weights.device) for mask in masks.values()]
            computed.extend(averaging_factors(sites[0].visible_counts(weights), on_device))
        mask_factors, entropy_factors = computed
        rows = weights.flatten(1).double() @ mask_factors
        entropy = -torch.special.xlogy(weights, weights).sum(-1, dtype=torch.float64) @ entropy_factors
        return torch.cat([rows.T, entropy[None]])[None].cpu()

    scores = torch.stack(pattern_pass(reduce_pattern))
    return {name: scores[:, index] for index, name in enumerate((*masks, "diffuse"))}


def averaging_factors(
    visible: Int[Tensor, "T"], masks: Sequence[Bool[Tensor, "T S"]]
) -> tuple[Float[Tensor, "T*S N"], Float[Tensor, "T"]]:
    """Factors that turn weights into their mean inside each mask, and entropies into the mean share of uniform ones."""
    has_choice = visible > 1
    columns = []
    for mask in masks:
        counted = has_choice & mask.any(-1)
        columns.append((mask & counted[:, None]).double().flatten() / counted.sum().clamp(min=1))
    uniform = has_choice / visible.clamp(min=2).double().log() / has_choice.sum().clamp(min=1)
    return torch.stack(columns, -1), uniform


def repeated_random_tokens(
    model: LanguageModel, tokenizer: Tokenizer, passage: Passage, seed: int
) -> tuple[Passage, int]:
    """Random tokens, repeated once; and the distance back to the token after the previous occurrence, which is one less
    than the number of tokens drawn.
    """
    first = bos_or_eos_token_id(tokenizer)
    most = (model.context or 2 * REPEATED_TOKENS + 1) - 1
    count = max(2, min(REPEATED_TOKENS, most // 2))
    ordinary = np.flatnonzero(~np.asarray(tokenizer.special_tokens_mask))
    drawn = np.random.default_rng(seed).choice(ordinary, count, replace=len(ordinary) < count).tolist()
    ids = (*(() if first is None else (first,)), *drawn, *drawn)
    pieces = tuple(tokenizer.display_token(id) for id in ids)
    return Passage(ids, pieces, passage.source, passage.source_pieces), count - 1


def classify(scores: Mapping[str, Float[Tensor, "L H"]]) -> list[list[str]]:
    """The type of each head.

    >>> one = torch.tensor([[0.6, 0.2, 0.1]])
    >>> classify({"previous": one, "first": one.flip(1), "diffuse": torch.tensor([[0.1, 0.9, 0.1]])})
    [['previous', 'diffuse', 'first']]
    """
    order = [name for name in THRESHOLDS if name in scores]
    layers, heads = scores[order[0]].shape
    return [
        [head_type({name: float(scores[name][layer, head]) for name in order}) for head in range(heads)]
        for layer in range(layers)
    ]


def head_type(scores: Mapping[str, float]) -> str:
    """The type of one head, from its scores."""
    reached = [name for name, score in scores.items() if score >= THRESHOLDS[name]]
    if not reached:
        return "unclear"
    # The entropy is not a share, so it is not compared with the shares.
    shares = [name for name in reached if name != "diffuse"]
    return "induction" if "induction" in reached else max(shares, key=lambda name: scores[name], default="diffuse")


def all_heads(measured: HeadMeasures) -> list[tuple[int, int]]:
    """Layer and number of every head."""
    return [(layer, head) for layer, row in enumerate(measured.types) for head in range(len(row))]


def type_score(measured: HeadMeasures, layer: int, head: int) -> float:
    """The score of a head's type; of an unclear head its largest share."""
    name = measured.types[layer][head]
    if name != "unclear":
        return float(measured.scores[name][layer, head])
    return max(float(scores[layer, head]) for kind, scores in measured.scores.items() if kind != "diffuse")


def types_caption(measured: HeadMeasures) -> str:
    """The number of heads of each type, and the head with the highest score."""
    counts = Counter(name for row in measured.types for name in row)
    total = sum(counts.values())
    parts = []
    for name in THRESHOLDS:
        if counts[name]:
            heads = [each for each in all_heads(measured) if measured.types[each[0]][each[1]] == name]
            layer, head = max(heads, key=lambda each: float(measured.scores[name][each]))
            score = float(measured.scores[name][layer, head])
            parts.append(f"{counts[name]} {name} (highest score {score:.2f}: head {layer}.{head})")
    parts.append(f"{counts['unclear']} unclear")
    return f"Of {total} heads: {', '.join(parts)}."
