"""Mixture: after each token, the weighted mean of the distributions of several models and of a cache.

P(w) = Σ_e g_e(context) · P_e(w). Linear interpolation (Jelinek and Mercer 1980), with weights from a gate. The experts
are trained on their own, each with its own objective; the gate is fitted on text that none of them has read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from clearstory.models.base import IGNORE_INDEX, TokenBatch
from clearstory.models.build import build
from clearstory.models.capabilities import Capability, has_capability
from clearstory.models.mixture.cache import (
    ORDERS,
    cache_counts,
    cache_features,
    cache_log_probs,
    cached_matches,
    count_matches,
    history_length,
)
from clearstory.models.mixture.config import MixtureConfig
from clearstory.models.mixture.gate import Gate
from clearstory.models.mixture.state import MixtureState
from clearstory.models.mixture.windows import read_in_windows
from clearstory.models.transformer.stack import Initialization

DENSE_TOKENS = 64
"""Number of positions mixed at the same time: each has a distribution over the vocabulary for every component."""


class Mixture(nn.Module):
    """A mixture of language models over one vocabulary, with a cache of the text read so far.

    Its hidden state after a token holds, side by side, the position, those of the experts, and the tokens of the cache
    with the length of the context that they follow.

    >>> from clearstory.models.ngram.config import NGramConfig
    >>> config = MixtureConfig(vocab=5, experts=("ngram",), cache=8, configs=(NGramConfig(vocab=5, order=2),))
    >>> model = Mixture(config)
    >>> hidden, _ = model.forward(TokenBatch(torch.tensor([[1, 2, 1]])))
    >>> [round(each, 3) for each in model.logits(hidden)[0, 2].exp().tolist()]  # of token 2: (1/5 + 1/3 + 1) / 3
    [0.067, 0.289, 0.511, 0.067, 0.067]
    """

    capabilities = frozenset({Capability.CAUSAL, Capability.EXPERTS})
    chunk_tokens = 2**13  # tokens of a text scored at a time: windows are read side by side

    def __init__(self, config: MixtureConfig) -> None:
        super().__init__()
        self.vocab = config.vocab
        self.context: int | None = None  # an expert with a context reads on in windows
        self.experts = nn.ModuleList(build(each) for each in config.configs)
        self.fitted_config = config
        features = 1 + sum(map(feature_count, self.experts)) + (ORDERS if config.cache else 0)
        self.gate = Gate(features, len(self.component_names))

    @property
    def config(self) -> MixtureConfig:
        """The settings, with those of the experts as they are now: an n-gram model's sizes follow from its text."""
        return replace(self.fitted_config, configs=tuple(each.config for each in self.models))

    @property
    def models(self) -> Sequence[Any]:
        """The experts."""
        return list(self.experts)

    @property
    def component_names(self) -> list[str]:
        """Names of the mixed distributions: the experts, and the cache after 0, 1 and 2 tokens."""
        cache = [f"cache {order}" for order in range(1, ORDERS + 1)] if self.fitted_config.cache else []
        return [*self.fitted_config.experts, *cache]

    @property
    def compute_dtype(self) -> torch.dtype | None:
        """None: experts compute in the dtype of their weights, which their states have, too."""
        return None

    @compute_dtype.setter
    def compute_dtype(self, dtype: torch.dtype | None) -> None:
        for each in self.models:
            each.compute_dtype = None

    def reset(self, initialization: Initialization = "normal") -> None:
        """Initialise the weights of the networks, and the gate: equal weights."""
        for each in self.models:
            if hasattr(each, "reset"):
                each.reset(initialization)
        self.gate.reset()

    def resize(self, shapes: Mapping[str, Sequence[int]]) -> None:
        """Make the tables of n-gram models as large as saved ones, given the shape of each saved tensor."""
        for at, each in enumerate(self.models):
            if has_capability(each, Capability.NGRAM_COUNTS):
                prefix = f"experts.{at}."
                each.resize({key.removeprefix(prefix): v for key, v in shapes.items() if key.startswith(prefix)})

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Compile the networks with torch.compile."""
        for each in self.models:
            if has_capability(each, Capability.GRADIENTS):
                each.compile(*args, **kwargs)

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return self.gate.shift.device

    @property
    def reach(self) -> int:
        """Ids that a state keeps of each sequence: for the cache, and to begin windows with."""
        halves = [int(each.context) // 2 for each in self.models if each.context is not None]
        return max([history_length(self.fitted_config.cache), 1, *halves])

    def init_state(self, batch_size: int = 1) -> MixtureState:
        """The state of `batch_size` empty sequences."""
        ids = torch.full((batch_size, self.reach), -1, device=self.device)
        return MixtureState(tuple(each.init_state(batch_size) for each in self.models), ids, n_read=(0,) * batch_size)

    def forward(
        self, tokens: TokenBatch, state: MixtureState | None = None
    ) -> tuple[Float[Tensor, "B T W"], MixtureState | None]:
        """Hidden states after each token in float64, (B, T, W), and the state after the last; without a state, None.

        Raises VocabularyMismatch for an id outside the vocabulary.
        """
        before = self.init_state(len(tokens.ids)) if state is None else state
        if tokens.lengths is not None:
            return self.read_padded(tokens, None, before, state)
        hiddens, after, ids = self.read(tokens.ids, before, None)
        # In float64, which holds row numbers of n-grams exactly.
        parts = [position_feature(before, tokens.ids).double(), *(each.double() for each in hiddens)]
        if self.fitted_config.cache:
            parts += [each.double() for each in cached_matches(ids, self.fitted_config.cache, tokens.ids.shape[1])]
        return torch.cat(parts, -1), None if state is None else after

    def read(
        self, ids: Int[Tensor, "B T"], before: MixtureState, targets: Int[Tensor, "B T"] | None
    ) -> tuple[list[Tensor], MixtureState, Int[Tensor, "B L"]]:
        """What each expert says of new tokens, their hidden states or the targets' losses; the state; and all ids."""
        ids = ids.to(before.ids.device)
        outputs, states = [], []
        for model, state in zip(self.models, before.experts, strict=True):
            output, after = read_in_windows(model, ids, state, before.ids, targets)
            outputs.append(output)
            states.append(after)
        whole = torch.cat([before.ids, ids], 1)
        n_read = tuple(count + ids.shape[1] for count in before.n_read)
        return outputs, MixtureState(tuple(states), whole[:, ids.shape[1] :], n_read=n_read), whole

    def read_padded(
        self, tokens: TokenBatch, targets: Tensor | None, before: MixtureState, state: MixtureState | None
    ) -> tuple[Tensor, MixtureState | None]:
        """A padded batch, sequence by sequence, each without its padding; zeros stand for what follows a sequence."""
        assert tokens.lengths is not None
        outputs, states = [], []
        for row, length in enumerate(tokens.lengths.tolist()):
            one, own = TokenBatch(tokens.ids[row : row + 1, :length]), before.select([row])
            if targets is None:
                output, after = self.forward(one, own)
            else:
                output, after = self.token_nll(one, targets[row : row + 1, :length], own)
            padding = output.new_zeros(1, tokens.ids.shape[1] - length, *output.shape[2:])
            outputs.append(torch.cat([output, padding], 1))
            assert after is not None
            states.append(after)
        return torch.cat(outputs), None if state is None else MixtureState.join(states)

    def token_nll(
        self, tokens: TokenBatch, targets: Int[Tensor, "B T"], state: MixtureState | None = None
    ) -> tuple[Float[Tensor, "B T"], MixtureState | None]:
        """Negative log-likelihood of each target in nats, (B, T); 0 where it is IGNORE_INDEX.

        No distribution is computed where an expert can look its target up.
        """
        before = self.init_state(len(tokens.ids)) if state is None else state
        if tokens.lengths is not None:
            return self.read_padded(tokens, targets, before, state)
        log_probs, features, possible, after = self.component_log_probs(tokens.ids, targets, before)
        nll = -torch.logsumexp(self.gate(features, possible) + log_probs, -1)
        return nll.where(targets.to(nll.device) != IGNORE_INDEX, 0), None if state is None else after

    def component_log_probs(
        self, ids: Int[Tensor, "B T"], targets: Int[Tensor, "B T"], before: MixtureState
    ) -> tuple[Float[Tensor, "B T E"], Float[Tensor, "B T F"], Bool[Tensor, "B T E"], MixtureState]:
        """Log-probability of each target under each component, the gate's features, which components have a
        distribution, and the state after the last token.
        """
        targets = targets.to(before.ids.device)
        losses, after, whole = self.read(ids, before, targets)
        dtype = self.gate.shift.dtype
        log_probs = [-each.to(dtype)[..., None] for each in losses]
        features = [position_feature(before, ids)]
        for model, state in zip(self.models, before.experts, strict=True):
            if feature_count(model):
                features.append(context_features(model, model.forward(TokenBatch(ids), state)[0]))
        possible = [torch.ones_like(each, dtype=torch.bool) for each in log_probs]
        if self.fitted_config.cache:
            counts, hits = count_matches(whole, targets, self.fitted_config.cache)
            log_probs.append((hits.to(dtype) / counts.clamp(min=1)).log())
            features.append(cache_features(counts))
            possible.append(counts > 0)
        return torch.cat(log_probs, -1), torch.cat(features, -1), torch.cat(possible, -1), after

    def logits(self, hidden: Float[Tensor, "*D W"]) -> Float[Tensor, "*D V"]:
        """Log-probabilities of the next token, (..., V); they are normalised already."""
        flat = hidden.reshape(-1, hidden.shape[-1])
        mixed = [torch.logsumexp(each + weights[:, None], -1) for each, weights in self.iter_components(flat)]
        out = torch.cat(mixed) if mixed else flat.new_zeros(0, self.vocab)
        return out.view(*hidden.shape[:-1], self.vocab)

    def iter_components(
        self, hidden: Float[Tensor, "N W"]
    ) -> Iterator[tuple[Float[Tensor, "n V E"], Float[Tensor, "n E"]]]:
        """For some positions at a time: log-probabilities of the next token under each component, and log-weights."""
        sizes = [hidden_size(each) for each in self.models]
        cache = self.fitted_config.cache
        dtype = self.gate.shift.dtype
        for part in torch.split(hidden, DENSE_TOKENS):
            position, *own = torch.split(part, [1, *sizes, *([cache, cache] if cache else [])], -1)
            logits, features, possible = [], [position], []
            for model, each in zip(self.models, own, strict=False):
                logits.append(model.logits(each.to(output_dtype(model))).to(dtype).log_softmax(-1)[..., None])
                possible.append(torch.ones(len(part), 1, dtype=torch.bool, device=part.device))
                if feature_count(model):
                    features.append(context_features(model, each))
            if cache:
                cached, depth = own[-2].long(), own[-1].long()
                logits.append(cache_log_probs(cached, depth, self.vocab).to(dtype))
                counts = cache_counts(depth)
                features.append(cache_features(counts))
                possible.append(counts > 0)
            yield torch.cat(logits, -1), self.gate(torch.cat(features, -1), torch.cat(possible, -1))


MAX_POSITION = 256
"""Upper bound of the position feature of the gate."""


def position_feature(before: MixtureState, ids: Int[Tensor, "B T"]) -> Float[Tensor, "B T 1"]:
    """The logarithm of the number of tokens read up to each new one, at most MAX_POSITION, (B, T, 1)."""
    first = torch.tensor(before.n_read, device=before.ids.device)[:, None]
    positions = first + torch.arange(1, ids.shape[1] + 1, device=before.ids.device)
    return positions.clamp(max=MAX_POSITION).double().log()[..., None]


def hidden_size(model: Any) -> int:
    """Width of a model's hidden states."""
    if has_capability(model, Capability.NGRAM_COUNTS):
        return int(model.config.order)
    if has_capability(model, Capability.HMM_STATES):
        return int(model.config.width)
    if has_capability(model, Capability.RECURRENT_STATE):
        return int(model.output_embeddings.shape[-1])
    return int(model.config.width) + (model.vocab if getattr(model, "has_hashed_logits", False) else 0)


def output_dtype(model: Any) -> torch.dtype:
    """Dtype in which a model takes hidden states: that of its weights; float64 for the row numbers of n-grams."""
    weight = next(iter(model.parameters()), None)
    return torch.float64 if weight is None else weight.dtype


def feature_count(model: Any) -> int:
    """Number of features of the context that a model has for the gate: n-gram models have two for each order."""
    return 2 * (model.config.order - 1) if has_capability(model, Capability.NGRAM_COUNTS) else 0


def context_features(model: Any, hidden: Float[Tensor, "*D W"]) -> Float[Tensor, "*D F"]:
    """For each order of an n-gram model: whether it has seen the context, and the logarithm of its backoff weight."""
    features: Tensor = model.context_features(hidden)
    return features
