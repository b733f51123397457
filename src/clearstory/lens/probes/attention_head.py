"""Head view: the walk through one head, picture by picture. Queries are yellow, keys teal, values and what comes of
them red; the area of a dot is its number.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from clearstory.lens.probes.attention import attention_caption
from clearstory.lens.probes.x_head import HeadQuantities, head_quantities, logit_changes
from clearstory.lens.hooks.passage import encode_passage
from clearstory.lens.hooks.attention_sites import AttentionPart
from clearstory.lens.views import Cell, Grid, GridPalette, Panel, Table, Report
from clearstory.models.prompts import Truncate

MAX_DIMENSIONS = 64
"""Numbers of a vector that are drawn; of a longer one those that are largest in this text."""


def attention_head(
    model: Any,
    tokenizer: Any,
    text: str,
    *,
    layer: int = -1,
    head: int | None = None,
    part: AttentionPart | None = None,
    target: str | None = None,
    truncate: Truncate | None = None,
) -> Report:
    """One head's walk from what it reads to what it adds; the most decided head of the layer when none is named.

    An encoder-decoder shows its encoder; `part` names its decoder, which has written `target`, or `cross`, how that
    looks across at the text.
    """
    read = encode_passage(model, tokenizer, text, target=target, truncate=truncate)
    walked = head_quantities(model, read, layer, head, part)
    rows, columns = walked.site.reads(read)
    steps: list[Panel] = [
        *queries_and_keys(walked, rows, columns),
        *scores(walked, rows, columns),
        *answers(walked, rows, columns),
        words(model, tokenizer, walked, rows, columns),
        vector_grid("E + ΔE of this head alone", rows, walked.after, "bar"),
    ]
    return Report(
        title=f"Head {walked.head} of {walked.site.words}, step by step",
        panels=tuple(steps),
        caption=attention_caption(walked.site, walked.pattern, columns),
    )


def queries_and_keys(walked: HeadQuantities, rows: Sequence[str], columns: Sequence[str]) -> list[Grid]:
    """What is read, and what becomes of it."""
    c, place = walked.site.stack.config, walked.site.stack.rotary is not None and walked.site.part != "cross"
    after = "after the norm" if c.norm_first else "as it is"
    turned = ", turned by the token's place" if place else ""
    steps = [vector_grid(f"What the head reads: E {after}", rows, walked.reads, "bar")]
    if walked.site.part == "cross":
        steps.append(vector_grid("What it reads of the source", columns, walked.source, "bar"))
    scale = walked.site.attention.scale
    more = "" if scale == 1 else f", times {scale:.4g} as this model scales"
    return [
        *steps,
        vector_grid(f"Queries: what each token asks for{turned}{more}", rows, walked.query, "query"),
        vector_grid(f"Keys: what each token answers to{turned}", columns, walked.key, "key"),
    ]


def scores(walked: HeadQuantities, rows: Sequence[str], columns: Sequence[str]) -> list[Grid]:
    """From products to weights."""

    def square(title: str, values: Tensor, ink: GridPalette = "key", **more: Any) -> Grid:
        return Grid(
            title=title,
            row_labels=tuple(rows),
            column_labels=tuple(columns),
            values=numbers(values),
            ink=ink,
            **{"dots": True, **more},
        )

    steps = [
        square("Query · key", walked.dots),
        square(f"÷ √d, which is √{walked.site.width} = {walked.site.width**0.5:.4g}", walked.scaled),
    ]
    if walked.bias is not None:
        steps.append(square("A bias by how far apart they stand", walked.bias))
    hidden = walked.scores == -torch.inf
    title = "Mask: nobody looks ahead" if walked.site.attention.causal else "No mask: everybody sees all"
    if walked.site.attention.causal and walked.site.stack.config.sliding_window is not None:
        title += f", nor further back than {walked.site.stack.config.sliding_window} tokens"
    share = float(hidden.double().mean())
    masked = f"{share:.0%} of the scores are −∞." if share else None
    sums = walked.pattern.double().sum(-1)
    return [
        *steps,
        square(title, walked.scores, caption=masked),
        square(
            "Softmax: the weights of each row",
            walked.pattern,
            "query",
            dots=False,
            unit="weight",
            caption=f"Every row's sum, computed: from {float(sums.min()):.6f} to {float(sums.max()):.6f}.",
        ),
    ]


def answers(walked: HeadQuantities, rows: Sequence[str], columns: Sequence[str]) -> list[Grid]:
    """From values to what is added."""
    return [
        vector_grid("Values: what each token answers with", columns, walked.value, "value"),
        vector_grid("Weights · values: what each token is told", rows, walked.answer, "value"),
        vector_grid("ΔE: that, by this head's part of the output matrix", rows, walked.added, "value"),
    ]


def words(model: Any, tokenizer: Any, walked: HeadQuantities, rows: Sequence[str], sources: Sequence[str]) -> Table:
    """How much each token is moved, from where, and towards which words."""
    long = walked.added.double().norm(dim=-1)
    share = long / walked.stream.double().norm(dim=-1).clamp(min=1e-30)
    favourite = walked.pattern.argmax(-1)
    columns = ["token", "‖ΔE‖", "of ‖E‖", "most from"]
    told: list[list[Cell]] = []
    for place, label in enumerate(rows):
        told.append([label, float(long[place]), float(share[place]), sources[int(favourite[place])]])
    if walked.effect is not None:
        columns += ["promotes", "suppresses"]
        for row, sides in zip(told, logit_changes(model, walked.effect), strict=True):
            row += [" ".join(tokenizer.display_token(id) for id, _ in side) for side in sides]
    place = int(long.argmax())
    norm = "" if walked.site.stack.norm is None else "the last norm at its scale, then "
    return Table(
        title="ΔE in words" + ("" if walked.effect is None else f": by {norm}each word's vector"),
        columns=tuple(columns),
        rows=tuple(map(tuple, told)),
        caption=f"‘{rows[place]}’ is moved most: by {float(share[place]):.1%} of its length.",
    )


def vector_grid(title: str, labels: Sequence[str], values: Float[Tensor, "T W"], ink: GridPalette) -> Grid:
    """A row for each token; of long vectors the numbers that are largest here, and that is said."""
    width = values.shape[-1]
    kept = torch.arange(width)
    if width > MAX_DIMENSIONS:
        kept = values.double().square().mean(0).topk(MAX_DIMENSIONS).indices.sort().values.cpu()
        title += f" (the {MAX_DIMENSIONS} largest of {width:,} dimensions)"
    return Grid(
        title=title,
        row_labels=tuple(labels),
        column_labels=tuple(str(int(i)) for i in kept),
        values=numbers(values[:, kept]),
        ink=ink,
        dots=True,
    )


def numbers(values: Tensor) -> tuple[tuple[float, ...], ...]:
    """Rows of numbers."""
    return tuple(map(tuple, values.tolist()))
