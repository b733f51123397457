"""Decoding: which states spoke a text. The likeliest path (Viterbi 1967), and the likeliest state at each place."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from clearstory.models.hmm.chain import HMMProbabilities, normalize


def viterbi(
    first: Float[Tensor, "P K"], ways: Float[Tensor, "P K K"], logs: Float[Tensor, "B T K"]
) -> tuple[Int[Tensor, "B T"], Float[Tensor, "B"]]:
    """The likeliest path of states for each row, and its log-probability (Rabiner 1989, eq. 32-35), in log space.

    P is 1 for a chain in which a state depends on the one before, K for one in which it depends on two: `ways[p, k, j]`
    is the logarithm of p(j | k, and before it p). `logs` says how likely each state speaks what stands there.
    """
    deep = first.shape[0] > 1
    best = first + logs[:, 0].unsqueeze(1)  # of all paths that end in (p, k)
    back = []
    for spoken in logs[:, 1:].unbind(1):
        best, came = (best.unsqueeze(-1) + ways).max(1 if deep else 2)
        best = (best if deep else best.view(len(logs), 1, -1)) + spoken.unsqueeze(1)
        back.append(came)
    total, last = best.flatten(1).max(1)
    rows = torch.arange(len(logs), device=logs.device)
    before, now = last // logs.shape[2], last % logs.shape[2]
    path = [now]
    for came in reversed(back):
        if deep:
            before, now = came[rows, before, now], before
        else:
            now = came[rows, 0, now]
        path.append(now)
    return torch.stack(path[::-1], 1), total


def posteriors(chain: HMMProbabilities, ids: Int[Tensor, "B T"]) -> Float[Tensor, "B T S"]:
    """How likely each state spoke each token, given all of the text (Rabiner 1989, eq. 27)."""
    seen = emission_likelihoods(chain, ids).transpose(0, 1)
    belief = chain.initial.expand(len(ids), -1)
    spoke = []
    for each in seen:
        spoke.append(normalize(belief * each))
        belief = spoke[-1] @ chain.transition
    behind = torch.ones_like(belief)
    found = []
    for each, filtered in zip(reversed(seen.unbind(0)), reversed(spoke), strict=True):
        found.append(normalize(filtered * behind))
        behind = normalize(each * behind) @ chain.transition.t()
    return torch.stack(found[::-1], 1)


def emission_likelihoods(chain: HMMProbabilities, ids: Int[Tensor, "B T"]) -> Float[Tensor, "B T S"]:
    """How likely each state, those that cannot included, speaks each token."""
    spoken = chain.emission[ids]
    if chain.blocks == 1:
        return spoken
    whole = spoken.new_zeros(*ids.shape, chain.blocks, spoken.shape[-1])
    place = (ids % chain.blocks)[..., None, None].expand(-1, -1, 1, spoken.shape[-1])
    return whole.scatter(2, place, spoken.unsqueeze(2)).flatten(2)
