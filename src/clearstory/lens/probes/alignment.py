"""Alignment: which source tokens a decoder attended to when it predicted each target token.

Bahdanau et al. 2015, figure 3; of a Transformer the mean of all heads of its last cross-attention but one, as in Garg
et al. 2019, section 4.1.
"""

from __future__ import annotations

from clearstory.errors import BadInput
from clearstory.lens.hooks.attention_sites import attention_site, attention_sites, attention_weights
from clearstory.lens.hooks.passage import encode_passage, number_duplicates
from clearstory.lens.views import Grid
from clearstory.models.base import LanguageModel
from clearstory.models.prompts import PromptOptions, Truncation
from clearstory.text.tokenizers import Tokenizer


def alignment(
    model: LanguageModel,
    tokenizer: Tokenizer,
    text: str,
    *,
    target: str | None = None,
    layer: int | None = None,
    head: int | None = None,
    truncate: Truncation | None = None,
    prompt: PromptOptions = PromptOptions(),
) -> Grid:
    """Cross-attention weights of a layer, the mean of its heads or one of them; the last layer but one by default.

    Rows are the target's tokens and its end, each in the row of the weights it was predicted with, those of the token
    before as `attention` shows them; columns are the source's tokens. Raises BadInput without a target.
    """
    if target is None:
        raise BadInput("an alignment needs a source and a target; give the target with --target")
    passage = encode_passage(model, tokenizer, text, target=target, truncate=truncate, prompt=prompt)
    count = len(attention_sites(model, "cross"))
    site = attention_site(model, max(0, count - 2) if layer is None else layer, "cross")
    weights = attention_weights(model, passage, site)
    if head is not None:
        site.check_head(head)
        weights = weights[head, None]
    end = "" if tokenizer.eos_token_id is None else tokenizer.display_token(tokenizer.eos_token_id)
    where = site.title.removesuffix(", cross-attention")
    mean = weights.double().mean(0)
    heads = "" if site.heads == 1 else f", head {head}" if head is not None else f", mean of {site.heads} heads"
    entropy = -(mean.clamp(min=1e-30).log() * mean).sum(-1).mean()
    return Grid(
        title=f"Alignment of target and source: cross-attention, {where}{heads}",
        row_labels=number_duplicates((*passage.pieces[1:], end)),
        column_labels=passage.source_labels,
        values=tuple(map(tuple, mean.tolist())),
        unit="weight",
        caption=(
            "Each row: the source tokens that a target token was predicted from. Mean maximum weight "
            f"{float(mean.amax(-1).mean()):.0%}; on average an effective number of {float(entropy.exp()):.1f} of "
            f"{len(passage.source)} tokens (exponential of the entropy)."
        ),
    )
