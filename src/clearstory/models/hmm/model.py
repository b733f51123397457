"""HMM: a hidden Markov model as a language model, and as a tagger with one state per tag. Rabiner 1989."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from clearstory.errors import VocabularyMismatch
from clearstory.models.base import IGNORE_INDEX, FitProgress, TokenBatch, TokenSequences
from clearstory.models.batched_state import BatchedState
from clearstory.models.capabilities import Capability
from clearstory.models.hmm import baum_welch
from clearstory.models.hmm.chain import (
    HMMProbabilities,
    emission_probs,
    forward_algorithm,
    predict_targets,
    propagate,
    token_probs,
)
from clearstory.models.hmm.config import HMMConfig
from clearstory.models.hmm.suffixes import MAX_SUFFIX
from clearstory.models.hmm.tag_counts import TaggedTokens, fit_tag_counts


@dataclass(frozen=True)
class FilteringState(BatchedState):
    """The State of a hidden Markov model: P(next hidden state | tokens so far), `next` (B, S)."""

    next: Tensor

    def tensors(self) -> dict[str, Tensor]:
        """The distributions and the number of tokens processed."""
        return {"next": self.next, "n_read": torch.tensor(self.n_read)}


INIT_STD = 2.0
"""Of the initial logits. States that start too similar take many rounds of Baum-Welch to separate."""


def em_transition_std(states: int) -> float:
    """Standard deviation of the logits of transitions and initial states before Baum-Welch.

    Of few states, one that is hardly ever entered at first is never entered: of 20 seeds of three states over `abc`
    repeated, 20 rounds solved 20 with 0.5, 19 with 1 and 16 with 2. Many states separate sooner with `INIT_STD`.

    >>> [round(em_transition_std(states), 2) for states in (1, 3, 9, 81, 256)]
    [0.0, 0.5, 1.0, 2.0, 2.0]
    """
    return min(INIT_STD, 0.5 * math.log(states, 3))


class HMM(nn.Module):
    """A chain of hidden states, each of which emits one token.

    Its parameters are logits, whose softmax gives the probabilities: `initial` of the first state, `transition` of the
    next state given each state, `emission` of the tokens given each state (a column). Baum-Welch sets them to
    log-probabilities, which are logits too. Its hidden states are distributions over the next state.

    >>> model = HMM(HMMConfig(vocab=67, states=8))
    >>> hidden, state = model.forward(TokenBatch.from_sequences([[1, 2, 3]]), model.init_state())
    >>> model.logits(hidden).shape, state.lengths
    (torch.Size([1, 3, 67]), [3])
    """

    suffixes: Tensor  # of a tagger: word shapes and endings, (R, MAX_SUFFIX + 1)
    suffix_tag_counts: Tensor  # of a tagger: tags of rare words with each suffix, (R, tags)
    state_priors: Tensor  # of a tagger: overall probability of each state, (S,)

    def __init__(self, config: HMMConfig) -> None:
        super().__init__()
        c = config
        self.config = c
        self.vocab = c.vocab
        self.context: int | None = None  # unlimited
        self.compute_dtype: torch.dtype | None = None  # ignored: probabilities need the precision of the weights
        self.initial = nn.Parameter(torch.empty(c.states))
        self.transition = nn.Parameter(torch.empty((c.states,) * c.order))
        self.emission = nn.Parameter(torch.empty(c.vocab, c.states_per_block))
        if c.learn == "tags":
            self.register_buffer("suffixes", torch.zeros(c.suffixes, MAX_SUFFIX + 1, dtype=torch.int32))
            self.register_buffer("suffix_tag_counts", torch.zeros(c.suffixes, len(c.tags)))
            self.register_buffer("state_priors", torch.zeros(c.states))
        self.cached_probabilities: tuple[Any, HMMProbabilities] | None = None
        self.reset()

    @torch.no_grad()
    def reset(self, initialization: Literal["normal", "zero"] = "normal") -> None:
        """Draw the logits at random, since states that start equal stay equal; "zero" does the same."""
        for weight in self.parameters():
            if not weight.is_meta:
                same_start = self.config.learn == "em" and weight is not self.emission
                nn.init.normal_(weight, std=em_transition_std(self.config.states) if same_start else INIT_STD)

    @property
    def capabilities(self) -> frozenset[Capability]:
        """Capabilities of a hidden Markov model, by how it is fitted."""
        c = self.config
        optional = {Capability.COUNT_FITTED: c.learn != "gradient", Capability.TAGS: bool(c.tags)}
        always = {Capability.CAUSAL, Capability.HMM_STATES, Capability.GRADIENTS}
        return frozenset(always | {each for each, there in optional.items() if there})

    @property
    def rounds(self) -> int | None:
        """1 where tags are counted; None for Baum-Welch, which takes any number of rounds."""
        return 1 if self.config.learn == "tags" else None

    def check_data(self, dataset: TokenSequences) -> None:
        """Accepts any text."""

    def fit(self, dataset: TokenSequences, done: int = 0) -> Iterator[FitProgress]:
        """Rounds of Baum-Welch over a text, see `baum_welch`; or one round of counting tags, see `tag_counts`."""
        if not isinstance(dataset, TaggedTokens):
            return baum_welch.fit(self, dataset, done)
        fit_tag_counts(self, dataset.text)
        return iter([FitProgress(len(dataset.ids))])

    def probabilities(self) -> HMMProbabilities:
        """The model's probabilities; without gradients they are cached until the parameters change."""
        weights = (self.initial, self.transition, self.emission)
        if torch.is_grad_enabled() and any(weight.requires_grad for weight in weights):
            # About to be updated: PyTorch's fused optimizers change a parameter without a new version.
            self.cached_probabilities = None
            return self.compute_probabilities()
        if any(weight.is_inference() for weight in weights):  # their changes are not counted
            return self.compute_probabilities()
        key = [(weight.data_ptr(), weight._version, weight.dtype, weight.device) for weight in weights]
        if self.cached_probabilities is None or self.cached_probabilities[0] != key:
            with torch.inference_mode(False), torch.no_grad():
                self.cached_probabilities = (key, self.compute_probabilities())
        return self.cached_probabilities[1]

    def compute_probabilities(self) -> HMMProbabilities:
        """Softmax of the logits; emissions are normalised within each state's block of tokens."""
        blocks, emission = self.config.blocks, self.emission
        if self.config.order == 3:
            return self.compute_trigram_probabilities()
        if blocks == 1:
            return HMMProbabilities(self.initial.softmax(0), self.transition.softmax(1), emission.softmax(0))
        missing = -self.vocab % blocks
        padded = F.pad(emission, (0, 0, 0, missing), value=-torch.inf).view(-1, blocks, self.config.states_per_block)
        emission_by_token = padded.softmax(0).flatten(0, 1)[: self.vocab]
        return HMMProbabilities(self.initial.softmax(0), self.transition.softmax(1), emission_by_token)

    def compute_trigram_probabilities(self) -> HMMProbabilities:
        """Probabilities of a first-order chain over pairs of tags: the second tag of a pair is the first of the next,
        and emits the token.
        """
        size = self.config.states
        initial = self.initial.softmax(0)
        transition = torch.einsum("ijk,jl->ijlk", self.transition.softmax(2), torch.eye(size).to(initial))
        emission = self.emission.softmax(0).repeat(1, size)
        return HMMProbabilities(torch.outer(initial, initial).flatten(), transition.reshape(size**2, size**2), emission)

    def init_state(self, batch_size: int = 1) -> FilteringState:
        """The initial distribution of `batch_size` empty sequences."""
        initial = self.probabilities().initial
        return FilteringState(initial.expand(batch_size, -1), n_read=(0,) * batch_size)

    def forward(
        self, tokens: TokenBatch, state: FilteringState | None = None
    ) -> tuple[Float[Tensor, "B T W"], FilteringState | None]:
        """Distribution over the next hidden state after each token, (B, T, S), and the last as a state; without a
        state, None. Raises VocabularyMismatch for an id outside the vocabulary.
        """
        self.check_ids(tokens.ids)
        chain = self.probabilities()
        after = self.filtering_states(chain, tokens, state)
        return after, None if state is None else self.next_state(state, tokens, after)

    def filtering_states(
        self, chain: HMMProbabilities, tokens: TokenBatch, state: FilteringState | None
    ) -> Float[Tensor, "B T S"]:
        """Distribution over the next hidden state after each token. The start token of a text, where it is none of the
        observations, leaves the initial distribution.
        """
        ids, start = tokens.ids, self.config.bos_token_id
        before = chain.initial.expand(len(ids), -1) if state is None else state.next
        if start is None or not ids.shape[1]:
            return forward_algorithm(chain, ids, before)
        first = forward_algorithm(chain, ids[:, :1], before)
        unread = torch.tensor([state is None or not state.n_read[row] for row in range(len(ids))], device=ids.device)
        starts = (unread & (ids[:, 0] == start))[:, None, None]
        first = torch.where(starts, chain.initial.expand_as(first), first)
        return torch.cat([first, forward_algorithm(chain, ids[:, 1:], first[:, 0])], 1)

    def next_state(self, state: FilteringState, tokens: TokenBatch, after: Float[Tensor, "B T W"]) -> FilteringState:
        """The state after each sequence's last token, from the distributions after every token."""
        every = torch.cat([state.next.unsqueeze(1), after], 1)  # a sequence may have no new token
        rows = torch.arange(len(every), device=after.device)
        return FilteringState(every[rows, tokens.last_positions() + 1], n_read=self.new_lengths(state, tokens))

    def new_lengths(self, state: FilteringState, tokens: TokenBatch) -> tuple[int, ...]:
        """Number of tokens processed in each sequence, the new ones included."""
        new = (tokens.last_positions() + 1).tolist()
        return tuple(before + more for before, more in zip(state.n_read, new, strict=True))

    def logits(self, hidden: Float[Tensor, "*D W"]) -> Float[Tensor, "*D V"]:
        """Log-probability of every next token, (..., V)."""
        probs = token_probs(self.probabilities(), hidden.reshape(-1, hidden.shape[-1]))
        log_probs = probs.clamp_min(torch.finfo(probs.dtype).tiny).log()
        return log_probs.view(*hidden.shape[:-1], self.vocab)

    def token_nll(
        self, tokens: TokenBatch, targets: Int[Tensor, "B T"], state: FilteringState | None = None
    ) -> tuple[Float[Tensor, "B T"], FilteringState | None]:
        """Negative log-likelihood of each target in nats, (B, T); 0 where it is IGNORE_INDEX.

        The other tokens' probabilities are not computed.
        """
        self.check_ids(tokens.ids)
        self.check_ids(targets)
        chain = self.probabilities()
        before = chain.initial.expand(len(tokens.ids), -1) if state is None else state.next
        if self.config.blocks == 1 or not targets.shape[1]:
            after = self.filtering_states(chain, tokens, state)
            probs = (after * emission_probs(chain, targets.clamp(min=0)).transpose(0, 1)).sum(-1)
            return nll_of(probs, targets), None if state is None else self.next_state(state, tokens, after)
        probs, filtered = predict_targets(chain, tokens.ids, targets, before)
        if state is None:
            return nll_of(probs, targets), None
        rows, last = torch.arange(len(before), device=before.device), tokens.last_positions().clamp(min=0)
        after = propagate(chain, filtered[rows, last], tokens.ids[rows, last])
        if tokens.lengths is not None:
            after = torch.where(tokens.lengths[:, None] > 0, after, before)
        return nll_of(probs, targets), FilteringState(after, n_read=self.new_lengths(state, tokens))

    def compile(self, *_: object, **__: object) -> None:
        """Does nothing: time steps depend on each other, and each is one matrix product."""

    def check_ids(self, ids: Tensor) -> None:
        """Raises VocabularyMismatch for an id outside the vocabulary."""
        if ids.numel() and not ids.is_meta and (worst := int(ids.max())) >= self.vocab:
            raise VocabularyMismatch(
                f"token id {worst:,} lies outside the model's vocabulary of {self.vocab:,}; "
                "open the tokenizer that was saved with the model"
            )


def nll_of(probs: Float[Tensor, "B T"], targets: Int[Tensor, "B T"]) -> Float[Tensor, "B T"]:
    """Negative logarithm of the targets' probabilities, (B, T); 0 where the target is IGNORE_INDEX."""
    nll = -probs.clamp_min(torch.finfo(probs.dtype).tiny).log()
    return torch.where(targets == IGNORE_INDEX, torch.zeros_like(nll), nll)
