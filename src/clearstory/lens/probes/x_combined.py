"""Combined: several heads as one map: their mean, some counted more than others, or the largest weight of any."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from clearstory.errors import BadSetting
from clearstory.lens.probes.attention import attention_caption, attention_patterns
from clearstory.lens.hooks.interventions import shortest_number, parse_finite
from clearstory.lens.hooks.passage import encode_passage
from clearstory.lens.hooks.attention_sites import AttentionPart, AttentionSite, attention_sites
from clearstory.lens.views import Grid
from clearstory.models.prompts import Truncation

Reduction = Literal["mean", "max"]

NAMED = 6
"""Heads that a title names; of more it says how many."""


@dataclass(frozen=True)
class HeadSelection:
    """Which heads of which layers, and how often each counts: `counts` is (L, H), 0 for a head that is left out."""

    of: list[AttentionSite]
    counts: Float[Tensor, "L H"]
    reduce: Reduction = "mean"

    @property
    def layers(self) -> list[int]:
        """The layers that have any of the heads."""
        return self.counts.any(1).nonzero().squeeze(1).tolist()

    @property
    def number(self) -> int:
        """How many heads there are."""
        return int((self.counts != 0).sum())

    def __str__(self) -> str:
        if self.number == self.counts.numel() and bool((self.counts == 1).all()):
            return f"all {self.number} heads"
        if self.number > NAMED:
            return f"{self.number} heads"
        places = self.counts.nonzero().tolist()
        named = [
            f"{layer}.{head}" + ("" if count == 1 else f" x{shortest_number(count)}")
            for layer, head in places
            if (count := float(self.counts[layer, head]))
        ]
        return f"head{'s' * (len(named) > 1)} {', '.join(named)}"

    def within(self, layer: int, pattern: Float[Tensor, "H T S"]) -> Float[Tensor, "T S"]:
        """What one layer's heads give together: a sum, or their largest."""
        counts = self.counts[layer].to(pattern)
        if self.reduce == "max":
            return pattern[counts != 0].amax(0)
        return torch.einsum("h,hts->ts", counts, pattern)

    def over(self, parts: Sequence[Float[Tensor, "T S"]]) -> Float[Tensor, "T S"]:
        """What all layers give together."""
        whole = torch.stack(list(parts))
        return whole.amax(0) if self.reduce == "max" else whole.sum(0) / float(self.counts.sum())

    def look(self, weights: Float[Tensor, "T S"], columns: Sequence[str]) -> str | None:
        """What stands out in the map."""
        if self.reduce == "mean":
            return attention_caption(self.of[0], weights, columns)
        sums = weights.sum(-1)
        return (
            f"Each cell is the largest weight that any of the {self.number} has there, so rows sum to "
            f"{float(sums.min()):.2f} to {float(sums.max()):.2f} and not to 1."
        )


def select_heads(of: list[AttentionSite], said: Sequence[str], reduce: Reduction = "mean") -> HeadSelection:
    """Heads from words: "5.3" is head 3 of layer 5, "5" all of layer 5, "5.3 x2" counts it twice; no words mean all.

    Raises BadSetting for what is not there, a count below 0, and counts where the largest weight is asked for.
    """
    if reduce not in ("mean", "max"):
        raise BadSetting(f"reduce is '{reduce}'; heads are combined by their mean or their max")
    counts = torch.zeros(len(of), of[0].heads, dtype=torch.float64)
    if not said:
        counts += 1
    for each in said:
        place, _, times = each.strip().partition(" ")
        layer, dot, head = place.partition(".")
        try:
            count = parse_finite(times.strip().removeprefix("x")) if times else 1.0
            row, column = int(layer), int(head) if dot else None
        except ValueError:
            raise BadSetting(f"'{each}' names no head; write 5.3 (head 3 of layer 5), 5 or 5.3 x2") from None
        if not 0 <= row < len(of) or not 0 <= (column or 0) < of[0].heads:
            raise BadSetting(
                f"'{each}' names a head that is not there; layers go to {len(of) - 1}, heads to {of[0].heads - 1}"
            )
        if count <= 0:
            raise BadSetting(f"'{each}' counts a head {count:g} times; give a number above 0, or leave the head out")
        if reduce == "max" and count != 1:
            raise BadSetting(f"'{each}' counts a head {count:g} times, and max takes each as it is; leave the x away")
        counts[row, slice(None) if column is None else column] = count
    return HeadSelection(of, counts, reduce)


def combined_heads(
    model: Any,
    tokenizer: Any,
    text: str,
    *,
    heads: tuple[str, ...] = (),
    reduce: Reduction = "mean",
    part: AttentionPart | None = None,
    target: str | None = None,
    truncate: Truncation | None = None,
) -> Grid:
    """The attention of several heads as one map: the mean of their weights, or the largest of any.

    `heads` are written “5.3”, “5” for a whole layer, “5.3 x2” for one that counts twice; all heads when none is named.
    Rows of a mean sum to 1. Raises BadSetting for heads that are not there.
    """
    read = encode_passage(model, tokenizer, text, target=target, truncate=truncate)
    of = attention_sites(model, part)
    chosen = select_heads(of, heads, reduce)
    # Layers are read from the lowest up, and each one's weights are let go before the next one's are made.
    rising = iter(chosen.layers)
    parts = attention_patterns(
        model, read, [of[layer] for layer in chosen.layers], lambda each: chosen.within(next(rising), each[0])[None]
    )
    weights = chosen.over(parts)
    rows, columns = of[0].reads(read)
    return Grid(
        title=combined_title(chosen),
        row_labels=rows,
        column_labels=columns,
        values=tuple(map(tuple, weights.tolist())),
        unit="weight",
        caption=chosen.look(weights, columns),
    )


def combined_title(chosen: HeadSelection) -> str:
    """What the map is of."""
    part = {"encoder": "", "decoder": "", "cross": " across"}[chosen.of[0].part]
    return f"Attention{part} of {chosen}, {'the largest weight' if chosen.reduce == 'max' else 'their mean'}"
