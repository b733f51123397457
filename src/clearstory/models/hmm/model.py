"""HMM: reads left to right into a belief about a hidden state, and foretells the next token from it. Rabiner 1989."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from clearstory.errors import VocabularyMismatch
from clearstory.models.base import IGNORE_INDEX, FitProgress, TokenBatch, TokenSequences
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
from clearstory.models.hmm.state import FilteringState
from clearstory.models.hmm.suffixes import LONGEST
from clearstory.models.hmm.tag_counts import TaggedTokens, fit_tag_counts

Birth = Literal["normal", "zero"]

BIRTH_STD = 2.0
"""Of the logits. States that are born too much alike take many rounds of Baum-Welch to part."""


class HMM(nn.Module):
    """A chain of hidden states: each goes over into the next by chance, and speaks a token by chance.

    Its parameters are logits, whose softmax gives the chances: `initial` over the first state, `transition` of each
    state over the next, `emission` of each state (column) over the tokens it may speak. Baum-Welch sets them to
    logarithms of probabilities, which are logits too.

    >>> model = HMM(HMMConfig(vocab=67, states=8))
    >>> hidden, belief = model.forward(TokenBatch.from_sequences([[1, 2, 3]]), model.init_state())
    >>> model.logits(hidden).shape, belief.lengths
    (torch.Size([1, 3, 67]), [3])
    """

    def __init__(self, config: HMMConfig) -> None:
        super().__init__()
        c = config
        self.config = c
        self.vocab = c.vocab
        self.context: int | None = None  # it forgets, but not on purpose
        self.compute_dtype: torch.dtype | None = None  # taken note of, and left alone: a belief needs its digits
        self.initial = nn.Parameter(torch.empty(c.states))
        self.transition = nn.Parameter(torch.empty((c.states,) * c.order))
        self.emission = nn.Parameter(torch.empty(c.vocab, c.speakers))
        if c.learn == "tags":
            self.register_buffer("endings", torch.zeros(c.endings, LONGEST + 1, dtype=torch.int32))
            self.register_buffer("ended", torch.zeros(c.endings, len(c.tags)))  # what tags words with each ending have
            self.register_buffer("shares", torch.zeros(c.states))  # how likely each state is anywhere
        self.kept: tuple[Any, HMMProbabilities] | None = None
        self.reset()

    @torch.no_grad()
    def reset(self, birth: Birth = "normal") -> None:
        """Weights as at birth: drawn, since states that are born alike stay alike. That "still" is the same."""
        for weight in self.parameters():
            if not weight.is_meta:
                nn.init.normal_(weight, std=BIRTH_STD)

    @property
    def capabilities(self) -> frozenset[Capability]:
        """What a hidden Markov model can do, by how it learns."""
        c = self.config
        optional = {Capability.COUNT_FITTED: c.learn != "gradient", Capability.TAGS: bool(c.tags)}
        always = {Capability.CAUSAL, Capability.HMM_STATES, Capability.GRADIENTS}
        return frozenset(always | {each for each, there in optional.items() if there})

    @property
    def counted(self) -> bool:
        """Whether it learns by counting."""
        return self.config.learn != "gradient"

    @property
    def rounds(self) -> int | None:
        """Baum-Welch goes on for as long as one likes; tags are counted once."""
        return 1 if self.config.learn == "tags" else None

    def check_data(self, rows: TokenSequences) -> None:
        """Any text will do."""

    def fit(self, rows: TokenSequences, done: int = 0) -> Iterator[FitProgress]:
        """Round after round of Baum-Welch over a text, see `learning`; or all tags at once, see `tags`."""
        if not isinstance(rows, TaggedTokens):
            return baum_welch.fit(self, rows, done)
        fit_tag_counts(self, rows)
        return iter([FitProgress(len(rows.ids))])

    def probabilities(self) -> HMMProbabilities:
        """The probabilities; kept until the parameters change where no gradient is asked for."""
        weights = (self.initial, self.transition, self.emission)
        if torch.is_grad_enabled() and any(weight.requires_grad for weight in weights):
            # What is about to be updated: torch's fused kernels change a parameter and leave its version as it was.
            self.kept = None
            return self.compute_probabilities()
        if any(weight.is_inference() for weight in weights):  # nobody counts their changes
            return self.compute_probabilities()
        key = [(weight.data_ptr(), weight._version, weight.dtype, weight.device) for weight in weights]
        if self.kept is None or self.kept[0] != key:
            with torch.inference_mode(False), torch.no_grad():
                self.kept = (key, self.compute_probabilities())
        return self.kept[1]

    def compute_probabilities(self) -> HMMProbabilities:
        """The chances that the logits stand for."""
        blocks, words = self.config.blocks, self.emission
        if self.config.order == 3:
            return self.compute_trigram_probabilities()
        if blocks == 1:
            return HMMProbabilities(self.initial.softmax(0), self.transition.softmax(1), words.softmax(0))
        short = -self.vocab % blocks
        padded = F.pad(words, (0, 0, 0, short), value=-torch.inf).view(-1, blocks, self.config.speakers)
        spoken = padded.softmax(0).flatten(0, 1)[: self.vocab]
        return HMMProbabilities(self.initial.softmax(0), self.transition.softmax(1), spoken)

    def compute_trigram_probabilities(self) -> HMMProbabilities:
        """A chain of pairs of tags: the second of one is the first of the next, and speaks."""
        size = self.config.states
        first = self.initial.softmax(0)
        ways = torch.einsum("ijk,jl->ijlk", self.transition.softmax(2), torch.eye(size).to(first))
        words = self.emission.softmax(0).repeat(1, size)
        return HMMProbabilities(torch.outer(first, first).flatten(), ways.reshape(size**2, size**2), words)

    def init_state(self, batch_size: int = 1) -> FilteringState:
        """The belief of `batch_size` rows that have read nothing."""
        first = self.probabilities().initial
        return FilteringState(first.expand(batch_size, -1), (0,) * batch_size)

    def forward(
        self, tokens: TokenBatch, state: FilteringState | None = None
    ) -> tuple[Float[Tensor, "B T W"], FilteringState | None]:
        """The belief about the next state after each token. Raises VocabularyMismatch for an id it does not know."""
        self.check_ids(tokens.ids)
        chain = self.probabilities()
        first = chain.initial.expand(len(tokens.ids), -1) if state is None else state.next
        after = forward_algorithm(chain, tokens.ids, first)
        return after, None if state is None else self.later(state, tokens, after)

    def later(self, state: FilteringState, tokens: TokenBatch, after: Float[Tensor, "B T W"]) -> FilteringState:
        """The belief behind each row's last token."""
        every = torch.cat([state.next.unsqueeze(1), after], 1)  # a row may have read nothing
        rows = torch.arange(len(every), device=after.device)
        return FilteringState(every[rows, tokens.last_positions() + 1], self.longer(state, tokens))

    def longer(self, state: FilteringState, tokens: TokenBatch) -> tuple[int, ...]:
        """Tokens of each row with those just read."""
        new = (tokens.last_positions() + 1).tolist()
        return tuple(before + more for before, more in zip(state.read, new, strict=True))

    def logits(self, hidden: Float[Tensor, "*D W"]) -> Float[Tensor, "*D V"]:
        """The logarithm of every token's probability, only where asked for."""
        told = token_probs(self.probabilities(), hidden.reshape(-1, hidden.shape[-1]))
        logs = told.clamp_min(torch.finfo(told.dtype).tiny).log()
        return logs.view(*hidden.shape[:-1], self.vocab)

    def token_nll(
        self, tokens: TokenBatch, targets: Int[Tensor, "B T"], state: FilteringState | None = None
    ) -> tuple[Float[Tensor, "B T"], FilteringState | None]:
        """Nats of each target after reading up to it, 0 where it is IGNORE_INDEX; looked up, not searched for."""
        self.check_ids(tokens.ids)
        self.check_ids(targets)
        chain = self.probabilities()
        first = chain.initial.expand(len(tokens.ids), -1) if state is None else state.next
        if self.config.blocks == 1 or not targets.shape[1]:
            after = forward_algorithm(chain, tokens.ids, first)
            told = (after * emission_probs(chain, targets.clamp(min=0)).transpose(0, 1)).sum(-1)
            return self.nats(told, targets), None if state is None else self.later(state, tokens, after)
        told, spoke = predict_targets(chain, tokens.ids, targets, first)
        if state is None:
            return self.nats(told, targets), None
        rows, last = torch.arange(len(first), device=first.device), tokens.last_positions().clamp(min=0)
        after = propagate(chain, spoke[rows, last], tokens.ids[rows, last])
        if tokens.lengths is not None:
            after = torch.where(tokens.lengths[:, None] > 0, after, first)
        return self.nats(told, targets), FilteringState(after, self.longer(state, tokens))

    def nats(self, told: Float[Tensor, "B T"], targets: Int[Tensor, "B T"]) -> Float[Tensor, "B T"]:
        """What probabilities cost, where they are asked for."""
        costs = -told.clamp_min(torch.finfo(told.dtype).tiny).log()
        return torch.where(targets == IGNORE_INDEX, torch.zeros_like(costs), costs)

    def compile(self, *_: object, **__: object) -> None:
        """Nothing: the steps depend on each other, and each is one matrix product."""

    def check_ids(self, ids: Tensor) -> None:
        """Refuse what would otherwise fail far away, or not at all."""
        if ids.numel() and not ids.is_meta and (worst := int(ids.max())) >= self.vocab:
            raise VocabularyMismatch(
                f"token id {worst:,} lies outside the model's vocabulary of {self.vocab:,}; "
                "open the tokenizer saved beside the model"
            )
