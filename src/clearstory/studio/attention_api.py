"""Attending: every head of a model over a text, for the page that shows all of them and then one.

The text is read once. Queries and keys of all layers are kept, from which any head's weights are a small product: of
512 tokens and 270 heads they are 71 MB at most, where the weights themselves are 283.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from clearstory.errors import BadSetting
from clearstory.lens.probes.attention import attention_caption
from clearstory.lens.probes.x_combined import Reduction, select_heads, combined_title
from clearstory.lens.hooks.interventions import parse_intervention
from clearstory.lens.probes.head_types import THRESHOLDS, measure_heads
from clearstory.lens.hooks.apply_interventions import pattern_with_interventions, visible_keys
from clearstory.lens.hooks.passage import Passage, encode_passage
from clearstory.lens.hooks.attention_sites import AttentionPart, AttentionSite, attention_parts, attention_site, attention_sites
from clearstory.lens.hooks.activations import unwrap_model, attention_scores, record_activations
from clearstory.models.prompts import resting

MAX_CACHE_BYTES = 2**28
"""Queries and keys kept of one model; the texts that were asked for longest ago go first."""


@dataclass(frozen=True)
class QueriesAndKeys:
    """One reading of a text: the queries (1, H, T, D) and keys (1, K, S, D) of every layer of a part."""

    read: Passage
    of: list[AttentionSite]
    queries: list[Tensor]
    keys: list[Tensor]

    def pattern(self, layer: int) -> Float[Tensor, "H T S"]:
        """A layer's weights."""
        at, q, k = self.of[layer], self.queries[layer], self.keys[layer]
        near = None
        if at.stack.buckets is not None and at.part != "cross":
            near = at.stack.buckets(q.shape[2], k.shape[2]).to(q.dtype)
        weights: Tensor = attention_scores(at.attention, q, k, near).softmax(-1)[0]
        return weights

    def each(self, keep: Callable[[Tensor], Tensor]) -> list[Tensor]:
        """What is kept of every layer's weights, of one layer at a time: as `lens.attention.patterns` gives it."""
        return [keep(self.pattern(layer)[None])[0] for layer in range(len(self.of))]

    @property
    def bytes(self) -> int:
        """What it takes."""
        return sum(each.nbytes for each in (*self.queries, *self.keys))


CACHE: WeakKeyDictionary[nn.Module, OrderedDict[Any, QueriesAndKeys]] = WeakKeyDictionary()


def queries_and_keys(model: Any, tokenizer: Any, text: str, part: AttentionPart | None, target: str | None) -> QueriesAndKeys:
    """A reading of a text, made now or kept from before."""
    shelf = CACHE.setdefault(unwrap_model(model), OrderedDict())
    key = (text, part, target)
    if key in shelf:
        shelf.move_to_end(key)
        return shelf[key]
    read, of = encode_passage(model, tokenizer, text, target=target), attention_sites(model, part)
    names = [[f"{each.tap}.{what}" for each in of] for what in ("query", "key")]
    with resting(model), record_activations(model, *names[0], *names[1]) as seen:
        read.hidden(model)
    shelf[key] = found = QueriesAndKeys(read, of, *([seen[name] for name in row] for row in names))
    while len(shelf) > 1 and sum(each.bytes for each in shelf.values()) > MAX_CACHE_BYTES:
        shelf.popitem(last=False)
    return found


def head_patterns(
    model: Any,
    tokenizer: Any,
    text: str,
    *,
    part: AttentionPart | None = None,
    target: str | None = None,
    cells: int = 40,
) -> dict[str, Any]:
    """Every head's weights in at most `cells` × `cells` numbers of a byte, each the greatest under it: (L, H, t, s)."""
    if not 1 <= cells <= 128:
        raise BadSetting(f"cells is {cells}; give from 1 to 128")
    known = queries_and_keys(model, tokenizer, text, part, target)
    rows, columns = known.of[0].reads(known.read)
    size = (min(cells, len(rows)), min(cells, len(columns)))
    with resting(model):
        maps = known.each(lambda pattern: (F.adaptive_max_pool2d(pattern.float(), size) * 255).round().to(torch.uint8))
    return {"maps": torch.stack(maps), "rows": list(rows), "columns": list(columns), "parts": list(attention_parts(model))}


def head_scores(
    model: Any, tokenizer: Any, text: str, *, part: AttentionPart | None = None, target: str | None = None
) -> dict[str, Any]:
    """What every head is called, and its measures: see `lens.heads`."""
    known = queries_and_keys(model, tokenizer, text, part, target)
    with resting(model):
        measured = measure_heads(model, tokenizer, known.read, part, look=known.each)
    order = [name for name in THRESHOLDS if name in measured.scores]
    return {
        "names": [list(row) for row in measured.names],
        "kinds": [*order, "unclear"],
        "thresholds": {name: THRESHOLDS[name] for name in order},
        "scores": torch.stack([measured.scores[name] for name in order], -1).float(),
    }


def head_pattern(
    model: Any,
    tokenizer: Any,
    text: str,
    *,
    layer: int = -1,
    head_pattern: int | None = None,
    part: AttentionPart | None = None,
    target: str | None = None,
) -> dict[str, Any]:
    """One head's weights (T, S); of the most decided head of the layer when none is named."""
    at, known = attention_site(model, layer, part), queries_and_keys(model, tokenizer, text, part, target)
    rows, columns = at.reads(known.read)
    with resting(model):
        weights = known.pattern(at.layer)
        number = at.head(head_pattern, weights)
        said = attention_caption(at, weights[number], columns)
    return {
        "weights": weights[number].float(),
        "layer": at.layer,
        "head": number,
        "words": at.words,
        "rows": list(rows),
        "columns": list(columns),
        "caption": said,
    }


def combined_pattern(
    model: Any,
    tokenizer: Any,
    text: str,
    *,
    heads: tuple[str, ...] = (),
    how: Reduction = "mean",
    part: AttentionPart | None = None,
    target: str | None = None,
) -> dict[str, Any]:
    """Several heads as one map (T, S): see `lens.combined`."""
    known = queries_and_keys(model, tokenizer, text, part, target)
    chosen = select_heads(known.of, heads, how)
    rows, columns = known.of[0].reads(known.read)
    with resting(model):
        weights = chosen.over([chosen.within(layer, known.pattern(layer)) for layer in chosen.layers])
    return {
        "weights": weights.float(),
        "title": combined_title(chosen),
        "rows": list(rows),
        "columns": list(columns),
        "caption": chosen.look(weights, columns),
    }


def edited_pattern(
    model: Any,
    tokenizer: Any,
    text: str,
    *,
    layer: int = -1,
    head_pattern: int = 0,
    edit: tuple[str, ...] = (),
    part: AttentionPart | None = None,
    target: str | None = None,
) -> dict[str, Any]:
    """One head's weights with edits inside and without them, both (T, S), and which of them can be other than 0."""
    at, known = attention_site(model, layer, part), queries_and_keys(model, tokenizer, text, part, target)
    number = at.head(head_pattern, (before := known.pattern(at.layer)))
    edits = [parse_intervention(each) for each in edit]
    after = pattern_with_interventions(model, tokenizer, known.read, at, edits) if edits else before
    rows, columns = at.reads(known.read)
    return {
        "weights": after[number].float(),
        "before": before[number].float(),
        "seen": visible_keys(at.attention, *before.shape[-2:]),
        "layer": at.layer,
        "head": number,
        "words": at.words,
        "rows": list(rows),
        "columns": list(columns),
    }
