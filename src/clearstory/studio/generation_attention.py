"""Attended: how much the newest token of a text that is being written takes from each one before it."""

from __future__ import annotations

from typing import Any

from clearstory.lens.probes.attention import attention_weights
from clearstory.lens.hooks.passage import Passage
from clearstory.lens.hooks.attention_sites import AttentionPart, attention_parts, attention_site
from clearstory.models.encoder import Encoder
from clearstory.models.prompts import fit_prompt, fit_source
from clearstory.recipes.inference.prompt_format import PromptFormat
from clearstory.studio.generation_session import check_generated_ids, context_window


def generation_attention(
    model: Any,
    tokenizer: Any,
    text: str,
    *,
    written: tuple[int, ...] = (),
    layer: int = -1,
    head: int | None = None,
    part: AttentionPart | None = None,
) -> dict[str, Any]:
    """The last row of a head's weights, (S,), after a prompt and what was written; the mean over heads without `head`.

    It is the row of the newest token as the model reads it, which is what the next is chosen from. Of an
    encoder-decoder the decoder's, unless `part` is cross: how it looks across at the source. A context that was full
    has begun anew, as in writing. Raises CannotDo for a model without attention, and for an encoder.
    """
    own = attention_parts(model)
    if isinstance(model, Encoder):
        model.cannot_go_on()
    at = attention_site(model, layer, part or ("decoder" if "decoder" in own else None))
    prompt_format = PromptFormat.of(model, tokenizer, None)
    prompt, source = prompt_format.encode(tokenizer, text)
    first = fit_prompt(model, prompt, prompt_format.start_token_id)
    ids = list(context_window(model, len(first), [*first, *check_generated_ids(model, written)]))
    sources = fit_source(model, source)
    pieces = tuple(tokenizer.display_token(id) for id in ids)
    read = Passage(tuple(ids), pieces, tuple(sources), tuple(tokenizer.display_token(id) for id in sources))
    weights = attention_weights(model, read, at)
    if head is not None:
        head = at.head(head, weights)
    row = (weights.mean(0) if head is None else weights[head])[-1].double()
    _, columns = at.reads(read)
    seen = sources if at.part == "cross" else ids
    order = row.argsort(descending=True, stable=True).tolist()
    best = order[0]
    away = "" if at.part == "cross" else f", {len(ids) - 1 - best} back" if best < len(ids) - 1 else ", which is itself"
    who = f"head {head}" if head is not None else f"the mean of {at.heads} heads"
    return {
        "weights": row.float(),
        "labels": list(columns),
        "ids": list(seen),
        "pieces": [tokenizer.display_token(id) for id in seen],
        "query": read.labels[-1],
        "layer": at.layer,
        "layers": len(at.stack.blocks),
        "head": head,
        "heads": at.heads,
        "part": at.part,
        "parts": [each for each in own if each != "encoder"],
        "caption": (
            f"In {at.words}, {who}: ‘{read.labels[-1]}’ takes {float(row[best]):.0%} from ‘{columns[best]}’{away}. "
            f"Half of its weight lies on {count_holding(row[order].tolist())} of {len(columns)} tokens."
        ),
    }


def count_holding(weights: list[float], share: float = 0.5) -> int:
    """How many of the largest weights hold a share of all.

    >>> enough([0.4, 0.3, 0.2, 0.1])
    2
    """
    held, count = 0.0, 0
    while held < share * sum(weights):
        held, count = held + weights[count], count + 1
    return count
