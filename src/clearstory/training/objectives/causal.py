"""Causal language modelling (causal): predict each next token. Bengio et al. 2003; Radford et al. 2018, eq. 1."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

from torch import nn

from clearstory.evaluation.windows import score_dataset
from clearstory.models.base import IGNORE_INDEX, LanguageModel, State, TokenSequences
from clearstory.models.prompts import bos_or_eos_token_id
from clearstory.text.token_dataset import TokenDataset
from clearstory.training.batches import Batch, Batches, StreamBatches, WindowBatches
from clearstory.training.objectives.base import LossTerm, LossTerms, ObjectiveSpec, Validation

VALIDATION_BATCH_SIZE = 16


@dataclass(frozen=True)
class Causal:
    """The negative log-likelihood of every token given those before it.

    Args:
        start_token_id: the token each validation document is read after; None scores no document's first token.
        shuffle_documents: whether training reads the documents in another order in each epoch.
    """

    start_token_id: int | None = None
    shuffle_documents: bool = False

    loss_unit = "token"
    no_bits_per_byte = None

    def configure(self, config: Any) -> tuple[Causal, Any]:
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
    ) -> Batches:
        """Shuffled windows of packed documents; or streams, for a model whose state is kept from batch to batch."""
        if stateful:
            return StreamBatches(dataset, context, batch_size, seed, self.shuffle_documents)
        return WindowBatches(dataset, context, batch_size, seed, align_documents, self.shuffle_documents)

    def count_targets(self, batch: Batch) -> dict[str, int]:
        """Number of tokens to predict."""
        return {"next": int((batch.targets != IGNORE_INDEX).sum())}

    def loss(self, model: nn.Module, batch: Batch, state: State | None = None) -> tuple[LossTerms, State | None]:
        """The summed negative log-likelihood of all targets, in nats."""
        nats, state = cast(LanguageModel, model).token_nll(batch.tokens, batch.targets, state)
        return {"next": LossTerm(nats.sum(), self.count_targets(batch)["next"])}, state

    def validate(
        self, model: nn.Module, dataset: TokenSequences, context: int, limit: int | None = None, spread: bool = True
    ) -> Validation:
        """Loss in adjacent windows; over whole documents for a model without a context. See `Objective.validate`."""
        language_model = cast(LanguageModel, model)
        score = score_dataset(
            language_model,
            cast(TokenDataset, dataset).subsample(limit) if spread and limit is not None else dataset,
            context=None if language_model.context is None else context,
            windows="blocks",
            start_token_id=self.start_token_id,  # as `clearstory evaluate` does, so that both report the same number
            batch_size=VALIDATION_BATCH_SIZE,
            limit=limit,
        )
        return Validation(score)

    def sample_source(self, dataset: TokenSequences, index: int, context: int) -> None:
        """None: samples are generated from an empty prompt."""


def summary(validation: Validation) -> str:
    """The final result in one sentence."""
    score = validation.score
    if score.bits_per_byte is None:
        quality = "no bits per byte: the tokenizer is lossy"
    else:
        quality = f"{score.bits_per_byte:.4f} bits per byte on the validation text"
    return f"{quality} ({score.nats_per_token:.4f} nats per token)"


SPECS = {
    "causal": ObjectiveSpec(
        make=lambda tokenizer, settings: Causal(bos_or_eos_token_id(tokenizer), bool(settings.shuffle_documents)),
        architectures=("decoder",),
        summary=summary,
    )
}
