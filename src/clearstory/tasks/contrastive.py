"""Contrastive fine-tuning with few labels: texts of one class get similar vectors, then a head is fitted to them.

all drawn texts, read once a step ─► vectors ─► cosines of all pairs ─► (cos − 1)² of one class, cos² of two
the same texts, after the last step ─► vectors ─► logistic regression ─► classifier

Tunstall et al. 2022 (SetFit) sample pairs and read both texts of each; a batch of n texts has all n·(n−1)/2 pairs of
them for the price of n.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clearstory.errors import BadSetting
from clearstory.models.heads import SequenceClassifier, backbone_of
from clearstory.tasks.base import TaskObjective
from clearstory.tasks.classify import Classify, LabeledBatch, TextRow
from clearstory.tasks.linear_head import fit_linear_head, sentence_vectors
from clearstory.training.objectives.base import LossTerm, LossTerms
from clearstory.training.trainer import Trainer

CONTRASTIVE_STEPS = 10
"""Steps of a run whose epochs would have fewer."""


@dataclass(frozen=True)
class ContrastiveClassify(Classify):
    """The classification of texts by a model whose vectors are trained contrastively, and whose head is fitted."""

    def build_model(self, backbone: nn.Module) -> nn.Module:
        """The backbone with a head on the mean of its hidden states. Raises BadSetting for numbers."""
        if self.problem_type == "regression":
            raise BadSetting("few is for labels, but the examples have numbers, which have no classes; leave it out")
        trunk = backbone_of(backbone)
        return SequenceClassifier(
            trunk, self.labels, problem_type=self.problem_type, pooling="mean", classifier_dropout=0.0
        )

    def count_targets(self, batch: LabeledBatch) -> dict[str, int]:
        """Number of pairs of texts with a label in common, and of those without."""
        same = pairs_of_one_class(batch.targets)
        pairs = len(same) * (len(same) - 1) // 2
        similar = int(same.triu(1).sum())
        return {"similar": similar, "different": pairs - similar}

    def loss(self, model: nn.Module, batch: LabeledBatch) -> LossTerms:
        """Squared error of the cosines of all pairs: their target is 1 for a label in common, else 0. Both kinds of
        pairs have half of the weight.
        """
        model.eval()  # without dropout: all pairs of a step are of the same vectors
        vectors = cast(SequenceClassifier, model).features(batch.tokens, batch.token_types).float()
        unit = F.normalize(vectors, dim=-1)
        same = pairs_of_one_class(batch.targets)
        squares = (unit @ unit.T - same.float()).square()
        once = torch.ones_like(same).triu(1)
        counts = self.count_targets(batch)
        return {
            "similar": LossTerm(squares[same & once].sum(), counts["similar"], weight=0.5),
            "different": LossTerm(squares[~same & once].sum(), counts["different"], weight=0.5),
        }


def pairs_of_one_class(targets: Tensor) -> Tensor:
    """Whether two texts have a label in common, (B, B)."""
    return targets[:, None] == targets if targets.dim() == 1 else targets @ targets.T > 0


class ClassBatches:
    """Batches with equally many texts of each class: all texts if they fit into a batch, otherwise samples.

    The classes alternate within a batch, so that each micro-batch has all of them.
    """

    def __init__(self, rows: Sequence[TextRow], batch_size: int, seed: int, task: Classify) -> None:
        self.rows, self.seed, self.task = rows, seed, task
        targets = np.array([row.target for row in rows])
        columns = np.eye(len(task.labels))[targets] if targets.ndim == 1 else targets
        self.classes = [found for label in columns.T if len(found := np.flatnonzero(label > 0))]
        self.per_class = max(2, batch_size // len(self.classes))
        largest = max(map(len, self.classes))
        self.batches_per_epoch = max(1, -(-largest // self.per_class))
        self.tokens_per_batch = sum(row.length for row in rows) // self.batches_per_epoch

    def batch(self, index: int) -> Any:  # what the task makes
        """Batch `index`, for any index from 0."""
        epoch, part = divmod(index, self.batches_per_epoch)
        rng = np.random.default_rng([self.seed, epoch])
        chosen = [rng.permutation(each)[part * self.per_class :][: self.per_class] for each in self.classes]
        turns = [each[turn] for turn in range(self.per_class) for each in chosen if turn < len(each)]
        return self.task.batch([self.rows[row] for row in dict.fromkeys(turns)])

    def continues(self, index: int) -> bool:
        """False: rows are shuffled."""
        return False


@dataclass(frozen=True)
class ContrastiveObjective(TaskObjective):
    """The objective of a contrastive task: batches have texts of all classes."""

    def batches(self, dataset: Any, context: int, batch_size: int, seed: int, *_: Any) -> Any:
        """Batches with equally many texts of each class."""
        return ClassBatches(dataset.rows, batch_size, seed, cast(Classify, self.task))


class ContrastiveTrainer(Trainer):
    """A trainer whose model has its head fitted to the vectors of the training texts where it is evaluated or saved."""

    fitted_step = -1

    @property
    def default_eval_steps(self) -> int:  # type: ignore[override]  # the head is fitted once
        """All steps: one evaluation, after the last."""
        return self.steps

    def averaged_weights(self) -> AbstractContextManager[None]:
        """A block in which the head belongs to the vectors of this step."""
        if self.fitted_step != self.step:
            model, task = cast(Any, self.model), cast(Classify, cast(TaskObjective, self.objective).task)
            rows = cast(ClassBatches, self.batches).rows
            before, model.compute_dtype = model.compute_dtype, None
            fit_linear_head(model, task, sentence_vectors(model, rows), rows)
            model.compute_dtype = before
            self.fitted_step = self.step
        return super().averaged_weights()


def contrastive(task: Any) -> ContrastiveClassify:
    """The same classification of texts, trained contrastively."""
    return ContrastiveClassify(**vars(task))
