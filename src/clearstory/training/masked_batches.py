"""Batches for masked language modelling: which tokens are masked, windows of text, and pairs of sentences.

Devlin et al. 2019, section 3.1. As in `batches`, batch i is a function of (dataset, seed, i).
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt
import torch

from clearstory.errors import BadInput, BadSetting
from clearstory.models.base import IGNORE_INDEX, TokenBatch, TokenSequences
from clearstory.text.special_tokens import cls_and_sep_ids, continuation_mask, require_mask_token
from clearstory.text.tokenizers import Tokenizer
from clearstory.training.batches import Batch, WindowBatches

MASK_PROBABILITY = 0.15
"""Fraction of the tokens that are predicted."""

REPLACE_WITH_MASK, REPLACE_WITH_RANDOM = 0.8, 0.1
"""Fractions of these that are replaced with [MASK] and with a random token; the others are unchanged."""

Ids = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class TokenMasking:
    """The maskable tokens and the special ids of a tokenizer.

    Args:
        mask_token_id: replaces masked tokens.
        cls_token_id: begins every sequence.
        sep_token_id: ends every text.
        maskable_ids: ids that may be masked or replace another: all that are not special.
        is_special: (V,) whether an id is special.
        is_continuation: (V,) whether an id continues a word; None to mask tokens rather than whole words.
    """

    mask_token_id: int
    cls_token_id: int
    sep_token_id: int
    maskable_ids: Ids
    is_special: npt.NDArray[np.bool_]
    is_continuation: npt.NDArray[np.bool_] | None = None

    @classmethod
    def from_tokenizer(cls, tokenizer: Tokenizer, whole_words: bool = False) -> Self:
        """The masking of a tokenizer. Raises CannotDo for one without [CLS], [SEP] and [MASK]."""
        special = tokenizer.special_tokens_mask
        continuation = continuation_mask(tokenizer) if whole_words else None
        mask_token_id = require_mask_token(tokenizer)
        return cls(mask_token_id, *cls_and_sep_ids(tokenizer), np.flatnonzero(~special), special, continuation)

    def sample(self, ids: Ids, rng: np.random.Generator) -> tuple[Ids, Ids]:
        """Sequences (B, T) with some tokens masked, and the targets (B, T): IGNORE_INDEX at positions not predicted.

        Of each sequence the number of tokens nearest to MASK_PROBABILITY, and at least one where there is one; of whole
        words, as many as fit into that number, and at least one word.
        """
        chosen = np.zeros(ids.shape, dtype=np.bool_)
        for row, row_chosen in zip(ids, chosen, strict=True):
            positions = np.flatnonzero(~self.is_special[row])
            if not len(positions):
                continue
            begins_word = (
                np.ones(len(positions), np.bool_)
                if self.is_continuation is None
                else ~self.is_continuation[row[positions]]
            )
            begins_word[0] = True
            word = np.cumsum(begins_word) - 1
            sizes = np.bincount(word)
            order = rng.permutation(len(sizes))
            fits = np.cumsum(sizes[order]) <= max(1, round(MASK_PROBABILITY * len(positions)))
            fits[0] = True
            row_chosen[positions[np.isin(word, order[fits])]] = True
        targets = np.where(chosen, ids, IGNORE_INDEX)
        draws = rng.random(ids.shape)
        random_ids = self.maskable_ids[rng.integers(len(self.maskable_ids), size=ids.shape)]
        replaced = np.where(draws < REPLACE_WITH_MASK + REPLACE_WITH_RANDOM, random_ids, ids)
        inputs = np.where(draws < REPLACE_WITH_MASK, self.mask_token_id, replaced)
        return np.where(chosen, inputs, ids), targets


class MaskedWindowBatches:
    """`WindowBatches` between [CLS] and [SEP]; masks are a function of (seed, index)."""

    def __init__(
        self,
        dataset: TokenSequences,
        context: int,
        batch_size: int,
        seed: int,
        masking: TokenMasking,
        align_documents: bool = False,
    ) -> None:
        if context < 4:
            raise BadSetting(
                f"a context of {context} is too short for text between [CLS] and [SEP]; set training.context to 4 or "
                "more"
            )
        self.windows = WindowBatches(dataset, context - 2, batch_size, seed, align_documents)
        self.masking = masking
        self.seed = seed
        self.examples_per_epoch = self.windows.windows_per_epoch

    def batch(self, index: int) -> Batch:
        """Batch `index`; there is no last one."""
        window = self.windows.batch(index).tokens.ids.numpy()
        ids = np.pad(window, ((0, 0), (1, 1)), constant_values=self.masking.sep_token_id)
        ids[:, 0] = self.masking.cls_token_id
        inputs, targets = self.masking.sample(ids, np.random.default_rng([self.seed, 2, index]))
        return Batch(TokenBatch(torch.from_numpy(inputs)), torch.from_numpy(targets))

    def continues(self, index: int) -> bool:
        """False: windows are shuffled."""
        return False


class SentencePair(NamedTuple):
    """Two texts ids[a:b] and ids[c:d], and whether the second is taken from another document."""

    a: int
    b: int
    c: int
    d: int
    is_not_next: bool


class SentencePairBatches:
    """Batches of [CLS] first [SEP] second [SEP], masked; the second text follows the first or is a random one.

    The dataset's sequences are sentences, and an empty sequence ends a document, as
    `Corpus.encode(..., sentences=True)` makes them. A document is read from its beginning: as many sentences as fit are
    cut in two at a random sentence boundary. With probability 1/2 the second part is replaced by text of another
    document that begins at a random sentence, and reading continues with the replaced part. So both classes have
    similar lengths.
    """

    def __init__(
        self, dataset: TokenSequences, context: int, batch_size: int, seed: int, masking: TokenMasking
    ) -> None:
        if context < 8:
            raise BadSetting(
                f"a context of {context} tokens is too short for two texts; set training.context to 8 or more"
            )
        self.dataset, self.masking = dataset, masking
        self.batch_size, self.seed = batch_size, seed
        self.max_tokens = context - 3
        self.documents = [document for document in self.sentence_starts() if len(document) > 1]
        if len(self.documents) < 2:
            raise BadInput(
                "next-sentence prediction takes half of the second sentences from another document, but a split of "
                f"this text (training or validation) has {len(self.documents)}; give more documents (several files, "
                "or "
                "jsonl with one per line), or train without it: --objective mlm"
            )
        if not any(len(document) > 2 for document in self.documents):
            raise BadInput(
                f"none of the {len(self.documents):,} documents has two sentences; give longer documents, or train "
                "without next-sentence prediction: --objective mlm"
            )
        self.cached_epoch: tuple[int, list[SentencePair]] | None = None
        self.examples_per_epoch = len(self.epoch_pairs(0))

    def sentence_starts(self) -> list[list[int]]:
        """For each document, where its sentences begin, and its end; sentences over half of the room are cut."""
        longest = self.max_tokens // 2
        documents: list[list[int]] = []
        starts: list[int] = []
        for start, stop in pairwise(np.asarray(self.dataset.starts).tolist()):
            if start == stop:
                documents.append([*starts, start])
                starts = []
            starts += range(start, stop, longest)
        return documents

    def epoch_pairs(self, epoch: int) -> list[SentencePair]:
        """All pairs of an epoch, shuffled."""
        if self.cached_epoch is None or self.cached_epoch[0] != epoch:
            rng = np.random.default_rng([self.seed, 1, epoch])
            pairs = [
                pair
                for document, starts in enumerate(self.documents)
                for pair in self.document_pairs(document, starts, rng)
            ]
            self.cached_epoch = epoch, [pairs[index] for index in rng.permutation(len(pairs))]
        return self.cached_epoch[1]

    def document_pairs(self, document: int, starts: list[int], rng: np.random.Generator) -> list[SentencePair]:
        """The pairs of one document."""
        pairs, first, last = [], 0, len(starts) - 1
        while first + 2 <= last:
            end = min(bisect_right(starts, starts[first] + self.max_tokens) - 1, last)
            middle = int(rng.integers(first + 1, end))
            if rng.random() < 0.5:
                pairs.append(SentencePair(starts[first], starts[middle], starts[middle], starts[end], False))
                first = end
            else:
                limit = self.max_tokens - (starts[middle] - starts[first])
                other = self.random_text(document, limit, rng)
                pairs.append(SentencePair(starts[first], starts[middle], *other, True))
                first = middle
        return pairs

    def random_text(self, document: int, limit: int, rng: np.random.Generator) -> tuple[int, int]:
        """Start and end of whole sentences of another document, at most `limit` tokens; a longer one is cut off."""
        other = int(rng.integers(len(self.documents) - 1))
        starts = self.documents[other + (other >= document)]
        first = int(rng.integers(len(starts) - 1))
        end = max(bisect_right(starts, starts[first] + limit) - 1, first + 1)
        return starts[first], min(starts[end], starts[first] + limit)

    def batch(self, index: int) -> Batch:
        """Batch `index`; there is no last one."""
        pairs = []
        for number in range(index * self.batch_size, (index + 1) * self.batch_size):
            epoch_pairs = self.epoch_pairs(number // self.examples_per_epoch)
            pairs.append(epoch_pairs[number % self.examples_per_epoch % len(epoch_pairs)])
        lengths = [pair.b - pair.a + pair.d - pair.c + 3 for pair in pairs]
        ids = np.full((len(pairs), max(lengths)), self.masking.sep_token_id, dtype=np.int64)
        token_type_ids = np.zeros_like(ids)
        for row, types, pair in zip(ids, token_type_ids, pairs, strict=True):
            middle, end = pair.b - pair.a + 2, pair.b - pair.a + 2 + pair.d - pair.c
            row[0] = self.masking.cls_token_id
            row[1 : middle - 1] = self.dataset.ids[pair.a : pair.b]
            row[middle:end] = self.dataset.ids[pair.c : pair.d]
            types[middle : end + 1] = 1
        inputs, targets = self.masking.sample(ids, np.random.default_rng([self.seed, 2, index]))
        return Batch(
            TokenBatch(torch.from_numpy(inputs), torch.tensor(lengths)),
            torch.from_numpy(targets),
            torch.from_numpy(token_type_ids),
            torch.tensor([int(pair.is_not_next) for pair in pairs]),
        )

    def continues(self, index: int) -> bool:
        """False: pairs are shuffled."""
        return False
