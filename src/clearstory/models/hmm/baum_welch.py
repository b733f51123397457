"""Baum-Welch: EM for hidden Markov models (Baum et al. 1970; Rabiner 1989, section III C), over windows of a text.

The text, its documents joined with their end tokens between them, is cut into windows of `WINDOW` tokens. Each window
is a sequence of its own that starts from `initial`, which is the overall distribution of states; the sum of the
windows' log-likelihoods is maximised. At inference the state is carried on for as long as the text is.

A round is an expectation step (forward and backward as scaled matrix products; posteriors of states and of pairs) and a
maximisation step in closed form. What never decreases is the penalised likelihood log p(text) + Σ prior · log
parameter, with a Dirichlet prior on every distribution (MAP; Gauvain and Lee 1994, section II). Without it a state
could not emit a token that it has never emitted.
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
from clearstory.models.hmm.chain import HMMParameters, HMMProbabilities
from clearstory.models.hmm.config import HMMConfig

WINDOW = 512
"""Tokens per window; the first token of each window is predicted without context."""

MAX_POSTERIORS = 2**25
"""Number of posteriors in memory at the same time: 128 MB in fp32."""

TRANSITION_PRIOR = 1.0
"""Default pseudo-count of each transition, and of each initial state, for a text of many different tokens."""

EMISSION_PRIOR = 100.0
"""Default pseudo-counts of the emissions of each state, for a text of many different tokens."""

MANY_TOKENS = 700
"""Different tokens of a text from which on most are rare in any one state. Of few tokens each state emits some very
often, and many pseudo-counts would keep it from emitting no others: three states over `abc` repeated could not tell the
letters apart.
"""

CONVERGED = 1e-6
"""Largest change of a probability in a round after which further rounds change nothing that can be seen."""

UNSEEN = 0.1
"""Count of a token that is not in the text, before pseudo-counts are spread."""


@dataclass(frozen=True)
class DirichletPrior:
    """Pseudo-counts added to those of the text: Dirichlet parameters minus one."""

    initial: Float[Tensor, "S"]
    transition: Float[Tensor, "S S"]
    emission: Float[Tensor, "V S"]

    @classmethod
    def of(cls, counts: Float[Tensor, "V"], config: HMMConfig) -> Self:
        """The prior of a model for a text with these counts of each token.

        By default the pseudo-counts are multiplied by (different tokens / MANY_TOKENS)² where these are few.
        """
        strength = min(1.0, (int((counts > 0).sum()) / MANY_TOKENS) ** 2)
        states, transition, emission = config.states, config.transition_prior, config.emission_prior
        transition = TRANSITION_PRIOR * strength if transition is None else transition
        emission = EMISSION_PRIOR * strength if emission is None else emission
        tokens = (counts + UNSEEN) / (counts + UNSEEN).sum()
        return cls(
            tokens.new_full((states,), transition),
            tokens.new_full((states, states), transition),
            (emission * tokens).unsqueeze(1).expand(-1, states),
        )

    @torch.no_grad()
    def penalty(self, chain: HMMProbabilities) -> float:
        """Σ prior · log parameter, which is maximised together with the likelihood."""
        pairs = zip((self.initial, self.transition, self.emission), chain, strict=True)
        return float(sum((prior * probability.log()).sum() for prior, probability in pairs))


@dataclass
class ExpectedCounts:
    """Expected counts over a text: of first states, of pairs of states, and of tokens from each state."""

    initial: Float[Tensor, "S"]
    transition: Float[Tensor, "S S"]
    emission: Float[Tensor, "V S"]
    nats: float = 0.0  # negative log-likelihood

    @classmethod
    def zeros(cls, chain: HMMProbabilities) -> Self:
        """Counts of an empty text. In float64: in fp32 those of frequent tokens would stop growing."""
        initial, transition, emission = (torch.zeros_like(each, dtype=torch.float64) for each in chain)
        return cls(initial, transition, emission)

    def add(self, chain: HMMProbabilities, ids: Int[Tensor, "B T"]) -> None:
        """Add the expected counts of windows of equal length, without padding."""
        rows, length = ids.shape
        flat = ids.t().flatten()
        states = len(chain.initial)
        likelihood = chain.emission.index_select(0, flat).view(length, rows, states)
        posterior = torch.empty_like(likelihood)  # α, which becomes γ in the backward pass
        scale = likelihood.new_empty(length, rows, 1)
        state = chain.initial.expand(rows, -1)
        for t in range(length):
            torch.mul(state, likelihood[t], out=posterior[t])
            torch.sum(posterior[t], 1, keepdim=True, out=scale[t])
            posterior[t].div_(scale[t])  # eq. 91
            state = posterior[t] @ chain.transition
        backward = torch.ones_like(state)  # β over the scale, so that α β is γ
        pairs = torch.zeros_like(chain.transition)
        for t in reversed(range(length)):
            likelihood[t].mul_(backward).div_(scale[t])
            posterior[t].mul_(backward)  # eq. 27
            if t:
                pairs.addmm_(posterior[t - 1].t(), likelihood[t])
            else:
                self.initial += posterior[0].double().sum(0)
            torch.mm(likelihood[t], chain.transition.t(), out=backward)
        emission = torch.zeros_like(chain.emission).index_add_(0, flat, posterior.view(-1, states))
        self.emission += emission
        self.transition += pairs.mul_(chain.transition)  # eq. 37
        self.nats -= float(scale.double().log().sum())


@torch.no_grad()
def expected_counts(chain: HMMProbabilities, windows: Iterator[Int[Tensor, "B T"]] | list[Any]) -> ExpectedCounts:
    """The expectation step: expected counts over all windows."""
    counts = ExpectedCounts.zeros(chain)
    for ids in windows:
        counts.add(chain, ids)
    return counts


@torch.no_grad()
def maximize(model: HMMParameters, counts: ExpectedCounts, prior: DirichletPrior) -> float:
    """The maximisation step: set the model's logits to the log-probabilities of counts and prior (eq. 40). Returns the
    largest change of a probability.
    """
    before = [each.clone() for each in model.probabilities()]
    initial = (counts.initial + prior.initial).log()
    model.initial.copy_(initial - initial.logsumexp(0))
    transition = (counts.transition + prior.transition).log()
    model.transition.copy_(transition - transition.logsumexp(1, keepdim=True))
    emission = (counts.emission + prior.emission).log()
    model.emission.copy_(emission - emission.logsumexp(0))
    pairs = zip(before, model.probabilities(), strict=True)
    return max(float((after - earlier).abs().max()) for earlier, after in pairs)


def fit(model: HMMParameters, dataset: TokenSequences, done: int) -> Iterator[FitProgress]:
    """Unlimited EM iterations, each reporting whether it changed anything; `nats` per token are those before the
    iteration's update.
    """
    ids = np.asarray(dataset.ids)
    counts = torch.from_numpy(np.bincount(ids, minlength=model.vocab)).to(model.initial.device).double()
    prior = DirichletPrior.of(counts, model.config)
    if not done:
        with torch.no_grad():  # every state starts from the text's own token frequencies, with its random deviations
            model.emission.add_(prior.emission.log().to(model.emission))
    while True:
        expected = expected_counts(model.probabilities(), iter_windows(ids, model.config.states, model.initial.device))
        change = maximize(model, expected, prior)
        yield FitProgress(len(ids), expected.nats / max(1, len(ids)), converged=change < CONVERGED)


def iter_windows(ids: Any, states: int, device: torch.device) -> Iterator[Int[Tensor, "B T"]]:
    """Batches of windows of a text, as large as memory allows; a shorter last window is a batch of its own."""
    whole = len(ids) // WINDOW
    step = max(1, MAX_POSTERIORS // (states * WINDOW))
    for at in range(0, whole, step):
        batch = ids[at * WINDOW : min(at + step, whole) * WINDOW]
        yield torch.from_numpy(batch.astype(np.int64)).view(-1, WINDOW).to(device)
    rest = ids[whole * WINDOW :]
    if len(rest):
        yield torch.from_numpy(rest.astype(np.int64))[None].to(device)
