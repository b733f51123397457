"""Softmax over a vocabulary: plain, or adaptive, where rare words stand in parts that are asked for by name.

Grave et al. 2017, section 4: the head holds the most frequent words and a name for each rarer part; a word there has
p(word) = p(part) p(word | part). In training only the parts that occur are computed; the whole distribution is the same
formula, for every word. Unlike theirs the rows of rare words are as long as the others, so that they can be tied to the
embedding (Merity et al. 2018b, section 3.3).
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
    names: Float[Tensor, "C W"] | None,
) -> Float[Tensor, "*D"]:
    """Nats of each target, 0 where it is IGNORE_INDEX. `names` has a vector for each part behind a cutoff.

    >>> weight, names = torch.zeros(8, 4), torch.zeros(1, 4)
    >>> adaptive_cross_entropy(torch.ones(2, 4), weight, torch.tensor([0, 5]), (3,), names).exp()  # 3 words and a part: 4; 5 words in it
    tensor([ 4., 20.])
    """
    if names is None:
        return cross_entropy.linear_cross_entropy(hidden, weight, targets)
    flat, wanted = hidden.reshape(-1, hidden.shape[-1]), targets.flatten()
    # Split, not sliced: the gradient of a split is one copy of the parts, that of slices a whole table for each.
    head, *parts = torch.split(weight, part_sizes(cutoffs, len(weight)))
    part = torch.bucketize(
        wanted, torch.tensor(cutoffs, device=wanted.device), right=True
    )  # 0 is the head; IGNORE_INDEX too
    total = cross_entropy.linear_cross_entropy(
        flat, torch.cat([head, names]), torch.where(part > 0, cutoffs[0] + part - 1, wanted)
    )
    for number, (start, rows) in enumerate(zip(cutoffs, parts, strict=True), start=1):
        places = (part == number).nonzero().squeeze(1)
        if len(places):
            total = total.index_add(
                0, places, cross_entropy.linear_cross_entropy(flat[places], rows, wanted[places] - start)
            )
    return total.view(targets.shape)


def adaptive_log_probs(
    hidden: Float[Tensor, "*D W"], weight: Float[Tensor, "V W"], cutoffs: tuple[int, ...], names: Float[Tensor, "C W"]
) -> Float[Tensor, "*D V"]:
    """The logarithm of every word's probability under the adaptive softmax."""
    head, *parts = torch.split(weight.to(hidden.dtype), part_sizes(cutoffs, len(weight)))
    first = F.log_softmax(F.linear(hidden, torch.cat([head, names.to(hidden.dtype)])), -1)
    rest = [
        first[..., cutoffs[0] + number, None] + F.log_softmax(F.linear(hidden, rows), -1)
        for number, rows in enumerate(parts)
    ]
    return torch.cat([first[..., : cutoffs[0]], *rest], -1)


def part_sizes(cutoffs: tuple[int, ...], vocab: int) -> list[int]:
    """Words in the head and in each part."""
    ends = (0, *cutoffs, vocab)
    return [high - low for low, high in pairwise(ends)]
