"""Embed: vectors of texts, trained on pairs, on triplets or on pairs with scores. Reimers and Gurevych 2019."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Any, Self

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from clearstory.errors import BadInput
from clearstory.evaluation.classification import bootstrap_metrics
from clearstory.evaluation.retrieval import BLOCK, rank_positives
from clearstory.formats.sentence_folder import SentencePipeline, read_sentence_pipeline
from clearstory.formats.sentence_writer import sentence_pipeline
from clearstory.models.base import TokenBatch, inference_mode
from clearstory.models.head_config import hidden_width
from clearstory.models.heads import backbone_of, hidden_states
from clearstory.models.sentence_encoder import (
    default_pooling,
    has_sentence_vectors,
    no_sentence_vectors,
    sentence_encoder,
)
from clearstory.tasks.base import TaskSettings, TaskSpec
from clearstory.tasks.data.examples import DataSplits, LabeledData, SimilarityExample
from clearstory.tasks.data.settings import LabelSettings
from clearstory.tasks.data.similarity import read_similarity
from clearstory.tasks.prediction_batches import batches_of_tokens
from clearstory.tasks.sentence_inputs import SentenceInputs
from clearstory.tasks.sentence_losses import cosine_similarity, false_negatives, multiple_negatives_ranking, triplet
from clearstory.tasks.sentence_scores import METRICS, SELECTED_BY, SentencePrediction, metric_inputs, worst_examples
from clearstory.tasks.sentence_settings import SentenceVectorSettings
from clearstory.text.tokenizers import Tokenizer
from clearstory.training.batches import TensorBatch
from clearstory.training.objectives.base import LossTerm, LossTerms

NO_KEY = -1


@dataclass(frozen=True)
class SentenceRow:
    """The ids of an anchor, its positive and its negative, () without one; keys of the texts, and the score."""

    anchor: tuple[int, ...]
    positive: tuple[int, ...]
    negative: tuple[int, ...]
    keys: tuple[int, int, int]
    score: float
    example: int

    @property
    def parts(self) -> tuple[int, int, int]:
        """Number of tokens of each text, which are padded apart."""
        return len(self.anchor), len(self.positive), len(self.negative)

    @property
    def length(self) -> int:
        """Number of tokens of all texts, special tokens included."""
        return sum(self.parts)


@dataclass(frozen=True)
class SentenceBatch(TensorBatch):
    """Anchors with their positives, and their negatives or scores.

    Args:
        tokens: input ids of the anchors, (B, T).
        positives: input ids of the positives, (B, P).
        keys: a number for each text, the same for equal ones, (B, 3).
        scores: similarity of anchor and positive, (B,).
        negatives: input ids of the negatives, (B, N); None if there are none.
    """

    positives: TokenBatch
    keys: Int[Tensor, "B 3"]
    scores: Float[Tensor, "B"]
    negatives: TokenBatch | None = None


@dataclass(frozen=True)
class Embed:
    """Task of training sentence vectors.

    Args:
        kind: kind of the examples: pairs, triplets or scores.
        settings: the loss and its settings; `loss` is not auto.
        pipeline: pooling of hidden states; it is saved with the model.
        inputs: encoding of texts as inputs.
        scores: the lowest and the highest score, which are scaled to 0 and 1.
    """

    kind: str
    settings: SentenceVectorSettings
    pipeline: SentencePipeline
    inputs: SentenceInputs
    scores: tuple[float, float] = (0.0, 1.0)

    name = "embed"
    loss_unit = "pair"

    @property
    def metric(self) -> str:
        """mrr for pairs, spearman for pairs with scores, triplet_accuracy for triplets."""
        return SELECTED_BY[self.kind]

    def build_model(self, backbone: nn.Module) -> nn.Module:
        """The model without the heads that vectors do not need."""
        model: nn.Module = sentence_encoder(backbone)
        return model

    def encode(self, examples: Sequence[SimilarityExample]) -> list[SentenceRow]:
        """A row for each example. Raises ContextOverflow for a text that is longer than the context."""
        triplets = self.kind == "triplets"
        locations = [example.location for example in examples]
        texts = [[each.anchor for each in examples], [each.positive for each in examples]]
        texts += [[each.negative or "" for each in examples]] if triplets else []
        columns = [self.inputs(column, locations) for column in texts]
        low, high = self.scores
        rows = []
        for index, example in enumerate(examples):
            negative = example.negative if triplets else None
            keys = (text_key(example.anchor), text_key(example.positive), text_key(negative))
            ids = [column[index] for column in columns]
            score = 0.0 if example.score is None else (example.score - low) / (high - low)
            rows.append(SentenceRow(ids[0], ids[1], ids[2] if triplets else (), keys, score, index))
        return rows

    def batch(self, rows: Sequence[SentenceRow]) -> SentenceBatch:
        """Rows as one batch, each column padded apart."""
        return SentenceBatch(
            tokens=TokenBatch.from_sequences([row.anchor for row in rows]),
            positives=TokenBatch.from_sequences([row.positive for row in rows]),
            keys=torch.tensor([row.keys for row in rows]),
            scores=torch.tensor([row.score for row in rows]),
            negatives=TokenBatch.from_sequences([r.negative for r in rows]) if self.kind == "triplets" else None,
        )

    def count_targets(self, batch: SentenceBatch) -> dict[str, int]:
        """Number of examples."""
        return {"pairs": len(batch.keys)}

    def loss(self, model: nn.Module, batch: SentenceBatch) -> LossTerms:
        """The loss of a batch, whose examples are each other's negatives in multiple_negatives_ranking."""
        anchors, positives = (self.vectors(model, each) for each in (batch.tokens, batch.positives))
        negatives = None if batch.negatives is None else self.vectors(model, batch.negatives)
        if self.settings.loss == "cosine_similarity":
            values = cosine_similarity(anchors, positives, batch.scores)
        elif self.settings.loss == "triplet":
            assert negatives is not None, "the settings are checked against the data"
            values = triplet(anchors, positives, negatives, self.settings.margin)
        else:
            values = self.ranking_loss(anchors, positives, negatives, batch.keys)
        return {"pairs": LossTerm(values.sum(), len(values))}

    def ranking_loss(
        self, anchors: Tensor, positives: Tensor, negatives: Tensor | None, keys: Int[Tensor, "B 3"]
    ) -> Float[Tensor, "B"]:
        """multiple_negatives_ranking over the positives and negatives of all anchors."""
        candidates = positives if negatives is None else torch.cat([positives, negatives])
        candidate_keys = keys[:, 1] if negatives is None else torch.cat([keys[:, 1], keys[:, 2]])
        excluded = false_negatives(keys[:, 0], keys[:, 1], candidate_keys)
        s = self.settings
        return multiple_negatives_ranking(anchors, candidates, excluded, s.scale, symmetric=s.symmetric)

    def vectors(self, model: nn.Module, tokens: TokenBatch) -> Float[Tensor, "B V"]:
        """The vectors of these texts, in fp32."""
        return self.pipeline.pool(hidden_states(model, tokens), tokens, self.inputs.skipped)

    def predict(self, model: nn.Module, rows: Sequence[SentenceRow]) -> list[SentencePrediction]:
        """A prediction for each example, by the vectors of all."""
        columns = [[row.anchor for row in rows], [row.positive for row in rows], [row.negative for row in rows]]
        columns = columns if self.kind == "triplets" else columns[:2]
        found = torch.split(self.text_vectors(model, [ids for column in columns for ids in column]), len(rows))
        anchors, positives = found[0], found[1]
        keys = torch.tensor([row.keys for row in rows])
        similarity = torch.cosine_similarity(anchors, positives)
        other = torch.cosine_similarity(anchors, found[2]) if len(found) > 2 else torch.full((len(rows),), torch.nan)
        ranks = retrieved = torch.zeros(len(rows), dtype=torch.long)
        if self.kind == "pairs":
            losses, ranks, retrieved = rank_positives(anchors, positives, keys[:, 0], keys[:, 1], self.settings.scale)
        elif self.settings.loss == "cosine_similarity":
            losses = cosine_similarity(anchors, positives, torch.tensor([row.score for row in rows]))
        elif self.settings.loss == "triplet":
            losses = triplet(anchors, positives, found[2], self.settings.margin)
        else:
            blocks = zip(*(torch.split(each, BLOCK) for each in (*found, keys)), strict=True)
            losses = torch.cat([self.ranking_loss(*block) for block in blocks])
        values = (each.tolist() for each in (losses, similarity, other, ranks, retrieved))
        return [SentencePrediction(*each) for each in zip(*values, strict=True)]

    def text_vectors(self, model: nn.Module, sequences: Sequence[tuple[int, ...]]) -> Float[Tensor, "N V"]:
        """The vectors of sequences of ids, in order, on the CPU; each different sequence is read once."""
        device = next(model.parameters()).device
        texts = [SimpleIds(ids) for ids in sorted(set(sequences), key=lambda ids: (len(ids), ids))]
        vectors: dict[tuple[int, ...], Tensor] = {}
        with inference_mode(model):
            for batch in batches_of_tokens(range(len(texts)), texts, len(texts)):
                ids = [texts[index].ids for index in batch]
                vectors |= zip(ids, self.vectors(model, TokenBatch.from_sequences(ids, device)).cpu(), strict=True)
        return torch.stack([vectors[ids] for ids in sequences])

    def fit_decision(
        self, model: nn.Module, predictions: Sequence[SentencePrediction], rows: Sequence[SentenceRow]
    ) -> Self:
        """The task itself, which has no threshold."""
        return self

    def score(self, predictions: Sequence[SentencePrediction], rows: Sequence[SentenceRow]) -> dict[str, float]:
        """Metrics by name, and the mean loss."""
        metrics = METRICS[self.kind](*metric_inputs(self.kind, predictions, [row.score for row in rows]))
        return {"loss": float(np.mean([each.loss for each in predictions])), **metrics}

    def intervals(
        self, predictions: Sequence[SentencePrediction], rows: Sequence[SentenceRow]
    ) -> Mapping[str, tuple[float, float]]:
        """The 95 % interval of each metric, by bootstrap over examples, among the same candidates."""
        inputs = metric_inputs(self.kind, predictions, [row.score for row in rows])
        return bootstrap_metrics(METRICS[self.kind], *inputs)

    def details(
        self,
        predictions: Sequence[SentencePrediction],
        rows: Sequence[SentenceRow],
        examples: Sequence[SimilarityExample],
    ) -> dict[str, Any]:
        """The number of distinct positives, and the examples with the largest errors."""
        worst = worst_examples(self.kind, predictions, [row.score for row in rows], examples)
        return {"candidates": len({row.keys[1] for row in rows}), "worst": worst}


@dataclass(frozen=True)
class SimpleIds:
    """A sequence of ids, as `batches_of_tokens` takes it."""

    ids: tuple[int, ...]


def text_key(text: str | None) -> int:
    """A number for a text, the same for texts that differ in case and white space only; NO_KEY for None."""
    if text is None:
        return NO_KEY
    plain = " ".join(text.casefold().split()).encode("utf-8", "surrogatepass")
    return int.from_bytes(blake2b(plain, digest_size=8).digest()) >> 1


def make_embed(data: DataSplits[SimilarityExample], model: Any, tokenizer: Tokenizer, settings: TaskSettings) -> Embed:
    """The task for these data and this model. Raises CannotDo for a model without hidden states."""
    if not has_sentence_vectors(model):
        raise no_sentence_vectors(model)
    wanted, kind = settings.embed, data.train.kind
    pipeline = choose_pipeline(model, settings)
    prompt = pipeline.prompt(None)
    inputs = SentenceInputs.of_model(backbone_of(model), tokenizer, pipeline, prompt, settings.truncate)
    loss = wanted.loss_for(kind, data.train.name)
    scores = score_range(data.train) if kind == "scores" else (0.0, 1.0)
    return Embed(kind, replace(wanted, loss=loss), pipeline, inputs, scores)


def choose_pipeline(model: Any, settings: TaskSettings) -> SentencePipeline:
    """The pooling of the model's folder, or another one with its prompts and lengths."""
    wanted = settings.embed
    own = None if settings.folder is None else read_sentence_pipeline(settings.folder)
    if own is not None and wanted.pooling is None and wanted.normalize is None:
        return own
    name = {"last": "lasttoken", None: None}.get(wanted.pooling, wanted.pooling)
    poolings = (name,) if name else ((default_pooling(model),) if own is None else own.poolings)
    normalize = wanted.normalize if wanted.normalize is not None else own is None or "normalize" in own.summary
    kept = {} if own is None else {key: getattr(own, key) for key in KEPT_SETTINGS}
    return sentence_pipeline(hidden_width(backbone_of(model).config), poolings=poolings, normalize=normalize, **kept)


KEPT_SETTINGS = ("max_length", "lowercase", "prompts", "default_prompt", "include_prompt")
"""What another pooling than that of its folder leaves as it is."""


def score_range(data: LabeledData[SimilarityExample]) -> tuple[float, float]:
    """The scores that become 0 and 1: the lowest and the highest; scores from 0 to 1 stay as they are.

    Raises BadInput if all are equal.
    """
    scores = [example.score for example in data.examples if example.score is not None]
    low, high = min(scores), max(scores)
    if low == high:
        raise BadInput(
            f"all {len(scores):,} training pairs of {data.name} have the score {low:g}, from which similarity cannot "
            "be learned; give different scores, or ignore the column with --label-column"
        )
    return (0.0, 1.0) if low >= 0 and high <= 1 else (low, high)


def read_examples(
    sources: Sequence[str], settings: LabelSettings, known: Sequence[str] | None
) -> LabeledData[SimilarityExample]:
    """Pairs, triplets, or pairs with scores, of files."""
    data = read_similarity(sources, settings)
    count = sum(example.negative is not None for example in data.examples)
    if data.kind == "pairs" and count:
        note = f"{count:,} of {len(data):,} examples have a negative; negatives are only used if all examples have one"
        data = replace(data, notes=(*data.notes, note))
    return data


EMBED = TaskSpec(
    read=read_examples,
    make=make_embed,
    known_labels=lambda model: None,
    next_command='clearstory embed {run} FILE --query "..."',
)
