"""Pooling of the hidden states of each text into one vector. Reimers and Gurevych 2019, section 3."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from clearstory.models.base import TokenBatch

PoolingName = Literal["cls", "lasttoken", "mean", "max", "mean_sqrt_len", "weightedmean"]
"""cls: the hidden state of the first token; lasttoken: that of the last one; mean of all; max: the largest value of
each dimension; mean_sqrt_len: the sum over the root of the number of tokens; weightedmean: a mean with the weights 1,
2, 3 ...
"""

POOLING_NAMES: tuple[str, ...] = get_args(PoolingName)


def pool(
    hidden: Float[Tensor, "B T W"], tokens: TokenBatch, pooling: str = "mean", skipped: int = 0
) -> Float[Tensor, "B W"]:
    """One vector for each text, in fp32 at least. Padding, and the first `skipped` tokens, are left out of all but cls.

    >>> hidden = torch.tensor([[[1.0, 8.0], [3.0, 4.0]]])
    >>> tokens = TokenBatch(torch.zeros(1, 2, dtype=torch.long))
    >>> [pool(hidden, tokens, name).tolist() for name in ("mean", "max", "lasttoken")]
    [[[2.0, 6.0]], [[3.0, 8.0]], [[3.0, 4.0]]]
    """
    wide = hidden.to(torch.promote_types(hidden.dtype, torch.float32))
    if pooling == "cls":
        return wide[:, 0]
    if pooling == "lasttoken":
        return wide[torch.arange(len(wide), device=wide.device), tokens.last_positions()]
    positions = torch.arange(wide.shape[1], device=wide.device)
    lengths = (tokens.last_positions() + 1).unsqueeze(-1)
    mask = ((positions < lengths) & (positions >= skipped)).unsqueeze(-1)
    if pooling == "max":
        return wide.masked_fill(~mask, -1e9).amax(1)
    weights = mask * (positions + 1).unsqueeze(-1) if pooling == "weightedmean" else mask
    total, count = (wide * weights).sum(1), weights.sum(1).clamp(min=1)
    return total / (count.to(total).sqrt() if pooling == "mean_sqrt_len" else count)
