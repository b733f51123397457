"""BagOfWords: TF-IDF features of words and word bigrams, with a linear model per label.

    tf(t) = 1 + ln n(t),  idf(t) = ln((1 + N) / (1 + N_t)) + 1,  x = tf · idf / ‖tf · idf‖,  logits = W x + b

as scikit-learn's TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True) with LogisticRegression or Ridge computes them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from torch import Tensor, nn

from clearstory.models.base import TokenBatch
from clearstory.models.baselines.config import BagOfWordsConfig
from clearstory.models.capabilities import Capability

Features = tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]
"""Indices of the words and pairs of a text, rising, and their values."""


class BagOfWords(nn.Module):
    """A linear model of the words and word bigrams of a text. Tokens with an idf of 0, such as <unk>, are ignored.

    >>> model = BagOfWords(BagOfWordsConfig(vocab=3, labels=("bad", "good")))
    >>> model.fit_idf([[1, 2], [1]], words=range(1, 3))
    >>> model.idf.tolist(), model.pair_keys.tolist()  # 1 + ln(3 / 3), 1 + ln(3 / 2); the pair (1, 2) is 1 · 3 + 2
    ([0.0, 1.0, 1.405..., 1.405...], [5])
    """

    pair_keys: Tensor  # (P,) first word times V plus second word, rising
    idf: Tensor  # (V + P,)
    weight: Tensor  # (outputs, V + P)
    bias: Tensor  # (outputs,)
    capabilities = frozenset({Capability.CLASSIFIER, Capability.COUNT_FITTED})

    def __init__(self, config: BagOfWordsConfig) -> None:
        super().__init__()
        self.config, self.vocab, self.context = config, config.vocab, None
        self.compute_dtype: torch.dtype | None = None
        features = config.vocab + config.pairs
        self.register_buffer("pair_keys", torch.zeros(config.pairs, dtype=torch.long))
        self.register_buffer("idf", torch.zeros(features, dtype=torch.float64))
        self.register_buffer("weight", torch.zeros(config.outputs, features, dtype=torch.float64))
        self.register_buffer("bias", torch.zeros(config.outputs, dtype=torch.float64))

    def fit_idf(self, texts: Sequence[Sequence[int]], words: range) -> None:
        """Take the pairs of words and the inverse document frequencies of these texts; `words` are the ids of words."""
        c = self.config
        keys = [pairs_of(np.asarray(text, dtype=np.int64), c.vocab, words) for text in texts]
        pair_keys = np.unique(np.concatenate(keys)) if keys else np.zeros(0, dtype=np.int64)
        self.__init__(type(c)(**{**vars(c), "pairs": len(pair_keys)}))  # type: ignore[misc]  # tables of other sizes
        self.pair_keys = torch.from_numpy(pair_keys)
        documents = np.zeros(c.vocab + len(pair_keys))
        for text, pairs in zip(texts, keys, strict=True):
            documents[np.unique(np.asarray(text, dtype=np.int64))] += 1
            documents[c.vocab + np.searchsorted(pair_keys, np.unique(pairs))] += 1
        idf = np.log((1 + len(texts)) / (1 + documents)) + 1
        idf[[at for at in range(c.vocab) if at not in words]] = 0.0
        self.idf = torch.from_numpy(idf)

    def features(self, text: Sequence[int] | npt.NDArray[np.int64]) -> Features:
        """Indices and values of the words and pairs of words in a text, of length 1 in the Euclidean norm."""
        ids, idf = np.asarray(text, dtype=np.int64), self.idf.numpy()
        pair_keys, keys = self.pair_keys.numpy(), ids[:-1] * self.vocab + ids[1:]
        found = np.searchsorted(pair_keys, keys)
        known = found < len(pair_keys)
        known[known] = pair_keys[found[known]] == keys[known]
        indices, counts = np.unique(np.concatenate([ids, self.vocab + found[known]]), return_counts=True)
        values = (1 + np.log(counts)) * idf[indices]
        indices, values = indices[values > 0], values[values > 0]
        return indices, values / (np.sqrt(values @ values) if len(values) else 1.0)

    def class_logits(self, tokens: TokenBatch, token_types: Tensor | None = None) -> Float[Tensor, "B labels"]:
        """Logits of the labels, or the number, (B, labels)."""
        last = (tokens.last_positions() + 1).tolist()
        logits = []
        for text, length in zip(tokens.ids.cpu().numpy(), last, strict=True):
            indices, values = self.features(text[:length])
            logits.append(self.weight.numpy()[:, indices] @ values + self.bias.numpy())
        found = torch.from_numpy(np.stack(logits))
        return found if self.config.outputs == len(self.config.labels) else torch.cat([found * 0, found], 1)


def pairs_of(ids: npt.NDArray[np.int64], vocab: int, words: range) -> Any:
    """The keys of all pairs of neighbouring words, (at most T − 1,)."""
    is_word = (ids >= words.start) & (ids < words.stop)
    return (ids[:-1] * vocab + ids[1:])[is_word[:-1] & is_word[1:]]
