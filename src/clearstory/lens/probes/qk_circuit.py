"""QK circuit of an attention head: the singular value decomposition of its query and key matrices, without any text.

A query q = W_q x and a key k = W_k y meet as x W_qᵀ W_k y / √d, a bilinear form of rank d at most (Elhage et al. 2021,
"the QK circuit"). Along each pair of singular vectors (u, v), tokens with a large component along u attend to tokens
with a large component along v.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from clearstory.errors import BadSetting
from clearstory.lens.hooks.activations import unwrap_model
from clearstory.lens.hooks.attention_sites import (
    AttentionPart,
    AttentionSite,
    attention_site,
    head_rows,
    kv_head,
    linear_weight,
)
from clearstory.lens.hooks.passage import encode_passage
from clearstory.lens.views import Cell, Curve, Line, Report, Table
from clearstory.models.base import LanguageModel, inference_mode
from clearstory.models.prompts import PromptOptions
from clearstory.models.transformer.encoder_decoder import EncoderDecoder
from clearstory.models.transformer.stack import Stack
from clearstory.text.tokenizers import Tokenizer

SHOWN_DIRECTIONS = 4
"""Pairs of singular vectors for which tokens are listed."""


@dataclass(frozen=True)
class QKCircuit:
    """W_qᵀ W_k / √d = queries · diag(singular) · keysᵀ of one head, largest singular value first."""

    site: AttentionSite
    head: int
    singular: Float[Tensor, "D"]
    queries: Float[Tensor, "W D"]
    keys: Float[Tensor, "W D"]

    @property
    def effective_rank(self) -> float:
        """The exponential of the entropy of the normalised singular values. Roy and Vetterli 2007."""
        shares = self.singular / self.singular.sum()
        return math.exp(-float(torch.special.xlogy(shares, shares).sum()))


def qk_circuit(
    model: LanguageModel,
    tokenizer: Tokenizer,
    text: str = "",
    *,
    layer: int = -1,
    head: int = 0,
    part: AttentionPart | None = None,
    top: int = 5,
    prompt: PromptOptions = PromptOptions(),
) -> Report:
    """A head's singular values, and the tokens with the largest components along its first pairs of directions.

    The tokens are those of `text`, or the whole vocabulary for an empty text.
    """
    if top < 1:
        raise BadSetting(f"top is {top}; show at least 1 token")
    circuit = decompose_qk(model, layer, head, part)
    with inference_mode(model):
        query_inputs, key_inputs = token_inputs(model, circuit.site)
        if text:
            passage = encode_passage(model, tokenizer, text, prompt=prompt)
            ids = torch.tensor(sorted({*passage.ids, *passage.source}), device=query_inputs.device)
        else:
            ids = torch.arange(query_inputs.shape[0], device=query_inputs.device)
        along_queries = query_inputs[ids].double() @ circuit.queries[:, :SHOWN_DIRECTIONS]
        along_keys = key_inputs[ids].double() @ circuit.keys[:, :SHOWN_DIRECTIONS]

    def farthest_tokens(along: Tensor, sign: int) -> str:
        best = (along * sign).topk(min(top, len(ids))).indices
        return " ".join(tokenizer.display_token(int(ids[index])) for index in best)

    rows: list[tuple[Cell, ...]] = [
        (
            f"{number + 1}{'+' if sign > 0 else '−'}",
            float(value),
            farthest_tokens(queries, sign),
            farthest_tokens(keys, sign),
        )
        for number, (value, queries, keys) in enumerate(
            zip(circuit.singular[:SHOWN_DIRECTIONS], along_queries.mT, along_keys.mT, strict=False)
        )
        for sign in (1, -1)
    ]
    values = tuple(circuit.singular.tolist())
    return Report(
        title=f"QK circuit of head {head} of {circuit.site.title}",
        caption=circuit_caption(circuit),
        panels=(
            Curve(
                title="Singular values of W_qᵀ W_k / √d",
                lines=(Line("singular values", tuple(float(index + 1) for index in range(len(values))), values),),
                x_label="direction",
                y_label="singular value",
                caption=f"Effective rank {circuit.effective_rank:.1f} of {len(values)}.",
            ),
            Table(
                title="Tokens with the largest components" + (", of this text" if text else ""),
                columns=("direction", "singular value", "queries", "keys"),
                rows=tuple(rows),
                caption="In each row, the tokens under queries attend to the tokens under keys.",
            ),
        ),
    )


def circuit_caption(circuit: QKCircuit) -> str:
    """The share of the first directions, and the terms of the attention scores that the decomposition leaves out."""
    squares = circuit.singular.square()
    share = float(squares[:SHOWN_DIRECTIONS].sum() / squares.sum())
    site, c = circuit.site, circuit.site.stack.config
    _, bias = linear_weight(site.attention.query)
    omitted = {
        "the outputs of the layers before": site.layer > 0 or site.part == "cross",
        "rotary embedding (both tokens at the same position)": site.stack.rotary is not None and site.part != "cross",
        "position embeddings": c.positions in ("learned", "sinusoidal"),
        "relative position biases": site.stack.relative_position_bias is not None and site.part != "cross",
        "the norm of queries and keys": site.attention.query_norm is not None,
        "biases of queries and keys": bias is not None,
    }
    names = [name for name, present in omitted.items() if present]
    text = f"{min(SHOWN_DIRECTIONS, len(squares))} of {len(squares)} directions hold {share:.0%} of the squared norm"
    return f"{text}. Not included: {'; '.join(names)}." if names else f"{text}."


def decompose_qk(model: LanguageModel, layer: int = -1, head: int = 0, part: AttentionPart | None = None) -> QKCircuit:
    """Singular value decomposition of a head's W_qᵀ W_k / √d, in float64.

    Gains of query and key norms (`qk_norm`) are included. Raises BadSetting for a layer or head that does not exist.
    """
    site = attention_site(model, layer, part)
    if not 0 <= head < site.heads:
        raise BadSetting(f"head is {head}, and the layer has {site.heads}; give 0 to {site.heads - 1}")
    (all_queries, _), (all_keys, _) = (linear_weight(map) for map in (site.attention.query, site.attention.key))
    shared = kv_head(site.heads, all_keys.shape[0] // site.head_dim, head)
    query = head_rows(all_queries, head, site.head_dim).double()
    key = head_rows(all_keys, shared, site.head_dim).double()
    if site.attention.query_norm is not None and site.attention.key_norm is not None:
        query = query * site.attention.query_norm.gain.detach().double()[:, None]
        key = key * site.attention.key_norm.gain.detach().double()[:, None]
    # The SVD of a D × D matrix between two orthonormal bases; most singular values of the W × W matrix are zero.
    left, small = torch.linalg.qr(query.mT)
    right, other = torch.linalg.qr(key.mT)
    u, singular, v = torch.linalg.svd(
        small @ other.mT * (site.attention.scale / math.sqrt(site.head_dim)), full_matrices=False
    )
    return QKCircuit(site, head, singular, left @ u, right @ v.mT)


def token_inputs(model: LanguageModel, site: AttentionSite) -> tuple[Float[Tensor, "V W"], Float[Tensor, "V W"]]:
    """The input of an attention for every token if its embedding were the whole residual stream: for queries and keys.

    The two differ in cross-attention. Position embeddings and the outputs of lower blocks are left out.
    """
    network = unwrap_model(model)
    vectors = scaled_embeddings(network, site.stack)
    queries = site.norm(vectors) if site.stack.config.norm_first else vectors
    if site.part != "cross":
        return queries, queries
    source = scaled_embeddings(network, network.encoder)
    return queries, source if network.encoder.norm is None else network.encoder.norm(source)


def scaled_embeddings(network: Stack | EncoderDecoder, stack: Stack) -> Float[Tensor, "V W"]:
    """Every token's embedding as a stack's first block receives it, without position and segment embeddings."""
    rows: Tensor = network.embedding.weight
    if stack.config.embed_scale:
        rows = rows * math.sqrt(stack.config.width)
    return rows if stack.embedding_norm is None else stack.embedding_norm(rows)
