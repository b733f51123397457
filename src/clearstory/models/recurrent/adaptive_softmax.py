"""Adaptive softmax: rare tokens are in clusters, which are predicted first. Grave et al. 2017, section 4.

The head holds the most frequent tokens and one entry for each cluster; for a token in a cluster, p(token) = p(cluster)
p(token | cluster). In training only the clusters that occur are computed; the whole distribution is the same formula
for every token. Unlike in the paper, output vectors of rare tokens are as long as the others, so that they can be tied
to the embedding (Merity et al. 2018b, section 3.3).
"""

from __future__ import annotations

from itertools import pairwise

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from clearstory.models import cross_entropy


def adaptive_cross_entropy(
    hidden: Float[Tensor, "*D W"],
    weight: Float[Tensor, "V W"],
    targets: Int[Tensor, "*D"],
    cutoffs: tuple[int, ...],
    cluster_embeddings: Float[Tensor, "C W"] | None,
) -> Float[Tensor, "*D"]:
    """Negative log-likelihood of each target in nats, (...); 0 where it is IGNORE_INDEX.

    Without `cluster_embeddings` (one vector for each cluster) this is the plain softmax.

    >>> weight, clusters = torch.zeros(8, 4), torch.zeros(1, 4)  # 3 tokens and a cluster: 4 entries; 5 tokens in it
    >>> adaptive_cross_entropy(torch.ones(2, 4), weight, torch.tensor([0, 5]), (3,), clusters).exp()
    tensor([ 4., 20.])
    """
    if cluster_embeddings is None:
        return cross_entropy.linear_cross_entropy(hidden, weight, targets)
    flat, wanted = hidden.reshape(-1, hidden.shape[-1]), targets.flatten()
    # Split, not sliced: the gradient of a split is one copy of the parts, that of slices a whole table for each.
    head, *clusters = torch.split(weight, cluster_sizes(cutoffs, len(weight)))
    # 0 is the head, of IGNORE_INDEX too.
    cluster = torch.bucketize(wanted, torch.tensor(cutoffs, device=wanted.device), right=True)
    head_targets = torch.where(cluster > 0, cutoffs[0] + cluster - 1, wanted)
    nll = cross_entropy.linear_cross_entropy(flat, torch.cat([head, cluster_embeddings]), head_targets)
    for number, (start, vectors) in enumerate(zip(cutoffs, clusters, strict=True), start=1):
        indices = (cluster == number).nonzero().squeeze(1)
        if len(indices):
            own = cross_entropy.linear_cross_entropy(flat[indices], vectors, wanted[indices] - start)
            nll = nll.index_add(0, indices, own)
    return nll.view(targets.shape)


def adaptive_log_probs(
    hidden: Float[Tensor, "*D W"],
    weight: Float[Tensor, "V W"],
    cutoffs: tuple[int, ...],
    cluster_embeddings: Float[Tensor, "C W"],
) -> Float[Tensor, "*D V"]:
    """Log-probability of every token under the adaptive softmax, (..., V)."""
    head, *clusters = torch.split(weight.to(hidden.dtype), cluster_sizes(cutoffs, len(weight)))
    first = F.log_softmax(F.linear(hidden, torch.cat([head, cluster_embeddings.to(hidden.dtype)])), -1)
    rest = [
        first[..., cutoffs[0] + number, None] + F.log_softmax(F.linear(hidden, vectors), -1)
        for number, vectors in enumerate(clusters)
    ]
    return torch.cat([first[..., : cutoffs[0]], *rest], -1)


def cluster_sizes(cutoffs: tuple[int, ...], vocab: int) -> list[int]:
    """Number of tokens in the head and in each cluster."""
    ends = (0, *cutoffs, vocab)
    return [high - low for low, high in pairwise(ends)]
