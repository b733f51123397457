"""Projections of word vectors to two dimensions: principal components, t-SNE, or an axis between two sets of words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from clearstory.errors import BadInput, BadSetting, MissingExtra
from clearstory.lens.probes.embeddings import (
    EmbeddingMatrix,
    known_token,
    matrix_name,
    nearest_tokens,
    principal_directions,
    unit_word_vectors,
    word_tokens,
)
from clearstory.lens.views import Map, Point
from clearstory.models.base import LanguageModel
from clearstory.text.tokenizers import Tokenizer

ProjectionMethod = Literal["pca", "tsne"]

MAX_WORDS = 120
"""More words than this overlap."""

MIN_TSNE_WORDS = 5
"""Fewer words have no neighbourhoods that t-SNE could preserve."""


@dataclass(frozen=True)
class ProjectionPlane:
    """Words, links to their nearest neighbours, and two axes through a model's word vectors, which can be applied to
    another model's vectors.

    `ids` are tokens, the first `word_count` of them of the text; `links` are pairs of indices in `ids`. A vector v has
    the coordinates (v − centre) · axes. `cosine` is the mean cosine of the linked pairs in this model.
    """

    ids: tuple[int, ...]
    word_count: int
    links: tuple[tuple[int, int], ...]
    centre: Float[Tensor, "W"]
    axes: Float[Tensor, "2 W"]
    cosine: float | None

    def coordinates(self, vectors: Float[Tensor, "V W"]) -> tuple[Float[Tensor, "N 2"], float]:
        """Coordinates of the words for these vectors, and the share of their variance along the axes."""
        chosen = vectors[list(self.ids)]
        coordinates = (chosen - self.centre) @ self.axes.T
        total = (chosen - chosen.mean(0)).square().sum()
        kept = (coordinates - coordinates.mean(0)).square().sum()
        return coordinates, float(kept / total) if total else 1.0


def projection(
    model: LanguageModel,
    tokenizer: Tokenizer,
    text: str,
    *,
    top: int = 4,
    centre: bool = True,
    remove_components: int = 0,
    max_token_id: int | None = None,
    layout: ProjectionMethod = "pca",
    matrix: EmbeddingMatrix = "input",
) -> Map:
    """The words of a text and the `top` nearest tokens of each, on the first two principal components.

    `matrix` selects the input or the output embeddings. Lines link each word to its nearest tokens; `top` 0 shows the
    words alone. `layout` tsne preserves neighbourhoods instead of distances (van der Maaten and Hinton 2008) and needs
    scikit-learn. Raises BadInput for an empty text and for more words than can be shown.
    """
    if layout not in ("pca", "tsne"):
        raise BadSetting(f"layout is '{layout}'; give pca or tsne")
    vectors = unit_word_vectors(model, tokenizer, centre=centre, remove_components=remove_components, matrix=matrix)
    plane = plane_from_vectors(vectors, tokenizer, text, top, max_token_id)
    title = f"Projection of {matrix_name(model, matrix)}" + (f", each with its {top} nearest" if top else "")
    if layout == "tsne":
        return projection_map(
            tokenizer,
            plane,
            tsne(vectors[list(plane.ids)]),
            title=title,
            axes=("t-SNE", "its second axis"),
            caption=f"{len(plane.ids):,} words by t-SNE, seed 0: neighbourhoods are preserved; distances between "
            "groups and directions have no meaning.",
        )
    coordinates, share = plane.coordinates(vectors)
    return projection_map(
        tokenizer,
        plane,
        coordinates,
        title=title,
        axes=("1st principal component", "2nd"),
        caption=f"{len(plane.ids):,} words; the two components hold {share:.0%} of the variance in "
        f"{vectors.shape[1]:,} dimensions, so words that are close here may be far apart.",
    )


def fit_plane(
    model: LanguageModel,
    tokenizer: Tokenizer,
    text: str,
    *,
    top: int = 4,
    centre: bool = True,
    remove_components: int = 0,
    max_token_id: int | None = None,
    matrix: EmbeddingMatrix = "input",
) -> ProjectionPlane:
    """The words of a text and the `top` nearest of each, with their two principal axes in this model.

    Raises BadInput for an empty text and for more words than can be shown.
    """
    vectors = unit_word_vectors(model, tokenizer, centre=centre, remove_components=remove_components, matrix=matrix)
    return plane_from_vectors(vectors, tokenizer, text, top, max_token_id)


def plane_from_vectors(
    vectors: Float[Tensor, "V W"], tokenizer: Tokenizer, text: str, top: int, max_token_id: int | None
) -> ProjectionPlane:
    """The same from word vectors."""
    word_ids = word_tokens(tokenizer, text)
    if not word_ids:
        raise BadInput("the text is empty; give at least one word")
    if top < 0 or len(word_ids) * (1 + top) > MAX_WORDS:
        raise BadInput(
            f"{len(word_ids):,} words with {top:,} neighbours each are more than the {MAX_WORDS} that can be shown; "
            "give fewer words or a smaller top"
        )
    ids, pairs = dict.fromkeys(word_ids), []
    for id in word_ids:
        found = nearest_tokens(vectors, vectors[id], top, without=(id,), max_token_id=max_token_id) if top else ()
        for near in found:
            ids[near.id] = None
            pairs.append((id, near.id))
    order = list(ids)
    axes = principal_directions(vectors[order], 2)
    axes = F.pad(axes, (0, 0, 0, 2 - len(axes)))  # one word has one direction
    links = tuple((order.index(first), order.index(second)) for first, second in pairs)
    cosine = mean_linked_cosine(vectors[order], links)
    return ProjectionPlane(tuple(order), len(word_ids), links, vectors[order].mean(0), axes, cosine)


def mean_linked_cosine(vectors: Float[Tensor, "N W"], links: Sequence[tuple[int, int]]) -> float | None:
    """The mean cosine of linked words; None without links."""
    if not links:
        return None
    firsts, seconds = zip(*links, strict=True)
    return float((vectors[list(firsts)] * vectors[list(seconds)]).sum(-1).mean())


def project_on(
    model: LanguageModel,
    tokenizer: Tokenizer,
    plane: ProjectionPlane,
    *,
    centre: bool = True,
    remove_components: int = 0,
    matrix: EmbeddingMatrix = "input",
) -> Map:
    """The words of a plane with the vectors of another model, such as an earlier checkpoint of the same run.

    The axes stay the same, so that between two checkpoints only the words move. Raises BadInput for a model whose
    vectors have another width or that has fewer tokens.
    """
    vectors = unit_word_vectors(model, tokenizer, centre=centre, remove_components=remove_components, matrix=matrix)
    if vectors.shape[1] != len(plane.centre) or max(plane.ids) >= len(vectors):
        raise BadInput(
            f"the axes are for vectors of {len(plane.centre):,} dimensions, but this model has {len(vectors):,} tokens "
            f"of {vectors.shape[1]:,}; project checkpoints of one run"
        )
    coordinates, share = plane.coordinates(vectors)
    caption = f"The axes hold {share:.0%} of the variance here."
    if not bool(vectors[list(plane.ids)].any()):
        caption = "All word vectors are still zero here, so all words have the same coordinates."
    now = mean_linked_cosine(vectors[list(plane.ids)], plane.links)
    if now is not None and plane.cosine is not None:
        caption = f"Linked words have a mean cosine of {now:.2f} here and {plane.cosine:.2f} at the end. {caption}"
    return projection_map(
        tokenizer,
        plane,
        coordinates,
        title=f"Projection of {matrix_name(model, matrix)} on the axes of the final model",
        axes=("1st principal component at the end", "2nd"),
        caption=caption,
    )


def projection_map(
    tokenizer: Tokenizer,
    plane: ProjectionPlane,
    coordinates: Float[Tensor, "N 2"],
    *,
    title: str,
    axes: tuple[str, str],
    caption: str,
) -> Map:
    """The map of a plane's words."""
    return Map(
        title=title,
        points=tuple(
            Point(tokenizer.display_token(id), float(x), float(y), int(index >= plane.word_count), f"token {id:,}")
            for index, (id, (x, y)) in enumerate(zip(plane.ids, coordinates.tolist(), strict=True))
        ),
        links=plane.links,
        groups=("words of the text", "their nearest tokens")[: 1 + (len(plane.ids) > plane.word_count)],
        x_label=axes[0],
        y_label=axes[1],
        caption=caption,
    )


def tsne(vectors: Float[Tensor, "N W"]) -> Float[Tensor, "N 2"]:
    """Coordinates by t-SNE. Raises MissingExtra without scikit-learn, BadInput for too few words."""
    distinct = len(set(map(tuple, vectors.tolist())))
    if distinct < MIN_TSNE_WORDS:
        raise BadInput(
            f"t-SNE needs at least {MIN_TSNE_WORDS} distinct vectors, but these words have {distinct}; give more "
            "words, or use pca"
        )
    try:
        from sklearn.manifold import TSNE
    except ImportError:
        raise MissingExtra("t-SNE needs scikit-learn: pip install clearstory[data]") from None
    perplexity = min(30.0, (len(vectors) - 1) / 3)
    # Exact: there are few words, and the Barnes-Hut method aborts the process on a NaN (scikit-learn 1.9).
    estimator = TSNE(perplexity=perplexity, init="pca", method="exact", random_state=0)
    return torch.from_numpy(estimator.fit_transform(vectors.double().numpy())).double()


def semantic_axis(
    model: LanguageModel,
    tokenizer: Tokenizer,
    text: str,
    *,
    words: tuple[str, ...] = (),
    centre: bool = True,
    remove_components: int = 0,
    matrix: EmbeddingMatrix = "input",
) -> Map:
    """The words of a text along the axis between two words, or between the means of two sets of words (Bolukbasi et al.
    2016, section 3, project on such a direction).

    `words`: the two ends, each one or several words separated by spaces. x is the position along the axis, 0 at the
    first end and 1 at the second; y is the distance from it.
    """
    if len(words) != 2:
        raise BadSetting(
            f"an axis has two ends, but {len(words)} were given; give one or several words for each: "
            '--words "he man king" --words "she woman queen"'
        )
    ends = [[known_token(tokenizer, word) for word in end.replace(",", " ").split()] for end in words]
    if not all(ends):
        raise BadSetting("an end of the axis is empty; give at least one word for each")
    word_ids = [id for id in word_tokens(tokenizer, text) if id not in (*ends[0], *ends[1])]
    vectors = unit_word_vectors(model, tokenizer, centre=centre, remove_components=remove_components, matrix=matrix)
    order = [*word_ids, *dict.fromkeys((*ends[0], *ends[1]))]
    along, off = axis_coordinates(vectors[order], vectors[ends[0]].mean(0), vectors[ends[1]].mean(0))
    points = tuple(
        Point(tokenizer.display_token(id), float(x), float(y), 0 if id in word_ids else 1 if id in ends[0] else 2)
        for id, x, y in zip(order, along.tolist(), off.tolist(), strict=True)
    )
    names = [", ".join(map(tokenizer.display_token, end)) for end in ends]
    caption = None
    if word_ids:
        first, last = min(points[: len(word_ids)], key=lambda p: p.x), max(points[: len(word_ids)], key=lambda p: p.x)
        caption = (
            f"Nearest to the first end is {first.label} at {first.x:.2f}, to the second {last.label} at {last.x:.2f}."
        )
    return Map(
        title=f"From {names[0]} to {names[1]}",
        points=points,
        groups=("words of the text", f"first end: {names[0]}", f"second end: {names[1]}"),
        x_label="position along the axis, 0 at the first end and 1 at the second",
        y_label="distance from the axis",
        caption=caption,
    )


def axis_coordinates(
    vectors: Float[Tensor, "N W"], start: Float[Tensor, "W"], end: Float[Tensor, "W"]
) -> tuple[Float[Tensor, "N"], Float[Tensor, "N"]]:
    """Positions of vectors along the line from one point to another (0 and 1), and distances from it, both in units of
    the distance between the two points.

    >>> import torch
    >>> [each.tolist() for each in axis_coordinates(torch.eye(2), torch.zeros(2), torch.tensor([2.0, 0.0]))]
    [[0.5, 0.0], [0.0, 0.5]]
    """
    difference = end - start
    length = float(difference.norm())
    if length == 0:
        raise BadInput("the two ends of the axis are the same; give two different words or sets of words")
    relative = (vectors - start) / length
    along = relative @ (difference / length)
    return along, (relative - along[:, None] * (difference / length)).norm(dim=-1)
