"""Losses of sentence vectors, a value for each example: multiple negatives ranking, cosine similarity, triplet."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F


def multiple_negatives_ranking(
    anchors: Float[Tensor, "B W"],
    candidates: Float[Tensor, "C W"],
    excluded: Bool[Tensor, "B C"],
    scale: float = 20.0,
    *,
    symmetric: bool = False,
) -> Float[Tensor, "B"]:
    """Cross-entropy of each anchor's own positive among all candidates, by their cosines. Henderson et al. 2017, eq. 6.

    Candidates are the positives of all anchors, in order, followed by the negatives; `excluded` candidates are not
    negatives of an anchor. symmetric: the mean with the cross-entropy of each positive's own anchor among all anchors.
    """
    logits = scale * F.normalize(anchors, dim=-1) @ F.normalize(candidates, dim=-1).T
    logits = logits.masked_fill(excluded, float("-inf"))
    own = torch.arange(len(anchors), device=anchors.device)
    nats = F.cross_entropy(logits, own, reduction="none")
    if symmetric:
        nats = (nats + F.cross_entropy(logits[:, : len(anchors)].T, own, reduction="none")) / 2
    return nats


def false_negatives(
    anchors: Int[Tensor, "B"], positives: Int[Tensor, "B"], candidates: Int[Tensor, "C"]
) -> Bool[Tensor, "B C"]:
    """Whether a candidate is a false negative of an anchor, by the keys of texts: the anchor itself, and other
    positives of the same anchor, except each anchor's own positive at its own index.

    >>> anchors, positives = torch.tensor([1, 1, 2]), torch.tensor([5, 6, 5])
    >>> false_negatives(anchors, positives, positives).int().tolist()  # 6 belongs to anchor 1, too; 5 is there twice
    [[0, 1, 1], [1, 0, 1], [1, 0, 0]]
    """
    same_anchor = (anchors[:, None] == anchors).float()
    is_positive = (positives[:, None] == candidates).float()
    found = (same_anchor @ is_positive > 0) | (anchors[:, None] == candidates)
    own = torch.arange(len(anchors), device=anchors.device)
    found[own, own] = False
    return found


def cosine_similarity(
    anchors: Float[Tensor, "B W"], positives: Float[Tensor, "B W"], scores: Float[Tensor, "B"]
) -> Float[Tensor, "B"]:
    """Squared error of the cosine and the score. Reimers and Gurevych 2019, section 3."""
    return (F.cosine_similarity(anchors, positives) - scores) ** 2


def triplet(
    anchors: Float[Tensor, "B W"], positives: Float[Tensor, "B W"], negatives: Float[Tensor, "B W"], margin: float = 1.0
) -> Float[Tensor, "B"]:
    """max(0, |a - p| - |a - n| + margin). Reimers and Gurevych 2019, section 3."""
    return F.relu(F.pairwise_distance(anchors, positives) - F.pairwise_distance(anchors, negatives) + margin)
