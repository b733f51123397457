"""Attention: who looks at whom, in one head. Vaswani et al. 2017, eq. 1: the softmax of Q Kᵀ / √d under the mask."""

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from clearstory.errors import BadSetting, CannotDo
from clearstory.lens.views import Grid
from clearstory.models.arithmetic import rotate
from clearstory.models.base import Padded
from clearstory.models.block import band
from clearstory.models.encoder import Encoder
from clearstory.text.framing import framed


@torch.no_grad()
def attention_weights(model: Any, ids: list[int], layer: int) -> Float[Tensor, "H T T"]:
    """How much each token (row) takes from each it may see (column), for all heads of a layer; rows sum to 1.

    torch's fused attention gives no weights, so they are computed from the very queries and keys that it was given.
    """
    blocks = getattr(model, "blocks", None)
    if blocks is None:
        raise CannotDo(f"a {type(model).__name__} has no attention; look at its next-token probabilities: --view next")
    if not -len(blocks) <= layer < len(blocks):
        raise BadSetting(f"layer is {layer}, and the model has {len(blocks)}; give 0 to {len(blocks) - 1}")
    attention = blocks[layer].attention
    seen: dict[str, Tensor] = {}
    handle = attention.register_forward_pre_hook(lambda _, args: seen.update(x=args[0]))
    try:
        model.read(Padded.rows([ids], device=next(model.parameters()).device))
    finally:
        handle.remove()
    q, k = (part(seen["x"]).unflatten(-1, (-1, attention.head_width)) for part in (attention.query, attention.key))
    if attention.query_norm is not None:
        q, k = attention.query_norm(q), attention.key_norm(k)
    if model.rotary is not None:
        turn = model.rotary.at(slice(0, len(ids)), q.dtype)
        q, k = rotate(q, turn), rotate(k, turn)
    q, k = q[0].transpose(0, 1), k[0].transpose(0, 1)
    k = k.repeat_interleave(q.shape[0] // k.shape[0], 0)
    scores = q @ k.mT / math.sqrt(attention.head_width)
    if attention.causal:
        scores = scores.masked_fill(~band(len(ids), len(ids), attention.window, scores.device), -torch.inf)
    weights: Tensor = scores.softmax(-1)
    return weights


def attention(model: Any, tokenizer: Any, text: str, *, layer: int = -1, head: int | None = None) -> Grid:
    """The attention of one head over a text; of the most decided head of the layer when none is named."""
    ids = tokenizer.encode(text)
    if not ids:
        raise BadSetting("the text is empty; give a few words to look at")
    both_ways = isinstance(model, Encoder)
    ids = framed(tokenizer, ids)[0] if both_ways else ids
    weights = attention_weights(model, ids, layer)
    heads = weights.shape[0]
    if head is not None and not 0 <= head < heads:
        raise BadSetting(f"head is {head}, and the layer has {heads}; give 0 to {heads - 1}")
    # Mean weight of each row's favourite, the first row left out: it has no choice.
    decided = weights[:, 1:].amax(-1).mean(-1) if len(ids) > 1 else weights[:, :1].amax(-1).mean(-1)
    head = int(decided.argmax()) if head is None else head
    labels = tuple(tokenizer.piece(i) for i in ids)
    number = layer if layer >= 0 else layer + len(model.blocks)
    back = (weights[head] * (torch.arange(len(ids))[:, None] - torch.arange(len(ids))).abs()).sum(-1).mean()
    return Grid(
        title=f"Attention of layer {number}, head {head}: each row takes from the columns",
        row_labels=labels,
        column_labels=labels,
        values=tuple(tuple(row) for row in weights[head].tolist()),
        unit="weight",
        look=f"each token takes {float(decided[head]):.0%} from its favourite "
        f"and looks {float(back):.1f} tokens {'away' if both_ways else 'back'} on average",
    )
