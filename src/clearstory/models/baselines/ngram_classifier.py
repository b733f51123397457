"""NGramClassifier: Bayes classifier with an n-gram model per label and the label frequencies as prior.

P(label | text) ∝ P(label) Π P(token | label, the tokens before)        Bayes' rule; Peng and Schuurmans 2003
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from clearstory.models.base import IGNORE_INDEX, TokenBatch
from clearstory.models.baselines.config import NGramClassifierConfig
from clearstory.models.capabilities import Capability
from clearstory.models.ngram.config import NGramConfig
from clearstory.models.ngram.model import NGram


class NGramClassifier(nn.Module):
    """An n-gram model of the texts of each label, and the label frequencies.

    The boundary token (`bos_token_id` of the n-gram models) precedes each text and ends it.
    """

    log_priors: Tensor  # (labels,)
    capabilities = frozenset({Capability.CLASSIFIER, Capability.COUNT_FITTED})

    def __init__(self, config: NGramClassifierConfig) -> None:
        super().__init__()
        self.config, self.vocab, self.context = config, config.vocab, None
        self.compute_dtype: torch.dtype | None = None
        self.models = nn.ModuleList(NGram(cast(NGramConfig, each)) for each in config.configs)
        self.register_buffer("log_priors", torch.zeros(len(config.labels)))

    def fit(self, texts: Sequence[Sequence[int]], targets: Sequence[int]) -> None:
        """Count and smooth the n-grams of the texts of each label. `targets` are label ids; each occurs."""
        counts = np.bincount(targets, minlength=len(self.models))
        self.log_priors = torch.from_numpy(np.log(counts / counts.sum())).float()
        for label, model in enumerate(self.models):
            ngram = cast(NGram, model)
            boundary = self.boundary
            own = [[*text, boundary] for text, target in zip(texts, targets, strict=True) if target == label]
            starts = np.cumsum([0, *map(len, own)])
            ids = np.fromiter(chain.from_iterable(own), dtype=np.int64, count=int(starts[-1]))
            for _ in ngram.fit(cast(Any, SimpleNamespace(ids=ids, starts=starts, byte_lengths=None))):
                pass
        self.config = replace(self.config, configs=tuple(cast(NGram, each).config for each in self.models))

    @property
    def boundary(self) -> int:
        """The token before and after each text."""
        return cast(int, cast(NGramConfig, self.config.configs[0]).bos_token_id)

    def class_logits(self, tokens: TokenBatch, token_types: Tensor | None = None) -> Float[Tensor, "B labels"]:
        """Logarithms of P(label, text), (B, labels)."""
        lengths = tokens.last_positions() + 1
        ids = tokens.ids.cpu()
        edge = torch.full((len(ids), 1), self.boundary)
        inputs, targets = torch.cat([edge, ids], 1), torch.cat([ids, edge], 1)
        positions = torch.arange(targets.shape[1])
        targets = targets.masked_fill(positions > lengths[:, None].cpu(), IGNORE_INDEX)
        targets[torch.arange(len(ids)), lengths.cpu()] = self.boundary
        nats = [cast(NGram, each).token_nll(TokenBatch(inputs), targets)[0].double().sum(1) for each in self.models]
        return self.log_priors.double() - torch.stack(nats, 1)
