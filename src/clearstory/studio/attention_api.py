"""Attention API: attention patterns of all heads, of one head, of several heads combined, and with interventions.

The text is processed once. The queries and keys of all layers are cached, from which any head's weights are a small
product: for 512 tokens and 270 heads they take at most 71 MB, the weights themselves 283 MB.
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
from clearstory.lens.hooks.activations import record_activations, unwrap_model
from clearstory.lens.hooks.apply_interventions import pattern_with_interventions, visible_keys
from clearstory.lens.hooks.attention_sites import (
    AttentionPart,
    AttentionSite,
    attention_parts,
    attention_site,
    attention_sites,
)
from clearstory.lens.hooks.installation import attention_scores
from clearstory.lens.hooks.interventions import parse_intervention
from clearstory.lens.hooks.passage import Passage, encode_passage
from clearstory.lens.probes.attention import Reduction, attention_caption, combined_title, select_heads
from clearstory.lens.probes.head_types import THRESHOLDS, measure_heads
from clearstory.models.base import LanguageModel, inference_mode
from clearstory.models.prompts import PromptOptions
from clearstory.text.tokenizers import Tokenizer

MAX_CACHE_BYTES = 2**28
"""Bytes of queries and keys cached per model; the least recently used texts are evicted first."""


@dataclass(frozen=True)
class QueriesAndKeys:
    """The queries (1, H, T, D) and keys (1, K, S, D) of every layer of a stack, from one forward pass."""

    passage: Passage
    sites: list[AttentionSite]
    queries: list[Tensor]
    keys: list[Tensor]

    def pattern(self, layer: int) -> Float[Tensor, "H T S"]:
        """The attention weights of a layer."""
        site, q, k = self.sites[layer], self.queries[layer], self.keys[layer]
        bias = None
        if site.stack.relative_position_bias is not None and site.part != "cross":
            bias = site.stack.relative_position_bias(q.shape[2], k.shape[2]).to(q.dtype)
        weights: Tensor = attention_scores(site.attention, q, k, bias).softmax(-1)[0]
        return weights

    def map_patterns(self, function: Callable[[Tensor], Tensor]) -> list[Tensor]:
        """`function` of every layer's weights (1, H, T, S), one layer at a time, as `lens.probes.attention` does it."""
        return [function(self.pattern(layer)[None])[0] for layer in range(len(self.sites))]

    @property
    def bytes(self) -> int:
        """Bytes of all queries and keys."""
        return sum(each.nbytes for each in (*self.queries, *self.keys))


CACHE: WeakKeyDictionary[nn.Module, OrderedDict[Any, QueriesAndKeys]] = WeakKeyDictionary()
"""Cached queries and keys per model, by text, part, target and prompt options."""


def queries_and_keys(
    model: LanguageModel,
    tokenizer: Tokenizer,
    text: str,
    part: AttentionPart | None,
    target: str | None,
    prompt: PromptOptions,
) -> QueriesAndKeys:
    """The queries and keys of a text, computed now or taken from the cache."""
    cache = CACHE.setdefault(unwrap_model(model), OrderedDict())
    key = (text, part, target, prompt)
    if key in cache:
        cache.move_to_end(key)
        return cache[key]
    passage, sites = encode_passage(model, tokenizer, text, target=target, prompt=prompt), attention_sites(model, part)
    names = [[f"{site.name}.{kind}" for site in sites] for kind in ("query", "key")]
    with inference_mode(model), record_activations(model, *names[0], *names[1]) as recorded:
        passage.forward(model)
    cache[key] = result = QueriesAndKeys(passage, sites, *([recorded[name] for name in each] for each in names))
    while len(cache) > 1 and sum(each.bytes for each in cache.values()) > MAX_CACHE_BYTES:
        cache.popitem(last=False)
    return result


def head_patterns(
    model: LanguageModel,
    tokenizer: Tokenizer,
    text: str,
    *,
    part: AttentionPart | None = None,
    target: str | None = None,
    prompt: PromptOptions = PromptOptions(),
    cells: int = 40,
) -> dict[str, Any]:
    """The patterns of all heads, max-pooled to at most `cells` × `cells` and scaled to uint8, (L, H, t, s).

    `selected` is the [layer, head] whose pooled pattern is most selective, which a page shows while none is chosen: up
    to `cells` tokens that of the views `attention` and `head`.
    """
    if not 1 <= cells <= 128:
        raise BadSetting(f"cells is {cells}; give from 1 to 128")
    cached = queries_and_keys(model, tokenizer, text, part, target, prompt)
    rows, columns = cached.sites[0].labels(cached.passage)
    size = (min(cells, len(rows)), min(cells, len(columns)))

    site = cached.sites[0]
    special = site.special_keys(cached.passage) if size == (len(rows), len(columns)) else ()
    with inference_mode(model):
        pooled = torch.stack(cached.map_patterns(lambda pattern: F.adaptive_max_pool2d(pattern.float(), size)))
        most = int(torch.stack([site.selectivity(each, special) for each in pooled]).argmax())
    return {
        "patterns": (pooled * 255).round().to(torch.uint8),
        "rows": list(rows),
        "columns": list(columns),
        "parts": list(attention_parts(model)),
        "selected": [most // site.heads, most % site.heads],
    }


def head_scores(
    model: LanguageModel,
    tokenizer: Tokenizer,
    text: str,
    *,
    part: AttentionPart | None = None,
    target: str | None = None,
    prompt: PromptOptions = PromptOptions(),
) -> dict[str, Any]:
    """The type of every head and its score for each type, (L, H, types): see `lens.probes.head_types`."""
    cached = queries_and_keys(model, tokenizer, text, part, target, prompt)
    with inference_mode(model):
        measured = measure_heads(model, tokenizer, cached.passage, part, pattern_pass=cached.map_patterns)
    types = [name for name in THRESHOLDS if name in measured.scores]
    return {
        "names": [list(row) for row in measured.types],
        "kinds": [*types, "unclear"],
        "thresholds": {name: THRESHOLDS[name] for name in types},
        "scores": torch.stack([measured.scores[name] for name in types], -1).float(),
    }


def head_pattern(
    model: LanguageModel,
    tokenizer: Tokenizer,
    text: str,
    *,
    layer: int = -1,
    head: int | None = None,
    part: AttentionPart | None = None,
    target: str | None = None,
    prompt: PromptOptions = PromptOptions(),
) -> dict[str, Any]:
    """One head's attention weights, (T, S); without `head`, those of the layer's most selective one."""
    cached = queries_and_keys(model, tokenizer, text, part, target, prompt)
    with inference_mode(model):
        site = attention_site(model, layer, part)
        weights = cached.pattern(site.layer)
        index = site.resolve_head(head, weights, site.special_keys(cached.passage))
        rows, columns = site.labels(cached.passage)
        caption = attention_caption(site, weights[index], columns)
    return {
        "weights": weights[index].float(),
        "layer": site.layer,
        "head": index,
        "layer_name": site.title,
        "rows": list(rows),
        "columns": list(columns),
        "caption": caption,
    }


def combined_pattern(
    model: LanguageModel,
    tokenizer: Tokenizer,
    text: str,
    *,
    heads: tuple[str, ...] = (),
    reduce: Reduction = "mean",
    part: AttentionPart | None = None,
    target: str | None = None,
    prompt: PromptOptions = PromptOptions(),
) -> dict[str, Any]:
    """The attention weights of several heads combined into one map, (T, S): see `lens.probes.attention`."""
    cached = queries_and_keys(model, tokenizer, text, part, target, prompt)
    selection = select_heads(cached.sites, heads, reduce)
    rows, columns = cached.sites[0].labels(cached.passage)
    with inference_mode(model):
        weights = selection.reduce_layers(
            [selection.reduce_heads(layer, cached.pattern(layer)) for layer in selection.layers]
        )
    return {
        "weights": weights.float(),
        "title": combined_title(selection),
        "rows": list(rows),
        "columns": list(columns),
        "caption": selection.caption(weights, columns),
    }


def edited_pattern(
    model: LanguageModel,
    tokenizer: Tokenizer,
    text: str,
    *,
    layer: int = -1,
    head: int = 0,
    interventions: tuple[str, ...] = (),
    part: AttentionPart | None = None,
    target: str | None = None,
    prompt: PromptOptions = PromptOptions(),
) -> dict[str, Any]:
    """One head's attention weights with and without interventions, both (T, S), and the mask of keys it can see."""
    site, cached = attention_site(model, layer, part), queries_and_keys(model, tokenizer, text, part, target, prompt)
    index = site.resolve_head(head, (before := cached.pattern(site.layer)))
    parsed = [parse_intervention(each) for each in interventions]
    after = pattern_with_interventions(model, tokenizer, cached.passage, site, parsed) if parsed else before
    rows, columns = site.labels(cached.passage)
    return {
        "weights": after[index].float(),
        "before": before[index].float(),
        "visible": visible_keys(site.attention, *before.shape[-2:]),
        "layer": site.layer,
        "head": index,
        "layer_name": site.title,
        "rows": list(rows),
        "columns": list(columns),
    }
