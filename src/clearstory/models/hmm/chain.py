"""Probability tables of a hidden Markov model, and the forward algorithm.

Rabiner 1989, equations 19-21 and 91: the distribution over the current state is multiplied by the emission probability
of the token, normalised, and multiplied by the transitions to give the distribution over the next state. The
normalisers are the tokens' own probabilities. A batch goes through together, so each time step is a matrix product.

Letters: S states, in M blocks of K = S/M states each; only one block may emit a given token. With one block K is S.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from clearstory.models.hmm.config import HMMConfig

MAX_GATHERED = 2**24
"""Number of transition probabilities gathered at the same time with blocks: 64 MB in fp32."""


class HMMProbabilities(NamedTuple):
    """Initial (S,), transition (S, S) and emission (V, K) probabilities; row v of the emissions: of token v from each
    state of its block, which is v mod M.
    """

    initial: Tensor
    transition: Tensor
    emission: Tensor

    @property
    def blocks(self) -> int:
        """Number of blocks of states, M."""
        return len(self.initial) // self.emission.shape[1]


class HMMParameters(Protocol):
    """Interface of a hidden Markov model for fitting: its logits and probabilities.

    A tagger has three tables more, see `tag_counts`.
    """

    vocab: int
    config: HMMConfig
    initial: nn.Parameter
    transition: nn.Parameter
    emission: nn.Parameter
    suffixes: Tensor
    suffix_tag_counts: Tensor
    state_priors: Tensor

    def probabilities(self) -> HMMProbabilities:
        """Softmax of the logits."""


def forward_algorithm(
    chain: HMMProbabilities, ids: Int[Tensor, "B T"], before: Float[Tensor, "B S"]
) -> Float[Tensor, "B T S"]:
    """Distribution over the next state after each token, (B, T, S), given the one before the first token."""
    out = []
    for emitted, now in zip(emission_probs(chain, ids), ids.t(), strict=True):
        if chain.blocks == 1:
            before = normalize(before * emitted) @ chain.transition
        else:
            within = block_part(before, now % chain.blocks, chain.emission.shape[1])
            before = propagate(chain, normalize(within * emitted), now)
        out.append(before)
    return torch.stack(out, 1) if out else before.new_zeros(len(ids), 0, before.shape[1])


def predict_targets(
    chain: HMMProbabilities, ids: Int[Tensor, "B T"], targets: Int[Tensor, "B T"], before: Float[Tensor, "B S"]
) -> tuple[Float[Tensor, "B T"], Float[Tensor, "B T K"]]:
    """Probability of each target given the tokens up to it, (B, T), and the filtered distribution over the states that
    emitted these tokens, (B, T, K).

    Only one block of states and the next are computed: K² numbers a token, where `forward_algorithm` takes K S.
    Negative targets are not scored and get an arbitrary probability.
    """
    blocks, size = chain.blocks, chain.emission.shape[1]
    following = torch.cat([ids[:, 1:], targets[:, -1:].clamp(min=0)], 1)
    goal = torch.where(targets < 0, following, targets)
    targets_follow = torch.equal(goal, following)  # each target is the next token, as in training
    transitions = chain.transition.view(blocks, size, blocks, size).transpose(1, 2).reshape(-1, size, size)
    state = block_part(before, ids[:, 0] % blocks, size)
    probs, filtered = [], []
    step = max(1, MAX_GATHERED // (len(ids) * size**2))
    for at in range(0, ids.shape[1], step):
        now, then, wanted = (each[:, at : at + step] for each in (ids, following, goal))
        ways = block_transitions(transitions, now, then, blocks)
        target_emission = emission_probs(chain, wanted)
        reached = []
        for emitted, way in zip(emission_probs(chain, now), ways, strict=True):
            filtered.append(normalize(state * emitted))
            state = torch.bmm(filtered[-1].unsqueeze(1), way).squeeze(1)
            reached.append(state)
        if targets_follow:
            probs.append((torch.stack(reached) * target_emission).sum(-1))
            continue
        current = torch.stack(filtered[at:]).flatten(0, 1).unsqueeze(1)
        others = torch.bmm(current, block_transitions(transitions, now, wanted, blocks).flatten(0, 1))
        probs.append((others.view_as(target_emission) * target_emission).sum(-1))
    return torch.cat(probs).t(), torch.stack(filtered, 1)


def block_transitions(
    transitions: Float[Tensor, "MM K K"], now: Int[Tensor, "B T"], then: Int[Tensor, "B T"], blocks: int
) -> Float[Tensor, "T B K K"]:
    """Transition probabilities from the block of each token to that of another, (T, B, K, K). One gather for all: its
    gradient is as large as all transitions are.
    """
    chosen = (now % blocks * blocks + then % blocks).t()
    return transitions.index_select(0, chosen.flatten()).view(*chosen.shape, *transitions.shape[1:])


def propagate(chain: HMMProbabilities, filtered: Float[Tensor, "B K"], ids: Int[Tensor, "B"]) -> Float[Tensor, "B S"]:
    """Distribution over the next state, (B, S), from that over the states that emitted each sequence's token."""
    transitions = chain.transition.view(chain.blocks, chain.emission.shape[1], -1)
    return torch.bmm(filtered.unsqueeze(1), transitions.index_select(0, ids % chain.blocks)).squeeze(1)


def emission_probs(chain: HMMProbabilities, ids: Int[Tensor, "B T"]) -> Float[Tensor, "T B K"]:
    """Emission probability of each token from each state of its block, (T, B, K)."""
    flat = ids.t().flatten()
    return chain.emission.index_select(0, flat).view(*ids.t().shape, chain.emission.shape[1])


def block_part(state: Float[Tensor, "B S"], block: Int[Tensor, "B"], size: int) -> Float[Tensor, "B K"]:
    """The part of each sequence's distribution that concerns one block, (B, K)."""
    indices = block[:, None] * size + torch.arange(size, device=block.device)
    return state.gather(1, indices)


def normalize(values: Float[Tensor, "*D"]) -> Float[Tensor, "*D"]:
    """Values divided by their sum over the last dimension (Rabiner 1989, eq. 91)."""
    total = values.sum(-1, keepdim=True)
    return values / total.clamp_min(torch.finfo(values.dtype).tiny)


def token_probs(chain: HMMProbabilities, state: Float[Tensor, "N S"]) -> Float[Tensor, "N V"]:
    """Probability of every token given distributions over the state that emits it, (N, V)."""
    vocab, size = chain.emission.shape
    blocks = chain.blocks
    if blocks == 1:
        return state @ chain.emission.t()
    # Token v is number v // M of block v mod M; the last ones of some blocks are missing.
    emission = torch.nn.functional.pad(chain.emission, (0, 0, 0, -vocab % blocks)).view(-1, blocks, size)
    probs = torch.einsum("nbk,wbk->nwb", state.view(-1, blocks, size), emission)
    return probs.flatten(1)[:, :vocab]
