"""Retrieval: rank of the correct answer of each query by cosine similarity, and metrics of ranks."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from clearstory.evaluation.classification import Floats

BLOCK = 1024
"""Number of queries whose cosines with all candidates are in memory at the same time."""


def retrieval_metrics(ranks: Floats) -> dict[str, float]:
    """mrr (mean reciprocal rank) and accuracy_at_1 of ranks counted from 1, (N,).

    >>> import numpy as np
    >>> retrieval_metrics(np.array([1.0, 2.0, 4.0, 1.0]))  # (1 + 1/2 + 1/4 + 1) / 4
    {'mrr': 0.6875, 'accuracy_at_1': 0.5}
    """
    return {"mrr": float((1 / ranks).mean()), "accuracy_at_1": float((ranks == 1).mean())}


def rank_positives(
    anchors: Float[Tensor, "N W"],
    positives: Float[Tensor, "N W"],
    anchor_keys: Int[Tensor, "N"],
    positive_keys: Int[Tensor, "N"],
    scale: float = 1.0,
) -> tuple[Float[Tensor, "N"], Int[Tensor, "N"], Int[Tensor, "N"]]:
    """For each anchor the cross-entropy of its positive among all different ones by `scale` times the cosine, the rank
    of that positive from 1, and the index of the nearest one, (N,) each.

    Texts are the same if their keys are. Of an anchor with several positives, the others are left out, as is a positive
    that is the anchor itself. Of equal cosines the right one is ranked last.

    >>> anchors, keys = torch.eye(2), torch.tensor([0, 1])
    >>> rank_positives(anchors, torch.tensor([[1.0, 0.0], [1.0, 0.5]]), keys, keys + 2)[1].tolist()
    [1, 1]
    """
    _, numbers = torch.unique(positive_keys, return_inverse=True)
    candidates = torch.full((int(numbers.max()) + 1,), len(numbers)).scatter_reduce(
        0, numbers, torch.arange(len(numbers)), "amin"
    )
    directions = F.normalize(positives[candidates], dim=-1)
    number_of = dict(zip(positive_keys.tolist(), numbers.tolist(), strict=True))
    left_out: dict[int, set[int]] = {}
    for anchor, number in zip(anchor_keys.tolist(), numbers.tolist(), strict=True):
        left_out.setdefault(anchor, {number_of[anchor]} if anchor in number_of else set()).add(number)
    losses, ranks, nearest = [], [], []
    for start in range(0, len(anchors), BLOCK):
        cosines = F.normalize(anchors[start : start + BLOCK], dim=-1) @ directions.T
        lines, own = torch.arange(len(cosines)), numbers[start : start + BLOCK]
        excluded = torch.zeros_like(cosines, dtype=torch.bool)
        for line, anchor in enumerate(anchor_keys[start : start + BLOCK].tolist()):
            excluded[line, list(left_out[anchor])] = True
        excluded[lines, own] = False
        cosines = cosines.masked_fill(excluded, float("-inf"))
        losses.append(F.cross_entropy(scale * cosines, own, reduction="none"))
        ranks.append((cosines >= cosines[lines, own][:, None]).sum(1))
        nearest.append(candidates[cosines.argmax(1)])
    return torch.cat(losses), torch.cat(ranks), torch.cat(nearest)
