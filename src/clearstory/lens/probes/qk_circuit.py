"""Weights: what a head's matrices look for, before any text is read. Elhage et al. 2021, "the QK circuit".

What a token asks, q = W_q x, and another answers, k = W_k y, meet as x W_qᵀ W_k y / √d: one matrix of rank d at most.
Its singular values and vectors say it all: along each pair of directions (u, v) whoever has much of u looks at whoever
has much of v, and whoever has little of both likewise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from clearstory.errors import BadSetting
from clearstory.lens.hooks.passage import encode_passage
from clearstory.lens.hooks.attention_sites import AttentionPart, AttentionSite, head_rows, kv_head, attention_site, linear_weight
from clearstory.lens.hooks.activations import unwrap_model
from clearstory.lens.views import Cell, Curve, Line, Table, Report
from clearstory.models.prompts import resting
from clearstory.models.stack import Stack

DIRECTIONS = 4
"""Pairs of directions that are shown in words."""


@dataclass(frozen=True)
class QKCircuit:
    """W_qᵀ W_k / √d = asks · diag(singular) · answersᵀ, of one head, greatest singular value first."""

    site: AttentionSite
    head: int
    singular: Float[Tensor, "D"]
    asks: Float[Tensor, "W D"]
    answers: Float[Tensor, "W D"]

    @property
    def effective_rank(self) -> float:
        """How many directions it makes use of: the exponential of the entropy of the singular values' shares.

        Roy and Vetterli 2007, "The effective rank".
        """
        shares = self.singular / self.singular.sum()
        return math.exp(-float(torch.special.xlogy(shares, shares).sum()))


def decompose_qk(model: Any, layer: int = -1, head: int = 0, part: AttentionPart | None = None) -> QKCircuit:
    """A head's W_qᵀ W_k, taken apart, in float64.

    Where queries and keys are normed (`qk_norm`) their gains are in it. Raises BadSetting for a layer or head that is
    not there.
    """
    at = attention_site(model, layer, part)
    if not 0 <= head < at.heads:
        raise BadSetting(f"head is {head}, and the layer has {at.heads}; give 0 to {at.heads - 1}")
    (asking, _), (answering, _) = (linear_weight(map) for map in (at.attention.query, at.attention.key))
    shared = kv_head(at.heads, answering.shape[0] // at.width, head)
    query, key = head_rows(asking, head, at.width).double(), head_rows(answering, shared, at.width).double()
    if at.attention.query_norm is not None and at.attention.key_norm is not None:
        query = query * at.attention.query_norm.weight.detach().double()[:, None]
        key = key * at.attention.key_norm.weight.detach().double()[:, None]
    # Of the small square between two orthonormal bases; of the whole W × W matrix most singular values are zero.
    left, small = torch.linalg.qr(query.mT)
    right, other = torch.linalg.qr(key.mT)
    u, singular, v = torch.linalg.svd(
        small @ other.mT * (at.attention.scale / math.sqrt(at.width)), full_matrices=False
    )
    return QKCircuit(at, head, singular, left @ u, right @ v.mT)


def token_inputs(model: Any, at: AttentionSite) -> tuple[Float[Tensor, "V W"], Float[Tensor, "V W"]]:
    """Every word's vector as the attention would read it if the word were all of the stream: by its queries and by its
    keys, which differ where it looks across. Without places, and without what the blocks before have added.
    """
    network = unwrap_model(model)
    own = foot(network, at.stack)
    asked = at.norm(own) if at.stack.config.norm_first else own
    if at.part != "cross":
        return asked, asked
    source = foot(network, network.encoder)
    return asked, source if network.encoder.norm is None else network.encoder.norm(source)


def foot(network: Any, stack: Stack) -> Float[Tensor, "V W"]:
    """Every word's row of the embedding at the foot of a stack, places and segments left out."""
    rows: Tensor = network.embedding.weight
    if stack.config.embed_scale:
        rows = rows * math.sqrt(stack.config.width)
    return rows if stack.embedding_norm is None else stack.embedding_norm(rows)


def qk_circuit(
    model: Any,
    tokenizer: Any,
    text: str = "",
    *,
    layer: int = -1,
    head: int = 0,
    part: AttentionPart | None = None,
    top: int = 5,
) -> Report:
    """A head's singular values, and the words that lie furthest along its first directions: who asks, who answers.

    The words are those of `text`, or all that the model knows where that is empty.
    """
    if top < 1:
        raise BadSetting(f"top is {top}; show at least 1 word")
    found = decompose_qk(model, layer, head, part)
    with resting(model):
        asked, answered = token_inputs(model, found.site)
        if text:
            read = encode_passage(model, tokenizer, text)
            ids = torch.tensor(sorted({*read.ids, *read.source}), device=asked.device)
        else:
            ids = torch.arange(asked.shape[0], device=asked.device)
        along_asks = asked[ids].double() @ found.asks[:, :DIRECTIONS]
        along_answers = answered[ids].double() @ found.answers[:, :DIRECTIONS]

    def furthest(along: Tensor, sign: int) -> str:
        best = (along * sign).topk(min(top, len(ids))).indices
        return " ".join(tokenizer.display_token(int(ids[place])) for place in best)

    rows: list[tuple[Cell, ...]] = [
        (f"{number + 1}{'+' if sign > 0 else '−'}", float(value), furthest(asks, sign), furthest(answers, sign))
        for number, (value, asks, answers) in enumerate(
            zip(found.singular[:DIRECTIONS], along_asks.mT, along_answers.mT, strict=False)
        )
        for sign in (1, -1)
    ]
    values = tuple(found.singular.tolist())
    return Report(
        title=f"What head {head} of {found.site.words} looks for",
        caption=look(found),
        panels=(
            Curve(
                title="Singular values of W_qᵀ W_k / √d",
                lines=(Line("singular values", tuple(float(place + 1) for place in range(len(values))), values),),
                x_label="direction",
                y_label="singular value",
                caption=f"Effective rank {found.effective_rank:.1f} of {len(values)}: as even as so many equal ones.",
            ),
            Table(
                title="Words furthest along its directions" + (", of this text" if text else ""),
                columns=("direction", "singular value", "who asks", "who answers"),
                rows=tuple(rows),
                caption="Who asks by a direction looks at who answers in the same row.",
            ),
        ),
    )


def look(found: QKCircuit) -> str:
    """How much the first directions hold, and what is not in these numbers."""
    squares = found.singular.square()
    held = float(squares[:DIRECTIONS].sum() / squares.sum())
    at, c = found.site, found.site.stack.config
    _, bias = linear_weight(at.attention.query)
    out = {
        "what blocks before have made of the words": at.layer > 0 or at.part == "cross",
        "turning by place, so this is of two words at one place": at.stack.rotary is not None and at.part != "cross",
        "what is added by place": c.positions in ("learned", "sinusoidal"),
        "biases by distance": at.stack.relative_position_bias is not None and at.part != "cross",
        "the length that queries and keys are brought to": at.attention.query_norm is not None,
        "biases of queries and keys": bias is not None,
    }
    left = [name for name, there in out.items() if there]
    said = f"{min(DIRECTIONS, len(squares))} of {len(squares)} directions hold {held:.0%} of the squares"
    return f"{said}. Left out: {'; '.join(left)}." if left else f"{said}."
