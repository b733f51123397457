"""Attention of the newest token during generation, to every token before it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jaxtyping import Float
from torch import Tensor

from clearstory.generation.prompt_format import PromptFormat
from clearstory.lens.hooks.attention_sites import (
    AttentionPart,
    AttentionSite,
    attention_parts,
    attention_site,
    attention_weights,
)
from clearstory.lens.hooks.passage import Passage
from clearstory.models.base import LanguageModel
from clearstory.models.capabilities import Capability, require
from clearstory.models.prompts import PromptOptions, prepare_prompt, prepare_source
from clearstory.studio.generation_session import check_generated_ids, context_window
from clearstory.text.tokenizers import Tokenizer


def newest_token_attention(
    model: LanguageModel,
    tokenizer: Tokenizer,
    text: str,
    *,
    generated: tuple[int, ...] = (),
    layer: int = -1,
    head: int | None = None,
    part: AttentionPart | None = None,
    prompt: PromptOptions = PromptOptions(),
) -> dict[str, Any]:
    """The last query's attention weights after a prompt and the generated tokens, (S,); without `head`, their mean.

    This is the row of the newest token, from whose hidden state the next token is predicted. For an encoder-decoder it
    is the decoder's self-attention, or with part "cross" its attention to the source. After the context was full, it
    covers the shortened context, as in generation. Raises CannotDo for a model without attention and for an encoder.
    """
    available = attention_parts(model)
    require(model, Capability.CAUSAL)
    site = attention_site(model, layer, part or ("decoder" if "decoder" in available else None))
    passage = generated_passage(model, tokenizer, text, generated, prompt)
    weights = attention_weights(model, passage, site)
    if head is not None:
        head = site.resolve_head(head, weights)
    row = (weights.mean(0) if head is None else weights[head])[-1].double()
    _, columns = site.labels(passage)
    ids = passage.source if site.part == "cross" else passage.ids
    return {
        "weights": row.float(),
        "labels": list(columns),
        "ids": list(ids),
        "pieces": [tokenizer.display_token(id) for id in ids],
        "query": passage.labels[-1],
        "layer": site.layer,
        "layers": len(site.stack.blocks),
        "head": head,
        "heads": site.heads,
        "part": site.part,
        "parts": [each for each in available if each != "encoder"],
        "caption": newest_token_caption(site, passage, row, columns, head),
    }


def generated_passage(
    model: LanguageModel, tokenizer: Tokenizer, text: str, generated: Sequence[int], options: PromptOptions
) -> Passage:
    """The prompt and the generated tokens as the model processes them, cut to its context."""
    prompt_format = PromptFormat.of(model, tokenizer, None, options=options)
    prompt, source = prompt_format.encode(tokenizer, text)
    first = prepare_prompt(model, prompt, prompt_format.start_token_id)
    ids = context_window(model, len(first), [*first, *check_generated_ids(model, generated)])
    sources = prepare_source(model, source)
    pieces, source_pieces = (tuple(tokenizer.display_token(id) for id in each) for each in (ids, sources))
    return Passage(tuple(ids), pieces, tuple(sources), source_pieces)


def newest_token_caption(
    site: AttentionSite, passage: Passage, row: Float[Tensor, "S"], columns: Sequence[str], head: int | None
) -> str:
    """Which token the newest one attends to most, and how many tokens hold half of its attention."""
    order = row.argsort(descending=True, stable=True).tolist()
    best, newest = order[0], len(passage.ids) - 1
    distance = "" if site.part == "cross" else f", {newest - best} tokens back" if best < newest else ", itself"
    source = f"head {head}" if head is not None else f"mean of {site.heads} heads"
    return (
        f"In {site.title}, {source}: ‘{passage.labels[-1]}’ puts {float(row[best]):.0%} of its attention on "
        f"‘{columns[best]}’{distance}. Half of it is on {count_holding(row[order].tolist())} of {len(columns)} tokens."
    )


def count_holding(weights: Sequence[float], share: float = 0.5) -> int:
    """The number of largest weights whose sum is a share of the total, for weights in descending order.

    >>> count_holding([0.4, 0.3, 0.2, 0.1])
    2
    """
    total, count = 0.0, 0
    while total < share * sum(weights):
        total, count = total + weights[count], count + 1
    return count
