"""Masked language modelling (mlm), and next-sentence prediction with it (mlm+nsp). Devlin et al. 2019, section 3.1."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import nn
from torch.nn import functional as F

from clearstory.errors import BadSetting
from clearstory.evaluation.masked import MaskedScore, score_masked
from clearstory.metrics import Score
from clearstory.models.base import IGNORE_INDEX, State, TokenSequences
from clearstory.models.transformer.encoder import Encoder
from clearstory.training.batches import Batch
from clearstory.training.masked_batches import MaskedWindowBatches, SentencePairBatches, TokenMasking
from clearstory.training.objectives.base import LossTerm, LossTerms, ObjectiveSpec, Validation

NO_BITS_PER_BYTE = (
    "an encoder predicts each token from both sides, so the sum over tokens is not the log-probability of the text; "
    "compare encoders in nats per masked token, or by pseudo-likelihood"
)
"""Why bits per byte are not defined for an encoder."""

VALIDATION_SEED, VALIDATION_BATCH_SIZE = 0, 16
"""Seed of the masks in validation, the same for every run, so that runs can be compared."""


@dataclass(frozen=True)
class MLM:
    """The negative log-likelihood of masked tokens; with `next_sentence`, plus that of whether the second text of a
    pair follows the first. Each is a mean of its own, and the two are added.
    """

    masking: TokenMasking
    next_sentence: bool = False

    loss_unit = "masked token"
    no_bits_per_byte = NO_BITS_PER_BYTE

    def configure(self, config: Any) -> tuple[MLM, Any]:
        """Both unchanged."""
        return self, config

    def batches(
        self,
        dataset: TokenSequences,
        context: int,
        batch_size: int,
        seed: int,
        stateful: bool = False,
        align_documents: bool = False,
    ) -> MaskedWindowBatches | SentencePairBatches:
        """Windows of packed documents; or pairs of texts, of a dataset whose sequences are sentences."""
        if self.next_sentence:
            return SentencePairBatches(dataset, context, batch_size, seed, self.masking)
        return MaskedWindowBatches(dataset, context, batch_size, seed, self.masking, align_documents)

    def count_targets(self, batch: Batch) -> dict[str, int]:
        """Number of masked tokens, and of pairs."""
        counts = {"masked": int((batch.targets != IGNORE_INDEX).sum())}
        return counts if batch.is_not_next is None else {**counts, "next-sentence": len(batch.is_not_next)}

    def loss(self, model: nn.Module, batch: Batch, state: State | None = None) -> tuple[LossTerms, None]:
        """The summed negative log-likelihood of all masked tokens, and of all pairs, in nats."""
        encoder, counts = cast(Encoder, model), self.count_targets(batch)
        hidden = encoder.encode(batch.tokens, batch.token_type_ids)
        terms = {"masked": LossTerm(encoder.masked_nll(hidden, batch.targets).sum(), counts["masked"])}
        if batch.is_not_next is not None:
            logits = encoder.nsp_logits(hidden)
            logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
            nats = F.cross_entropy(logits, batch.is_not_next, reduction="sum")
            terms["next-sentence"] = LossTerm(nats, counts["next-sentence"])
        return terms, None

    def score(
        self,
        model: Encoder,
        dataset: TokenSequences,
        context: int,
        *,
        limit: int | None = None,
        seed: int = VALIDATION_SEED,
        batch_size: int = VALIDATION_BATCH_SIZE,
    ) -> MaskedScore:
        """Sums over one pass through a dataset, or over about `limit` tokens from all over it."""
        if not self.next_sentence:  # a window is no longer than the text
            context = min(context, max(4, len(dataset.ids) + 1))
        batches = self.batches(dataset, context, batch_size, seed)

        def one_epoch() -> Iterator[Batch]:
            for index, first in enumerate(range(0, batches.examples_per_epoch, batch_size)):
                yield batches.batch(index).micro_batch(0, batches.examples_per_epoch - first)

        return score_masked(model, one_epoch(), limit)

    def validate(
        self, model: nn.Module, dataset: TokenSequences, context: int, limit: int | None = None, spread: bool = True
    ) -> Validation:
        """Loss of masked tokens, and next-sentence accuracy. See `Objective.validate`."""
        masked = self.score(cast(Encoder, model), dataset, context, limit=limit)
        score = Score(nats=masked.nats, tokens=masked.tokens, bytes=None, reason=self.no_bits_per_byte)
        return Validation(score, {} if masked.accuracy is None else {"next_sentence_accuracy": masked.accuracy})

    def sample_source(self, dataset: TokenSequences, index: int, context: int) -> None:
        """None: an encoder generates no text."""


def summary(validation: Validation) -> str:
    """The final result in one sentence."""
    sentence = f"{validation.score.nats_per_token:.4f} nats per masked token on the validation text"
    accuracy = validation.metrics.get("next_sentence_accuracy")
    return sentence if accuracy is None else f"{sentence}; next-sentence accuracy {accuracy:.1%}"


def check_mlm_head(config: Any, name: str, saved: bool) -> None:
    """Raises BadSetting for a model without a masked language modelling head."""
    if not config.mlm_transform:
        remedy = "set model.mlm_transform and model.unembed_bias to true"
        if saved:
            remedy = "choose a model that predicts masked tokens, or train a new one: --model bert-mini"
        raise BadSetting(f"objective is masked language modelling, but {name} has no head for it; {remedy}")


def check_both_heads(config: Any, name: str, saved: bool) -> None:
    """Raises BadSetting for a model without a masked language modelling head or a next-sentence prediction head."""
    check_mlm_head(config, name, saved)
    if not config.pooler:
        remedy = "set model.pooler to true, or objective to mlm"
        if saved:
            remedy = "set objective to mlm, or train a new one: --model bert-mini"
        raise BadSetting(f"objective is mlm+nsp, but {name} has no head for next-sentence prediction; {remedy}")


FILL_MASK = 'clearstory fill-mask {run} "... [MASK] ..."'

SPECS = {
    "mlm": ObjectiveSpec(
        make=lambda tokenizer, settings: MLM(TokenMasking.from_tokenizer(tokenizer, settings.whole_words)),
        architectures=("encoder",),
        summary=summary,
        next_command=FILL_MASK,
        generates=False,
        model_defaults={"pooler": False},  # a head that is not trained would keep its initial weights
        check_config=check_mlm_head,
    ),
    "mlm+nsp": ObjectiveSpec(
        make=lambda tokenizer, settings: MLM(TokenMasking.from_tokenizer(tokenizer, settings.whole_words), True),
        architectures=("encoder",),
        summary=summary,
        next_command=FILL_MASK,
        sentences=True,
        generates=False,
        check_config=check_both_heads,
    ),
}
