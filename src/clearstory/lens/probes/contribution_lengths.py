"""Contribution lengths: how much attention carries from one token to another, and the head that shows it best.

What head h carries from token j to token i is weight_h[i, j] · W_O,h · value_h[j]; the sum over all j and heads, and
the bias, is the output of attention (Elhage et al. 2021). The length of the sum over the heads alone says how much of
i's vector came from j (Kobayashi et al. 2020, "Attention is Not Only a Weight").
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from clearstory.lens.hooks.attention_sites import AttentionSite, linear_weight
from clearstory.models.autograd_functions import RMSNorm


def values_in_stream(site: AttentionSite, value: Float[Tensor, "K S D"]) -> Float[Tensor, "H S W"]:
    """Each head's value of each token times the head's columns of the output matrix."""
    weight, _ = linear_weight(site.attention.output)
    columns = weight.to(value.dtype).view(weight.shape[0], site.heads, site.head_dim)
    return torch.einsum("hsd,whd->hsw", value.repeat_interleave(site.heads // len(value), 0), columns)


def attention_output(
    site: AttentionSite, pattern: Float[Tensor, "H T S"], carried: Float[Tensor, "H S W"]
) -> Float[Tensor, "T W"]:
    """The sum of what all heads carry, and the bias, before a norm of the output where the model has one."""
    _, bias = linear_weight(site.attention.output)
    total = torch.einsum("hts,hsw->tw", pattern, carried)
    return total if bias is None else total + bias.to(total)


def contribution_lengths(
    site: AttentionSite, pattern: Float[Tensor, "H T S"], carried: Float[Tensor, "H S W"]
) -> Float[Tensor, "T S"]:
    """‖Σ over heads of what they carry from token j to token i‖, by i and j.

    Where the model normalises the output of attention, each part has the scale of the actual output. No tensor has
    T · S · W values.
    """
    scale = None
    if (norm := site.attention.output_norm) is not None:
        output = attention_output(site, pattern, carried)
        if isinstance(norm, RMSNorm):
            carried, spread = carried * norm.gain.detach().to(carried), output.square().mean(-1)
        else:
            carried = (carried - carried.mean(-1, keepdim=True)) * norm.weight.detach().to(carried)
            spread = output.var(-1, correction=0)
        scale = (spread + norm.eps).rsqrt().double()
    # A key's vectors (H, W) as coordinates (H, H) with the same products, so that the sums are short.
    products = torch.einsum("hsw,gsw->shg", carried.double(), carried.double())
    sizes, axes = torch.linalg.eigh(products)
    coordinates = (axes * sizes.clamp(min=0).sqrt()[:, None]).to(pattern.dtype)
    lengths: Tensor = (pattern.permute(2, 1, 0).contiguous() @ coordinates).norm(dim=-1).mT.double()
    return lengths if scale is None else lengths * scale[:, None]


def head_clarity(
    site: AttentionSite, pattern: Float[Tensor, "H T S"], special: Sequence[bool] = ()
) -> Float[Tensor, "H"]:
    """How well each head shows what attention does: `AttentionSite.selectivity`, which is about the words, times the
    mean weights that are not on the first token, and that are not on the token before.

    Means are over the queries with a choice, those that see two keys or more; in cross-attention the token before does
    not count. A head that rests on the first token or copies from the token before has next to none.
    """
    score = site.selectivity(pattern, special)
    choice = site.visible_counts(pattern) > 1
    if not bool(choice.any()):
        return score
    score = score * (1 - pattern[:, choice, 0].mean(-1))
    if site.part != "cross":
        previous = pattern.diagonal(-1, -2, -1)
        score = score * (1 - previous[:, choice[1:]].mean(-1))
    return score
