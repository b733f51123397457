"""Sequence to sequence (seq2seq): predict a target given its source, with teacher forcing.

Sutskever et al. 2014; Vaswani et al. 2017.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from clearstory.errors import BadInput, BadSetting
from clearstory.evaluation.seq2seq import score_targets, target_nll
from clearstory.models.base import IGNORE_INDEX, State, TokenBatch, TokenSequences
from clearstory.models.prompts import bos_or_eos_token_id
from clearstory.models.transformer.encoder_decoder import EncoderDecoder
from clearstory.text.tokenizers import Tokenizer
from clearstory.training.batches import Batch
from clearstory.training.objectives.base import LossTerm, LossTerms, ObjectiveSpec, Validation
from clearstory.training.settings import TrainingSettings

NO_BITS_PER_BYTE = (
    "a target is predicted from its source, so its bits are not comparable with those of a language model; compare "
    "nats per token, or generated text with references"
)
"""Why bits per byte are not defined for targets."""

VALIDATION_BATCH_SIZE = 32

MIN_BATCH_TOKENS, TOKENS_PER_PAIR = 4096, 32
"""Default of training.batch_tokens: the maximum of the first number and of the second per pair of a batch."""

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Seq2Seq:
    """The negative log-likelihood of every target token given the source and the target tokens before it.

    Args:
        decoder_start_token_id: the token that targets are read after.
        label_smoothing: share of each target spread over the vocabulary in training (Szegedy et al. 2016, section 7).
        batch_tokens: largest number of tokens of the batch of a step, padding included; None for no limit.
    """

    decoder_start_token_id: int
    label_smoothing: float = 0.0
    batch_tokens: int | None = None

    loss_unit = "target token"
    no_bits_per_byte = NO_BITS_PER_BYTE

    def configure(self, config: Any) -> tuple[Seq2Seq, Any]:
        """Both with one decoder_start_token_id: the config's own where it has one."""
        start = self.decoder_start_token_id if config.decoder_start_token_id is None else config.decoder_start_token_id
        return replace(self, decoder_start_token_id=start), replace(config, decoder_start_token_id=start)

    def batches(
        self,
        dataset: TokenSequences,
        context: int,
        batch_size: int,
        seed: int,
        stateful: bool = False,
        align_documents: bool = False,
    ) -> Seq2SeqBatches:
        """Pairs of similar lengths."""
        return Seq2SeqBatches(dataset, context, batch_size, seed, self.decoder_start_token_id, self.batch_tokens)

    def count_targets(self, batch: Batch) -> dict[str, int]:
        """Number of target tokens."""
        return {"target": int((batch.targets != IGNORE_INDEX).sum())}

    def loss(self, model: nn.Module, batch: Batch, state: State | None = None) -> tuple[LossTerms, None]:
        """The summed negative log-likelihood of all targets, smoothed, in nats."""
        return {"target": LossTerm(*target_nll(cast(EncoderDecoder, model), batch, self.label_smoothing))}, None

    def validate(
        self, model: nn.Module, dataset: TokenSequences, context: int, limit: int | None = None, spread: bool = True
    ) -> Validation:
        """Loss of the targets of all pairs, or of some from all over, without label smoothing."""
        pairs = Seq2SeqBatches(dataset, context, 1, 0, self.decoder_start_token_id)
        pairs.batch_size = VALIDATION_BATCH_SIZE  # the last batch may be smaller here
        score = score_targets(cast(EncoderDecoder, model), pairs.in_order(limit))
        return Validation(score.without_bytes(self.no_bits_per_byte))

    def sample_source(self, dataset: TokenSequences, index: int, context: int) -> list[int]:
        """The source of pair `index` in shuffled order."""
        return first_source(self.batches(dataset, context, 1, 0).batch(index))


class Seq2SeqBatches:
    """Pairs in batches of similar lengths, limited by the number of pairs and of tokens.

    All pairs are sorted by length, those of equal lengths in random order, and cut into batches, which are shuffled:
    each epoch has every pair once and the same number of batches. The dataset's sequences alternate: a source, its
    target, the next source; each ends with the end-of-sequence token. Pairs with a side longer than `context` are left
    out; `left_out` is their number. Batch i is a function of (dataset, seed, i).

    Args:
        batch_size: largest number of pairs in a batch.
        batch_tokens: largest number of tokens, sources and targets with their padding; a pair with more is a batch of
            its own. None for no limit.
    """

    def __init__(
        self,
        dataset: TokenSequences,
        context: int,
        batch_size: int,
        seed: int,
        decoder_start_token_id: int,
        batch_tokens: int | None = None,
    ) -> None:
        sizes = np.diff(np.asarray(dataset.starts)).reshape(-1, 2)
        self.kept: Indices = np.flatnonzero(sizes.max(1, initial=0) <= context)
        self.left_out = len(sizes) - len(self.kept)
        if not len(self.kept):
            others = f" (of {len(sizes):,}: the others have a source or target of more than {context:,} tokens)"
            raise BadInput(
                f"there are 0 pairs{others if self.left_out else ''} to train on; use more, or a larger "
                "--training.context and --model.context"
            )
        self.dataset = dataset
        self.sizes = sizes
        self.batch_size = batch_size
        self.seed = seed
        self.decoder_start_token_id = decoder_start_token_id
        self.stops = even_stops(sizes[self.by_length(self.kept)], batch_size, batch_tokens)
        self.batches_per_epoch = len(self.stops)
        self.tokens_per_batch = int(sizes[self.kept].sum() / self.batches_per_epoch)
        self.epoch_batches = lru_cache(maxsize=1)(self.shuffled)

    def batch(self, index: int) -> Batch:
        """Batch `index`; there is no last one."""
        epoch, batch_in_epoch = divmod(index, self.batches_per_epoch)
        return self.collate(self.epoch_batches(epoch)[batch_in_epoch])

    def continues(self, index: int) -> bool:
        """False: pairs are shuffled."""
        return False

    def shuffled(self, epoch: int) -> list[Indices]:
        """The pairs of every batch of an epoch."""
        rng = np.random.default_rng([self.seed, epoch])
        pairs = self.by_length(rng.permutation(self.kept))  # the same lengths in every epoch, so the same cuts
        batches = np.split(pairs, self.stops[:-1])
        return [batches[index] for index in rng.permutation(len(batches))]

    def by_length(self, pairs: Indices) -> Indices:
        """The pairs by the length of the side that is longer in total, then by that of the other; ties keep order."""
        longer = int(self.sizes[:, 1].sum() >= self.sizes[:, 0].sum())
        return pairs[np.lexsort((self.sizes[pairs, 1 - longer], self.sizes[pairs, longer]))]

    def collate(self, pairs: Indices) -> Batch:
        """These pairs as a batch."""
        sides = [[sequence(self.dataset, 2 * int(pair) + side) for pair in pairs] for side in (0, 1)]
        return seq2seq_batch(sides[0], sides[1], self.decoder_start_token_id)

    def in_order(self, limit: int | None) -> Iterator[Batch]:
        """Every pair once, sorted by length; with a limit of tokens, pairs from all over the dataset."""
        n_tokens = int(self.sizes[self.kept].sum())
        stride = 1.0 if limit is None else max(1.0, n_tokens / max(1, limit))
        chosen = self.kept[np.arange(0, len(self.kept), stride).astype(np.int64)]
        chosen = self.by_length(chosen)
        for start in range(0, len(chosen), self.batch_size):
            yield self.collate(chosen[start : start + self.batch_size])


def even_stops(sizes: Indices, batch_size: int, batch_tokens: int | None) -> Indices:
    """Ends of the fewest batches that keep both limits, of about the same size, so that none is a small remainder.

    `sizes` (N, 2) are the lengths of both sides of each pair, sorted.
    """
    tokens = batch_tokens or np.iinfo(np.int64).max
    stops = greedy_stops(sizes, batch_size, tokens)
    low, high = 0.5, 1.0
    for _ in range(6 if len(stops) > 1 and batch_size > 1 else 0):
        share = (low + high) / 2
        tried = greedy_stops(sizes, max(1, round(batch_size * share)), int(tokens * share))
        if len(tried) > len(stops):
            low = share
        else:
            stops, high = tried, share
    return stops


def greedy_stops(sizes: Indices, batch_size: int, batch_tokens: int) -> Indices:
    """Ends of batches that are filled one after another up to both limits; each has at least one pair."""
    if batch_size == 1:
        return np.arange(1, len(sizes) + 1)
    stops, start = [], 0
    while start < len(sizes):
        longest = np.maximum.accumulate(sizes[start : start + batch_size])
        padded = longest.sum(1) * np.arange(1, len(longest) + 1)
        start += max(1, int(np.searchsorted(padded, batch_tokens, side="right")))
        stops.append(start)
    return np.array(stops)


def sequence(dataset: TokenSequences, index: int) -> list[int]:
    """The ids of sequence `index`."""
    ids: list[int] = np.asarray(dataset.ids[dataset.starts[index] : dataset.starts[index + 1]]).tolist()
    return ids


def seq2seq_batch(
    sources: Sequence[Sequence[int]], targets: Sequence[Sequence[int]], decoder_start_token_id: int
) -> Batch:
    """Sources and targets as a batch; decoder inputs are the start token and the targets shifted right by one."""
    padded = TokenBatch.from_sequences(targets)
    ids = torch.full_like(padded.ids, decoder_start_token_id)
    ids[:, 1:] = padded.ids[:, :-1]
    labels = padded.ids
    if padded.lengths is not None:
        padding = torch.arange(padded.ids.shape[1]) >= padded.lengths[:, None]
        labels = padded.ids.masked_fill(padding, IGNORE_INDEX)
    return Batch(TokenBatch(ids, padded.lengths), labels, source=TokenBatch.from_sequences(sources))


def first_source(batch: Batch) -> list[int]:
    """The ids of a batch's first source."""
    assert batch.source is not None
    ids: list[int] = batch.source.ids[0].tolist()
    return ids


def start_and_end_ids(tokenizer: Tokenizer) -> tuple[int, int]:
    """The token that targets are read after, and the one that ends them: as in T5 and Marian, padding is the start
    token where there is one. Raises BadSetting for a tokenizer without them.
    """
    start = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else bos_or_eos_token_id(tokenizer)
    if start is None or tokenizer.eos_token_id is None:
        raise BadSetting(
            "this tokenizer has no end-of-sequence token, so generation would never stop; train one: --tokenizer "
            "bpe:8192"
        )
    return start, tokenizer.eos_token_id


def make(tokenizer: Tokenizer, settings: TrainingSettings) -> Seq2Seq:
    """The objective in a tokenizer's own tokens."""
    start, _ = start_and_end_ids(tokenizer)
    batch_tokens = settings.batch_tokens or max(MIN_BATCH_TOKENS, TOKENS_PER_PAIR * settings.batch_size)
    return Seq2Seq(start, settings.label_smoothing, batch_tokens * settings.gradient_accumulation_steps)


def summary(validation: Validation) -> str:
    """The final result in one sentence."""
    return f"{validation.score.nats_per_token:.4f} nats per target token on the validation text"


SPECS = {
    "seq2seq": ObjectiveSpec(
        make=make,
        architectures=("encoder-decoder",),
        summary=summary,
        next_command='clearstory translate {run} "..."',
        pairs=True,
        label_smoothing=True,
    ),
}
