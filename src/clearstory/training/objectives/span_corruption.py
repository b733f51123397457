"""Span corruption (span_corruption): predict spans dropped from running text. Raffel et al. 2020, section 3.1.4."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
from torch import nn

from clearstory.errors import BadSetting
from clearstory.evaluation.seq2seq import score_targets, target_nll
from clearstory.models.base import IGNORE_INDEX, State, TokenSequences
from clearstory.models.transformer.encoder_decoder import EncoderDecoder
from clearstory.text.sentinels import sentinels
from clearstory.text.tokenizers import Tokenizer
from clearstory.training.batches import Batch, WindowBatches
from clearstory.training.objectives.base import LossTerm, LossTerms, ObjectiveSpec, Validation
from clearstory.training.objectives.seq2seq import first_source, seq2seq_batch, start_and_end_ids, summary
from clearstory.training.settings import TrainingSettings

NO_BITS_PER_BYTE = (
    "only the dropped spans are predicted, given the rest of the text, so the sum over tokens is not the "
    "log-probability of the text; compare nats per token"
)
"""Why bits per byte are not defined for dropped spans."""

CORRUPTION_RATE, MEAN_SPAN_LENGTH = 0.15, 3
"""Fraction of the tokens that are dropped, and mean length of a dropped span. Raffel et al. 2020, section 3.1.4."""

VALIDATION_BATCH_SIZE = 16


@dataclass(frozen=True)
class SpanCorruption:
    """The negative log-likelihood of dropped spans given the rest of a window.

    Args:
        decoder_start_token_id: the token that targets are read after.
        eos_token_id: the token that ends sources and targets.
        sentinel_ids: the tokens that replace dropped spans, in order.
        label_smoothing: share of each target spread over the vocabulary in training (Szegedy et al. 2016, section 7).
    """

    decoder_start_token_id: int
    eos_token_id: int
    sentinel_ids: tuple[int, ...]
    label_smoothing: float = 0.0

    loss_unit = "target token"
    no_bits_per_byte = NO_BITS_PER_BYTE

    def configure(self, config: Any) -> tuple[SpanCorruption, Any]:
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
    ) -> SpanCorruptionBatches:
        """Windows with dropped spans."""
        ids = self.decoder_start_token_id, self.eos_token_id, self.sentinel_ids
        return SpanCorruptionBatches(dataset, context, batch_size, seed, *ids)

    def count_targets(self, batch: Batch) -> dict[str, int]:
        """Number of target tokens."""
        return {"target": int((batch.targets != IGNORE_INDEX).sum())}

    def loss(self, model: nn.Module, batch: Batch, state: State | None = None) -> tuple[LossTerms, None]:
        """The summed negative log-likelihood of all dropped spans, smoothed, in nats."""
        return {"target": LossTerm(*target_nll(cast(EncoderDecoder, model), batch, self.label_smoothing))}, None

    def validate(
        self, model: nn.Module, dataset: TokenSequences, context: int, limit: int | None = None, spread: bool = True
    ) -> Validation:
        """Loss of spans dropped from the split, the same every time, without label smoothing."""
        n_tokens = len(dataset.ids)
        while context > 5 and window_length(context) > n_tokens - 1:
            context -= 1
        batch_size = max(1, min(VALIDATION_BATCH_SIZE, (n_tokens - 1) // window_length(context)))
        batches = self.batches(dataset, context, batch_size, 0)
        count = batches.batches_per_epoch
        if limit is not None:
            count = max(1, min(count, limit // batches.tokens_per_batch))
        score = score_targets(cast(EncoderDecoder, model), map(batches.batch, range(count)))
        return Validation(score.without_bytes(self.no_bits_per_byte))

    def sample_source(self, dataset: TokenSequences, index: int, context: int) -> list[int]:
        """The source of window `index` in shuffled order."""
        return first_source(self.batches(dataset, context, 1, 0).batch(index))


class SpanCorruptionBatches:
    """Windows of running text with dropped spans. Raffel et al. 2020, section 3.1.4.

    Each span is replaced by a sentinel in the source; the target is every span after its sentinel, one more sentinel,
    and the end-of-sequence token. Windows are longer than the context, so that their sources fill it. Batch i is a
    function of (dataset, seed, i).
    """

    def __init__(
        self,
        dataset: TokenSequences,
        context: int,
        batch_size: int,
        seed: int,
        decoder_start_token_id: int,
        eos_token_id: int,
        sentinel_ids: Sequence[int],
    ) -> None:
        self.window_length = window_length(context)
        _, n_spans = corruption(self.window_length)
        if n_spans + 1 > len(sentinel_ids):
            raise BadSetting(
                f"a window of {self.window_length:,} tokens has {n_spans} dropped spans, but the tokenizer has "
                f"{len(sentinel_ids)} sentinels; set --training.context to {18 * max(1, len(sentinel_ids) - 1)} or less"
            )
        self.windows = WindowBatches(dataset, self.window_length, batch_size, seed)
        self.sentinel_ids = list(sentinel_ids)
        self.seed = seed
        self.decoder_start_token_id, self.eos_token_id = decoder_start_token_id, eos_token_id
        self.batches_per_epoch = max(1, self.windows.windows_per_epoch // batch_size)
        self.tokens_per_batch = batch_size * (self.window_length + 2 * n_spans + 3)

    def batch(self, index: int) -> Batch:
        """Batch `index`; there is no last one."""
        windows = self.windows.batch(index).tokens.ids.tolist()
        rng = np.random.default_rng([self.seed, 3, index])
        pairs = [self.corrupt(window, rng) for window in windows]
        return seq2seq_batch(
            [source for source, _ in pairs], [target for _, target in pairs], self.decoder_start_token_id
        )

    def continues(self, index: int) -> bool:
        """False: windows are shuffled."""
        return False

    def corrupt(self, ids: Sequence[int], rng: np.random.Generator) -> tuple[list[int], list[int]]:
        """Source and target of one window. Kept and dropped spans alternate, beginning with a kept one."""
        n_dropped, n_spans = corruption(len(ids))
        kept = random_partition(len(ids) - n_dropped, n_spans, rng)
        dropped = random_partition(n_dropped, n_spans, rng)
        source: list[int] = []
        target: list[int] = []
        start = 0
        for sentinel, keep, drop in zip(self.sentinel_ids, kept, dropped, strict=False):
            source += [*ids[start : start + keep], sentinel]
            target += [sentinel, *ids[start + keep : start + keep + drop]]
            start += keep + drop
        return [*source, self.eos_token_id], [*target, self.sentinel_ids[n_spans], self.eos_token_id]


def corruption(length: int) -> tuple[int, int]:
    """Number of tokens dropped from a window of `length`, and number of spans.

    >>> corruption(568), corruption(4)
    ((85, 28), (1, 1))
    """
    n_dropped = min(max(round(length * CORRUPTION_RATE), 1), length - 1)
    return n_dropped, max(1, round(n_dropped / MEAN_SPAN_LENGTH))


def window_length(context: int) -> int:
    """The longest window whose source, with its sentinels and its end, fits the context.

    >>> window_length(512)
    568
    """
    if context < 5:
        raise BadSetting(f"a context of {context} is too short for text and sentinels; set it to 5 or more")
    length = 2
    while True:
        n_dropped, n_spans = corruption(length + 1)
        if max(length + 1 - n_dropped + n_spans + 1, n_dropped + n_spans + 2) > context:
            return length
        length += 1


def random_partition(count: int, parts: int, rng: np.random.Generator) -> list[int]:
    """Sizes of `parts` non-empty parts of `count` tokens; every partition is equally likely."""
    cuts = np.sort(rng.choice(count - 1, parts - 1, replace=False)) + 1
    sizes: list[int] = np.diff(np.concatenate([[0], cuts, [count]])).tolist()
    return sizes


def make(tokenizer: Tokenizer, settings: TrainingSettings) -> SpanCorruption:
    """The objective in a tokenizer's own tokens. Raises BadSetting for a tokenizer without sentinels."""
    start, end = start_and_end_ids(tokenizer)
    sentinel_ids = sentinels(tokenizer)
    if not sentinel_ids:
        raise BadSetting(
            "this tokenizer has no sentinels such as <extra_id_0>, which replace dropped spans; continue training on "
            "pairs, or train a new model"
        )
    return SpanCorruption(start, end, sentinel_ids, settings.label_smoothing)


SPECS = {
    "span_corruption": ObjectiveSpec(
        make=make,
        architectures=("encoder-decoder",),
        summary=summary,
        next_command='clearstory generate {run} "..."',
        sentinels=True,
        label_smoothing=True,
    ),
}
