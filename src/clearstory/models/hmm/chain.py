"""Chain: the probabilities of a hidden Markov model as tables, and the forward recursion over them.

Rabiner 1989, equations 19-21 and 91: a belief is multiplied by how likely each state speaks the token, divided by its
sum, and by the transitions becomes a belief about the state behind it. The sums are the tokens' own probabilities.
Many rows go side by side, so the recursion is a matrix product for each place. Letters: S states, M blocks of K = S/M
states each, of which one block may speak a token; with one block K is S.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

GATHERED = 2**24
"""Transitions held at once where there are blocks: 64 MB in fp32."""


class HMMProbabilities(NamedTuple):
    """Probabilities: how it begins (S,), from state to state (S, S), and of a token, (V, K): that each of the states
    of its block speaks it. Token v is of block v mod M.
    """

    initial: Tensor
    transition: Tensor
    emission: Tensor

    @property
    def blocks(self) -> int:
        """How many blocks the states are divided into."""
        return len(self.initial) // self.emission.shape[1]


def forward_algorithm(
    chain: HMMProbabilities, ids: Int[Tensor, "B T"], belief: Float[Tensor, "B S"]
) -> Float[Tensor, "B T S"]:
    """The belief about the next state after each token. `belief` is that before the first."""
    out = []
    for spoken, now in zip(emission_probs(chain, ids), ids.t(), strict=True):
        if chain.blocks == 1:
            belief = normalize(belief * spoken) @ chain.transition
        else:
            here = block_belief(belief, now % chain.blocks, chain.emission.shape[1])
            belief = propagate(chain, normalize(here * spoken), now)
        out.append(belief)
    return torch.stack(out, 1) if out else belief.new_zeros(len(ids), 0, belief.shape[1])


def predict_targets(
    chain: HMMProbabilities, ids: Int[Tensor, "B T"], targets: Int[Tensor, "B T"], belief: Float[Tensor, "B S"]
) -> tuple[Float[Tensor, "B T"], Float[Tensor, "B T K"]]:
    """The probability of each target after the tokens up to it, and what is known of the states that spoke these.

    Only a block of states and the next are looked at: K² numbers a token, where `follow` takes K S. Negative targets
    are not asked for, and get any probability.
    """
    blocks, size = chain.blocks, chain.emission.shape[1]
    behind = torch.cat([ids[:, 1:], targets[:, -1:].clamp(min=0)], 1)
    goal = torch.where(targets < 0, behind, targets)
    as_read = torch.equal(goal, behind)  # what comes next is what is asked for, as in training
    pairs = chain.transition.view(blocks, size, blocks, size).transpose(1, 2).reshape(-1, size, size)
    known = block_belief(belief, ids[:, 0] % blocks, size)
    found, spoke = [], []
    step = max(1, GATHERED // (len(ids) * size**2))
    for at in range(0, ids.shape[1], step):
        now, then, asked = (each[:, at : at + step] for each in (ids, behind, goal))
        ways = block_transitions(pairs, now, then, blocks)
        told = emission_probs(chain, asked)
        reached = []
        for spoken, way in zip(emission_probs(chain, now), ways, strict=True):
            spoke.append(normalize(known * spoken))
            known = torch.bmm(spoke[-1].unsqueeze(1), way).squeeze(1)
            reached.append(known)
        if as_read:
            found.append((torch.stack(reached) * told).sum(-1))
            continue
        before = torch.stack(spoke[at:]).flatten(0, 1).unsqueeze(1)
        others = torch.bmm(before, block_transitions(pairs, now, asked, blocks).flatten(0, 1))
        found.append((others.view_as(told) * told).sum(-1))
    return torch.cat(found).t(), torch.stack(spoke, 1)


def block_transitions(
    pairs: Float[Tensor, "MM K K"], now: Int[Tensor, "B T"], then: Int[Tensor, "B T"], blocks: int
) -> Float[Tensor, "T B K K"]:
    """Transitions from the block of each token to that of another. One look-up for all: its gradient is as large as
    all transitions are.
    """
    chosen = (now % blocks * blocks + then % blocks).t()
    return pairs.index_select(0, chosen.flatten()).view(*chosen.shape, *pairs.shape[1:])


def propagate(chain: HMMProbabilities, spoke: Float[Tensor, "B K"], ids: Int[Tensor, "B"]) -> Float[Tensor, "B S"]:
    """The belief about the next state, from what is known of the one that spoke each row's token."""
    ways = chain.transition.view(chain.blocks, chain.emission.shape[1], -1)
    return torch.bmm(spoke.unsqueeze(1), ways.index_select(0, ids % chain.blocks)).squeeze(1)


def emission_probs(chain: HMMProbabilities, ids: Int[Tensor, "B T"]) -> Float[Tensor, "T B K"]:
    """How likely each state that may speak a token speaks it, place by place."""
    flat = ids.t().flatten()
    return chain.emission.index_select(0, flat).view(*ids.t().shape, -1)


def block_belief(belief: Float[Tensor, "B S"], block: Int[Tensor, "B"], size: int) -> Float[Tensor, "B K"]:
    """The part of each row's belief that is about one block."""
    places = block[:, None] * size + torch.arange(size, device=block.device)
    return belief.gather(1, places)


def normalize(belief: Float[Tensor, "*D"]) -> Float[Tensor, "*D"]:
    """Divided by its sum (Rabiner 1989, eq. 91)."""
    total = belief.sum(-1, keepdim=True)
    return belief / total.clamp_min(torch.finfo(belief.dtype).tiny)


def token_probs(chain: HMMProbabilities, belief: Float[Tensor, "N S"]) -> Float[Tensor, "N V"]:
    """The probability of every token."""
    vocab, size = chain.emission.shape
    blocks = chain.blocks
    if blocks == 1:
        return belief @ chain.emission.t()
    # Token v is number v // M of block v mod M; the last ones of some blocks are missing.
    words = torch.nn.functional.pad(chain.emission, (0, 0, 0, -vocab % blocks)).view(-1, blocks, size)
    told = torch.einsum("nbk,wbk->nwb", belief.view(-1, blocks, size), words)
    return told.flatten(1)[:, :vocab]
