"""Settings of the vectors of texts: their pooling and the loss that trains them. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from clearstory.errors import BadSetting

SentenceLoss = Literal["auto", "multiple_negatives_ranking", "cosine_similarity", "triplet"]


@dataclass(frozen=True, kw_only=True)
class SentenceVectorSettings:
    """How the vector of a text is made and trained.

    Args:
        loss: multiple_negatives_ranking (Henderson et al. 2017): the positive of each anchor among those of all others
            in the batch, and the negatives; cosine_similarity: squared error of the cosine and the score; triplet: the
            positive is nearer than the negative by a margin (Reimers and Gurevych 2019); auto: the first, or the second
            where pairs have scores.
        pooling: the vector of a text: the mean of its hidden states, the largest value of each dimension, the first
            token's (cls) or the last one's; default: as the model's folder says, else mean for an encoder and last for
            others.
        normalize: whether vectors are scaled to length 1; default: as the model's folder says, else true.
        scale: factor of the cosines in multiple_negatives_ranking, the inverse of a temperature.
        symmetric: whether multiple_negatives_ranking also finds the anchor of each positive.
        margin: how much nearer a positive must be in triplet, in Euclidean distance.
    """

    loss: SentenceLoss = "auto"
    pooling: Literal["mean", "cls", "max", "last"] | None = None
    normalize: bool | None = None
    scale: float = 20.0
    symmetric: bool = False
    margin: float = 1.0

    def __post_init__(self) -> None:
        for name in ("scale", "margin"):
            if not 0 < getattr(self, name) < float("inf"):
                raise BadSetting(f"embed.{name} is {getattr(self, name):g}; it must be above 0")

    def loss_for(self, kind: str, data: str) -> SentenceLoss:
        """The loss for data of a kind: pairs, triplets or scores. Raises BadSetting for one that needs others."""
        if self.loss == "auto":
            return "cosine_similarity" if kind == "scores" else "multiple_negatives_ranking"
        needed = {"cosine_similarity": ("scores",), "triplet": ("triplets",)}.get(self.loss, ("pairs", "triplets"))
        if kind not in needed:
            has = {"scores": "pairs with scores", "triplets": "triplets", "pairs": "pairs without scores"}
            raise BadSetting(
                f"embed.loss is {self.loss}, which needs {' or '.join(has[each] for each in needed)}, and {data} has "
                f"{has[kind]}; leave it out"
            )
        return self.loss
