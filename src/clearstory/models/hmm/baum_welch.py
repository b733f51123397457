"""Learning: Baum-Welch (Baum et al. 1970; Rabiner 1989, section III C) over a text in windows that go side by side.

The text, its documents one behind the other with their ends between them, is cut into windows of `WINDOW` tokens, each
a sequence of its own that begins from `initial`: these are what is likely anywhere, and what is maximised is the sum of
the windows' log-likelihoods. A model that is used carries its belief on for as long as the text is.

A round is an expectation (forward and backward as scaled matrix products; posteriors of states and of pairs) and a
maximisation in closed form. It is apply_repetition_penalty likelihood that never falls: log p(text) + Σ prior · log parameter, a
Dirichlet prior on every distribution (MAP; Gauvain and Lee 1994, section II), without which a word that one state has
never spoken could not be spoken at all.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from clearstory.models.base import FitProgress, TokenSequences
from clearstory.models.hmm.chain import HMMProbabilities

WINDOW = 512
"""Tokens of a window: its first word is foreseen from nothing, so one word in so many."""

HELD = 2**25
"""Posteriors held at once: 128 MB in fp32."""

MOVES = 1.0
"""Prior counts of each transition, and of each beginning."""

WORDS = 100.0
"""Prior counts of words for each state, spread over them as the text has them: what is seldom is shared."""

UNSEEN = 0.1
"""Counts that a word which the text has not is given before they are spread."""


@dataclass(frozen=True)
class DirichletPrior:
    """Pseudo-counts beside those of the text: Dirichlet parameters minus one."""

    initial: Float[Tensor, "S"]
    transition: Float[Tensor, "S S"]
    emission: Float[Tensor, "V S"]

    @classmethod
    def of(cls, counts: Float[Tensor, "V"], states: int) -> Self:
        """The usual one, for a text with so many of each word."""
        words = (counts + UNSEEN) / (counts + UNSEEN).sum()
        return cls(
            words.new_full((states,), MOVES),
            words.new_full((states, states), MOVES),
            (WORDS * words).unsqueeze(1).expand(-1, states),
        )

    @torch.no_grad()
    def penalty(self, chain: HMMProbabilities) -> float:
        """Σ prior · log parameter: what is maximised beside the likelihood."""
        pairs = zip((self.initial, self.transition, self.emission), chain, strict=True)
        return float(sum((prior * chance.log()).sum() for prior, chance in pairs))


@dataclass
class ExpectedCounts:
    """Sums over a text: how often each state is expected first, each pair in a row, each word from each state."""

    initial: Float[Tensor, "S"]
    transition: Float[Tensor, "S S"]
    emission: Float[Tensor, "V S"]
    nats: float = 0.0  # minus the log-likelihood

    @classmethod
    def none(cls, chain: HMMProbabilities) -> Self:
        """Before anything was read. Sums are taken in float64: in fp32 the common words' would stop growing."""
        first, moves, words = (torch.zeros_like(each, dtype=torch.float64) for each in chain)
        return cls(first, moves, words)

    def add(self, chain: HMMProbabilities, ids: Int[Tensor, "B T"]) -> None:
        """Windows of equal length, all tokens real."""
        rows, length = ids.shape
        flat = ids.t().flatten()
        states = len(chain.initial)
        seen = chain.emission.index_select(0, flat).view(length, rows, states)
        spoke = torch.empty_like(seen)  # α, which becomes γ on the way back
        scale = seen.new_empty(length, rows, 1)
        belief = chain.initial.expand(rows, -1)
        for t in range(length):
            torch.mul(belief, seen[t], out=spoke[t])
            torch.sum(spoke[t], 1, keepdim=True, out=scale[t])
            spoke[t].div_(scale[t])  # eq. 91
            belief = spoke[t] @ chain.transition
        behind = torch.ones_like(belief)  # β over the scale, so that α β is γ
        pairs = torch.zeros_like(chain.transition)
        for t in reversed(range(length)):
            seen[t].mul_(behind).div_(scale[t])
            spoke[t].mul_(behind)  # eq. 27
            if t:
                pairs.addmm_(spoke[t - 1].t(), seen[t])
            else:
                self.initial += spoke[0].double().sum(0)
            torch.mm(seen[t], chain.transition.t(), out=behind)
        words = torch.zeros_like(chain.emission).index_add_(0, flat, spoke.view(-1, states))
        self.emission += words
        self.transition += pairs.mul_(chain.transition)  # eq. 37
        self.nats -= float(scale.double().log().sum())


@torch.no_grad()
def expected_counts(chain: HMMProbabilities, windows: Iterator[Int[Tensor, "B T"]] | list[Any]) -> ExpectedCounts:
    """The expectation over all windows."""
    found = ExpectedCounts.none(chain)
    for ids in windows:
        found.add(chain, ids)
    return found


@torch.no_grad()
def maximize(model: Any, found: ExpectedCounts, prior: DirichletPrior) -> None:
    """Set the model's parameters to what makes the expected counts likeliest (eq. 40)."""
    initial = (found.initial + prior.initial).log()
    model.initial.copy_(initial - initial.logsumexp(0))
    transition = (found.transition + prior.transition).log()
    model.transition.copy_(transition - transition.logsumexp(1, keepdim=True))
    emission = (found.emission + prior.emission).log()
    model.emission.copy_(emission - emission.logsumexp(0))


def fit(model: Any, rows: TokenSequences, done: int) -> Iterator[FitProgress]:
    """Round after round; `nats` are those of the text before the round changed the model."""
    ids = np.asarray(rows.ids)
    counts = torch.from_numpy(np.bincount(ids, minlength=model.vocab)).to(model.initial.device).double()
    prior = DirichletPrior.of(counts, model.config.states)
    if not done:
        with torch.no_grad():  # what every state says at first: the text's own words, each state in its own way
            model.emission += prior.emission.log().to(model.emission)
    while True:
        found = expected_counts(model.probabilities(), iter_windows(ids, model.config.states, model.initial.device))
        maximize(model, found, prior)
        yield FitProgress(len(ids), found.nats / max(1, len(ids)))


def iter_windows(ids: Any, states: int, device: torch.device) -> Iterator[Int[Tensor, "B T"]]:
    """The text window by window, as many side by side as memory has room for; a shorter last one by itself."""
    whole = len(ids) // WINDOW
    step = max(1, HELD // (states * WINDOW))
    for at in range(0, whole, step):
        part = ids[at * WINDOW : min(at + step, whole) * WINDOW]
        yield torch.from_numpy(part.astype(np.int64)).view(-1, WINDOW).to(device)
    rest = ids[whole * WINDOW :]
    if len(rest):
        yield torch.from_numpy(rest.astype(np.int64))[None].to(device)
