"""Similarity search over the texts of a file, and semantic de-duplication, by the cosines of their vectors.

Products are computed in blocks: 100,000 vectors of width 384 take 154 MB, and a block of their cosines 32 MB.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float, Int
from torch import Tensor

from clearstory.errors import BadInput, BadSetting
from clearstory.recipes.inference.embed import Embedder, load_embedder
from clearstory.recipes.inference.loading import ModelWithTokenizer
from clearstory.recipes.inference.text_inputs import read_texts
from clearstory.recipes.settings.embedding import EmbeddingSettings
from clearstory.recipes.settings.keywords import EmbeddingKeywords
from clearstory.recipes.settings.schema import build_settings

BLOCK = 8192
"""Texts whose cosines with up to 1,024 others are in memory at once."""

Vectors = npt.NDArray[np.float32]


@dataclass(frozen=True)
class SearchHit:
    """A text that was found: its cosine with the query, and its position among the texts, from 1."""

    text: str
    score: float
    position: int


@dataclass(frozen=True)
class SearchResult:
    """A query with the texts that are most similar to it, the best first."""

    query: str
    hits: tuple[SearchHit, ...]

    def to_json(self) -> dict[str, Any]:
        """The query and its hits as a dictionary for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class SearchResults:
    """The results of all queries; `pooling` and `note` as those of `Embeddings`."""

    results: tuple[SearchResult, ...]
    pooling: str
    note: str | None = None

    def to_json(self) -> dict[str, Any]:
        """The results as a dictionary for JSON."""
        return {"results": [each.to_json() for each in self.results], "pooling": self.pooling}


@dataclass(frozen=True)
class Deduplication:
    """Result of deduplication: texts, and the groups of near-duplicates.

    Args:
        texts: all texts.
        threshold: minimum cosine of duplicates.
        first: for each text the index, from 0, of the kept text of which it is a duplicate; its own if it is kept.
        scores: its cosine with that text.
        pooling: pooling of the vectors; `note` reports it if it was chosen by default.
    """

    texts: tuple[str, ...]
    threshold: float
    first: tuple[int, ...]
    scores: tuple[float, ...]
    pooling: str
    note: str | None = None

    @property
    def kept(self) -> tuple[int, ...]:
        """Indices of the kept texts, from 0."""
        return tuple(position for position, first in enumerate(self.first) if position == first)

    @property
    def groups(self) -> tuple[tuple[int, ...], ...]:
        """Indices of the texts of each group with duplicates; the first one is kept."""
        members: dict[int, list[int]] = {}
        for position, first in enumerate(self.first):
            members.setdefault(first, []).append(position)
        return tuple(tuple(group) for group in members.values() if len(group) > 1)

    def to_json(self) -> dict[str, Any]:
        """The kept texts and the groups of duplicates as a dictionary for JSON; positions are from 1."""
        return {
            "texts": len(self.texts),
            "kept": [self.texts[position] for position in self.kept],
            "removed": len(self.texts) - len(self.kept),
            "threshold": self.threshold,
            "pooling": self.pooling,
            "groups": [
                [asdict(SearchHit(self.texts[at], self.scores[at], at + 1)) for at in group] for group in self.groups
            ],
        }


def search(
    model: str | Path | ModelWithTokenizer,
    texts: str | Path | Sequence[str | Path],
    queries: str | Sequence[str],
    *,
    top: int = 5,
    **settings: Unpack[EmbeddingKeywords],
) -> SearchResults:
    """The `top` texts that are most similar to each query, by the cosine of their vectors.

    A text that is the path of a file is replaced by the texts in the file. If the model's folder has prompts "query"
    and "document" (or "passage"), they are prepended to queries and texts, unless `prompt` sets one for both.

    >>> import clearstory
    >>> found = clearstory.search("models/minilm", "notes.txt", "how to brew tea")  # doctest: +SKIP
    >>> found.results[0].hits[0].text  # doctest: +SKIP
    'Pour water at 80 °C over the leaves.'
    """
    if top < 1:
        raise BadSetting(f"top is {top}; it must be at least 1")
    wanted = [queries] if isinstance(queries, str) else list(queries)
    if not wanted or not all(query.strip() for query in wanted):
        raise BadInput("a query is empty; give a text to search for")
    s = build_settings(EmbeddingSettings, settings)
    embedder = load_embedder(model, s.pooling, s.device, int8=s.int8)
    found = read_texts(texts, s.errors, s.text_field)
    options: dict[str, Any] = {"truncate": s.truncate, "batch_size": s.batch_size, "normalize": True}
    of_texts = embedder.vectors(found, prompt=s.prompt or prompt_for(embedder, "document", "passage"), **options)
    of_queries = embedder.vectors(wanted, prompt=s.prompt or prompt_for(embedder, "query"), **options)
    scores, positions = nearest(of_queries, of_texts, top)
    results = tuple(
        SearchResult(query, tuple(SearchHit(found[at], score, at + 1) for score, at in zip(line, row, strict=True)))
        for query, line, row in zip(wanted, scores.tolist(), positions.tolist(), strict=True)
    )
    return SearchResults(results, embedder.summary, embedder.note)


def prompt_for(embedder: Embedder, *names: str) -> str | None:
    """The first of these prompts that the model's folder has; None, the default one, without them."""
    prompts = {} if embedder.pipeline is None else embedder.pipeline.prompts
    return next((name for name in names if name in prompts), None)


def nearest(queries: Vectors, vectors: Vectors, top: int) -> tuple[Float[Tensor, "Q K"], Int[Tensor, "Q K"]]:
    """The highest products of each query with unit vectors, (Q, K), and their positions; of equal ones the first.

    >>> nearest(np.eye(2, dtype=np.float32), np.eye(2, dtype=np.float32), 1)[1].tolist()
    [[0], [1]]
    """
    wanted = torch.from_numpy(queries)
    best = torch.empty(len(wanted), 0)
    positions = torch.empty(len(wanted), 0, dtype=torch.long)
    for start in range(0, len(vectors), BLOCK):
        block = torch.from_numpy(vectors[start : start + BLOCK])
        scores = torch.cat([best, wanted @ block.T], dim=1)
        numbers = torch.cat([positions, torch.arange(start, start + len(block)).expand(len(wanted), -1)], dim=1)
        order = scores.sort(dim=1, descending=True, stable=True).indices[:, :top]
        best, positions = scores.gather(1, order), numbers.gather(1, order)
    return best, positions


def deduplicate(
    model: str | Path | ModelWithTokenizer,
    texts: str | Path | Sequence[str | Path],
    *,
    threshold: float = 0.9,
    **settings: Unpack[EmbeddingKeywords],
) -> Deduplication:
    """Remove each text whose cosine with an earlier kept text is at least `threshold`.

    >>> import clearstory
    >>> clearstory.deduplicate("models/minilm", "notes.txt", threshold=0.9).groups  # doctest: +SKIP
    ((0, 17), (3, 5, 8))
    """
    if not 0 < threshold <= 1:
        raise BadSetting(f"duplicates is {threshold:g}; give a cosine above 0, at most 1, such as 0.9")
    s = build_settings(EmbeddingSettings, settings)
    embedder = load_embedder(model, s.pooling, s.device, int8=s.int8)
    found = tuple(read_texts(texts, s.errors, s.text_field))
    vectors = embedder.vectors(found, prompt=s.prompt, truncate=s.truncate, batch_size=s.batch_size, normalize=True)
    first, scores = group_duplicates(vectors, threshold)
    return Deduplication(found, threshold, first, scores, embedder.summary, embedder.note)


def group_duplicates(vectors: Vectors, threshold: float) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """For each unit vector the position of the first kept one whose product with it is at least `threshold`, else its
    own, and that product.

    >>> group_duplicates(np.array([[1, 0], [0, 1], [0.8, 0.6]], dtype=np.float32), 0.7)[0]
    (0, 1, 0)
    """
    whole = torch.from_numpy(vectors)
    # 1e-6: the product of a vector of length 1 with itself is 1 up to rounding.
    least = threshold - 1e-6
    first = torch.arange(len(whole))
    scores = torch.ones(len(whole))
    kept = torch.empty(0, dtype=torch.long)
    for start in range(0, len(whole), 1024):
        block = whole[start : start + 1024]
        taken = torch.zeros(len(block), dtype=torch.bool)
        for of_kept in torch.split(kept, BLOCK) if len(kept) else ():
            take_duplicates(block @ whole[of_kept].T, of_kept, least, taken, first, scores, start)
        own = block @ block.T
        for line in range(len(block)):
            if not taken[line]:
                same = (own[line] >= least) & ~taken
                same[: line + 1] = False
                taken |= same
                first[start : start + len(block)][same] = start + line
                scores[start : start + len(block)][same] = own[line][same]
        new = torch.arange(start, start + len(block))
        kept = torch.cat([kept, new[first[new] == new]])
    return tuple(first.tolist()), tuple(scores.clamp(max=1).tolist())


def take_duplicates(
    cosines: Tensor, of_kept: Tensor, least: float, taken: Tensor, first: Tensor, scores: Tensor, start: int
) -> None:
    """Assign the texts of a block, which begins at `start`, that no earlier text has taken, to the first kept one of
    these that is similar enough.
    """
    similar = cosines >= least
    new = similar.any(1) & ~taken
    column = similar.int().argmax(1)
    lines = torch.nonzero(new).flatten()
    first[start + lines] = of_kept[column[lines]]
    scores[start + lines] = cosines[lines, column[lines]]
    taken |= new
