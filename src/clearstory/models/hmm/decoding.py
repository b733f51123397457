"""Decoding of hidden states: the most likely path (Viterbi 1967), and the posterior of each state at each position."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from clearstory.models.hmm.chain import HMMProbabilities, normalize


def viterbi(
    initial: Float[Tensor, "P K"], transition: Float[Tensor, "P K K"], emission: Float[Tensor, "B T K"]
) -> tuple[Int[Tensor, "B T"], Float[Tensor, "B"]]:
    """The most likely path of states of each sequence, (B, T), and its log-probability, (B,). Rabiner 1989, eq. 32-35.

    All arguments are logarithms. P is 1 for a first-order chain, K for a second-order one: `transition[p, k, j]` is
    log p(j | k, preceded by p). `emission` is the log-probability of each position's token from each state.
    """
    second_order = initial.shape[0] > 1
    best = initial + emission[:, 0].unsqueeze(1)  # of all paths that end in (p, k)
    pointers = []
    for emitted in emission[:, 1:].unbind(1):
        best, came_from = (best.unsqueeze(-1) + transition).max(1 if second_order else 2)
        best = (best if second_order else best.view(len(emission), 1, -1)) + emitted.unsqueeze(1)
        pointers.append(came_from)
    total, last = best.flatten(1).max(1)
    rows = torch.arange(len(emission), device=emission.device)
    before, now = last // emission.shape[2], last % emission.shape[2]
    path = [now]
    for came_from in reversed(pointers):
        if second_order:
            before, now = came_from[rows, before, now], before
        else:
            now = came_from[rows, 0, now]
        path.append(now)
    return torch.stack(path[::-1], 1), total


def path_posteriors(
    initial: Float[Tensor, "P K"], transition: Float[Tensor, "P K K"], emission: Float[Tensor, "B T K"]
) -> Float[Tensor, "B T K"]:
    """Posterior of each state at each position given the whole sequence, (B, T, K), by the forward and backward passes.

    Arguments as those of `viterbi`.
    """
    second_order = initial.shape[0] > 1
    step = "bpk,pkj->bkj" if second_order else "bpk,pkj->bpj"
    step_back = "pkj,bkj->bpk" if second_order else "pkj,bpj->bpk"
    chain = transition.exp()
    emitted = (emission - emission.amax(-1, keepdim=True)).exp().unbind(1)
    forward = [scale(initial.exp() * emitted[0].unsqueeze(1))]  # of all paths that end in (p, k)
    for each in emitted[1:]:
        forward.append(scale(torch.einsum(step, forward[-1], chain) * each.unsqueeze(1)))
    backward = torch.ones_like(forward[-1])
    found = []
    for position in reversed(range(len(forward))):
        found.append(normalize((forward[position] * backward).sum(1)))
        if position:
            backward = scale(torch.einsum(step_back, chain, emitted[position].unsqueeze(1) * backward))
    return torch.stack(found[::-1], 1)


def scale(weights: Float[Tensor, "B P K"]) -> Float[Tensor, "B P K"]:
    """The weights of each sequence over their sum, so that long products stay in range."""
    return weights / weights.sum((1, 2), keepdim=True)


def posteriors(chain: HMMProbabilities, ids: Int[Tensor, "B T"]) -> Float[Tensor, "B T S"]:
    """Posterior of each state at each position given the whole text, (B, T, S) (Rabiner 1989, eq. 27)."""
    likelihoods = emission_likelihoods(chain, ids).transpose(0, 1)
    state = chain.initial.expand(len(ids), -1)
    filtered = []
    for each in likelihoods:
        filtered.append(normalize(state * each))
        state = filtered[-1] @ chain.transition
    backward = torch.ones_like(state)
    out = []
    for each, current in zip(reversed(likelihoods.unbind(0)), reversed(filtered), strict=True):
        out.append(normalize(current * backward))
        backward = normalize(each * backward) @ chain.transition.t()
    return torch.stack(out[::-1], 1)


def emission_likelihoods(chain: HMMProbabilities, ids: Int[Tensor, "B T"]) -> Float[Tensor, "B T S"]:
    """Emission probability of each token from every state, (B, T, S); 0 from states of other blocks."""
    emitted = chain.emission[ids]
    if chain.blocks == 1:
        return emitted
    whole = emitted.new_zeros(*ids.shape, chain.blocks, emitted.shape[-1])
    block = (ids % chain.blocks)[..., None, None].expand(-1, -1, 1, emitted.shape[-1])
    return whole.scatter(2, block, emitted.unsqueeze(2)).flatten(2)
