"""Attention patterns: one head's attention weights over a text, or those of several heads combined.

Vaswani et al. 2017, eq. 1: the softmax of Q Kᵀ / √d under the mask.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from clearstory.errors import BadSetting
from clearstory.lens.hooks.attention_sites import (
    AttentionPart,
    AttentionSite,
    attention_patterns,
    attention_sites,
    attention_weights,
    choose_head,
)
from clearstory.lens.hooks.interventions import parse_finite, shortest_number
from clearstory.lens.hooks.passage import encode_passage
from clearstory.lens.views import Grid
from clearstory.models.base import LanguageModel
from clearstory.models.prompts import PromptOptions, Truncation
from clearstory.text.tokenizers import Tokenizer

Reduction = Literal["mean", "max"]

MAX_NAMED_HEADS = 6
"""More heads than this are counted in a title, not named."""


def attention(
    model: LanguageModel,
    tokenizer: Tokenizer,
    text: str,
    *,
    layer: int | None = None,
    head: int | None = None,
    part: AttentionPart | None = None,
    target: str | None = None,
    truncate: Truncation | None = None,
    prompt: PromptOptions = PromptOptions(),
) -> Grid:
    """Attention weights of one head over a text; by default of the head, of the layer or of all, that concentrates most
    on some of the words (`AttentionSite.selectivity`).

    Rows are queries, columns keys. For an encoder-decoder, the encoder's self-attention by default; `part` selects the
    decoder's self-attention, or cross-attention, after it has generated `target`.
    """
    passage = encode_passage(model, tokenizer, text, target=target, truncate=truncate, prompt=prompt)
    site, head, weights = choose_head(model, passage, layer, head, part)
    if weights is None:
        weights = attention_weights(model, passage, site)[head]
    rows, columns = site.labels(passage)
    return Grid(
        title=f"Attention weights of {site.title}, head {head}: queries in rows, keys in columns",
        row_labels=rows,
        column_labels=columns,
        values=tuple(map(tuple, weights.tolist())),
        unit="weight",
        caption=attention_caption(site, weights, columns),
    )


def chosen_head(
    model: LanguageModel,
    tokenizer: Tokenizer,
    text: str,
    *,
    layer: int | None = None,
    head: int | None = None,
    part: AttentionPart | None = None,
    target: str | None = None,
    truncate: Truncation | None = None,
    prompt: PromptOptions = PromptOptions(),
) -> dict[str, int]:
    """The layer and the head that `attention` shows."""
    passage = encode_passage(model, tokenizer, text, target=target, truncate=truncate, prompt=prompt)
    site, head, _ = choose_head(model, passage, layer, head, part)
    return {"layer": site.layer, "head": head}


def combined_heads(
    model: LanguageModel,
    tokenizer: Tokenizer,
    text: str,
    *,
    heads: tuple[str, ...] = (),
    reduce: Reduction = "mean",
    part: AttentionPart | None = None,
    target: str | None = None,
    truncate: Truncation | None = None,
    prompt: PromptOptions = PromptOptions(),
) -> Grid:
    """Attention weights of several heads in one grid: their mean, or their maximum in each cell.

    `heads` are written “5.3”, “5” for a whole layer, “5.3 x2” for one that counts twice; all heads by default. Rows of
    a mean sum to 1. Raises BadSetting for heads that do not exist.
    """
    passage = encode_passage(model, tokenizer, text, target=target, truncate=truncate, prompt=prompt)
    sites = attention_sites(model, part)
    selection = select_heads(sites, heads, reduce)
    # Layers run from the lowest up, and each one's weights are freed before the next one's are computed.
    layers = iter(selection.layers)
    parts = attention_patterns(
        model,
        passage,
        [sites[layer] for layer in selection.layers],
        lambda pattern: selection.reduce_heads(next(layers), pattern[0])[None],
    )
    weights = selection.reduce_layers(parts)
    rows, columns = sites[0].labels(passage)
    return Grid(
        title=combined_title(selection),
        row_labels=rows,
        column_labels=columns,
        values=tuple(map(tuple, weights.tolist())),
        unit="weight",
        caption=selection.caption(weights, columns),
    )


def attention_caption(site: AttentionSite, weights: Float[Tensor, "T S"], columns: Sequence[str]) -> str | None:
    """The mean maximum weight, the mean distance, and a key that gets most of the weight; None without any choice."""
    has_choice = site.visible_counts(weights) > 1
    if not bool(has_choice.any()):
        return None
    chosen = weights[has_choice].double()
    text = f"Mean maximum weight {float(chosen.amax(-1).mean()):.0%}"
    if site.part != "cross":
        positions = torch.arange(weights.shape[0], device=weights.device)
        distances = (positions[:, None] - positions).abs()
        distance = (weights.double() * distances)[has_choice].sum(-1).mean()
        text += f", mean distance {float(distance):.1f} tokens{' back' if site.attention.causal else ''}"
    shares = chosen.mean(0)
    if float(shares.max()) > 0.5 and len(chosen) > 2:
        text += f"; ‘{columns[int(shares.argmax())]}’ gets {float(shares.max()):.0%} of all weight"
    return f"{text}."


@dataclass(frozen=True)
class HeadSelection:
    """Heads of some layers, and how often each counts: `counts` is (L, H), 0 for a head that is left out."""

    sites: list[AttentionSite]
    counts: Float[Tensor, "L H"]
    reduce: Reduction = "mean"

    @property
    def layers(self) -> list[int]:
        """The layers with at least one of the heads."""
        return self.counts.any(1).nonzero().squeeze(1).tolist()

    @property
    def size(self) -> int:
        """Number of heads."""
        return int((self.counts != 0).sum())

    def __str__(self) -> str:
        if self.size == self.counts.numel() and bool((self.counts == 1).all()):
            return f"all {self.size} heads"
        if self.size > MAX_NAMED_HEADS:
            return f"{self.size} heads"
        names = [
            f"{layer}.{head}" + ("" if count == 1 else f" x{shortest_number(count)}")
            for layer, head in self.counts.nonzero().tolist()
            if (count := float(self.counts[layer, head]))
        ]
        return f"head{'s' * (len(names) > 1)} {', '.join(names)}"

    def reduce_heads(self, layer: int, pattern: Float[Tensor, "H T S"]) -> Float[Tensor, "T S"]:
        """The sum of one layer's heads, each times its count, or their maximum."""
        counts = self.counts[layer].to(pattern)
        if self.reduce == "max":
            return pattern[counts != 0].amax(0)
        return torch.einsum("h,hts->ts", counts, pattern)

    def reduce_layers(self, parts: Sequence[Float[Tensor, "T S"]]) -> Float[Tensor, "T S"]:
        """The mean or maximum over all layers, from the results of `reduce_heads`."""
        stacked = torch.stack(list(parts))
        return stacked.amax(0) if self.reduce == "max" else stacked.sum(0) / float(self.counts.sum())

    def caption(self, weights: Float[Tensor, "T S"], columns: Sequence[str]) -> str | None:
        """The caption of the combined grid."""
        if self.reduce == "mean":
            return attention_caption(self.sites[0], weights, columns)
        sums = weights.sum(-1)
        return (
            f"Each cell is the maximum over {self.size} heads, so rows sum to {float(sums.min()):.2f} to "
            f"{float(sums.max()):.2f}, not to 1."
        )


def select_heads(sites: list[AttentionSite], names: Sequence[str], reduce: Reduction = "mean") -> HeadSelection:
    """Heads from their names: "5.3" is head 3 of layer 5, "5" all of layer 5, "5.3 x2" counts it twice; none means all.

    Raises BadSetting for a head that does not exist, a count that is not positive, and a count with `reduce` max.
    """
    if reduce not in ("mean", "max"):
        raise BadSetting(f"reduce is '{reduce}'; give mean or max")
    counts = torch.zeros(len(sites), sites[0].heads, dtype=torch.float64)
    if not names:
        counts += 1
    for each in names:
        name, _, times = each.strip().partition(" ")
        layer, dot, head = name.partition(".")
        try:
            count = parse_finite(times.strip().removeprefix("x")) if times else 1.0
            row, column = int(layer), int(head) if dot else None
        except ValueError:
            raise BadSetting(f"'{each}' is not a head; write 5.3 (head 3 of layer 5), 5 or 5.3 x2") from None
        if not 0 <= row < len(sites) or not 0 <= (column or 0) < sites[0].heads:
            raise BadSetting(
                f"the head '{each}' does not exist; layers go to {len(sites) - 1}, heads to {sites[0].heads - 1}"
            )
        if count <= 0:
            raise BadSetting(f"'{each}' has the weight {count:g}; give a positive number, or leave the head out")
        if reduce == "max" and count != 1:
            raise BadSetting(f"'{each}' has the weight {count:g}, but a maximum ignores weights; leave the x out")
        counts[row, slice(None) if column is None else column] = count
    return HeadSelection(sites, counts, reduce)


def combined_title(selection: HeadSelection) -> str:
    """The title of the combined grid."""
    kind = {"encoder": "Attention", "decoder": "Attention", "cross": "Cross-attention"}[selection.sites[0].part]
    return f"{kind} weights of {selection}, {'maximum' if selection.reduce == 'max' else 'mean'}"
