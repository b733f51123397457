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
        loss: multiple_negatives_ranking (Henderson et al. 2017): each anchor's positive against all others in the batch
            and against the negatives; cosine_similarity: squared error between the cosine and the score; triplet: the
            positive must be closer than the negative by a margin (Reimers and Gurevych 2019); auto: cosine_similarity
            for pairs with scores, otherwise multiple_negatives_ranking.
        pooling: how hidden states become the vector of a text: their mean, the maximum of each dimension (max), the
            first token's (cls) or the last token's (last); default: the setting in the model's folder, otherwise mean
            for an encoder and last for other models.
        normalize: whether vectors are scaled to length 1; default: the setting in the model's folder, otherwise true.
        scale: factor of the cosines in multiple_negatives_ranking (inverse temperature).
        symmetric: whether multiple_negatives_ranking also ranks the anchors for each positive.
        margin: margin of the triplet loss, as a Euclidean distance.
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
                f"embed.loss is {self.loss}, which needs {' or '.join(has[each] for each in needed)}, but {data} has "
                f"{has[kind]}; leave it out"
            )
        return self.loss
