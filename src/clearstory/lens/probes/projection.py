"""Word map: words laid out by their vectors, on the two directions in which they differ most or between two ends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from clearstory.errors import BadInput, BadSetting, MissingExtra
from clearstory.lens.views.map import Point
from clearstory.lens.probes.x_vectors import nearest_tokens, known_token, principal_directions, word_tokens, unit_word_vectors
from clearstory.lens.views import Map
from clearstory.text.tokenizers import Tokenizer

Layout = Literal["pca", "tsne"]

MOST = 120
"""More words than this cover each other."""

FEWEST = 5
"""Fewer words have no neighbourhoods that t-SNE could keep."""


@dataclass(frozen=True)
class ProjectionPlane:
    """Words, their links, and two axes through a model's word vectors, on which another model's can be laid out too.

    `ids` are tokens, the first `own` of them the text's; `links` lead from a place in `ids` to that of one of its
    nearest. A vector v stands at (v − middle) · axes. `cosine` is the mean over the linked pairs in this model.
    """

    ids: tuple[int, ...]
    own: int
    links: tuple[tuple[int, int], ...]
    middle: Float[Tensor, "W"]
    axes: Float[Tensor, "2 W"]
    cosine: float | None

    def places(self, vectors: Float[Tensor, "V W"]) -> tuple[Float[Tensor, "N 2"], float]:
        """Where the words stand by these vectors, and the share of their variance that is kept."""
        chosen = vectors[list(self.ids)]
        places = (chosen - self.middle) @ self.axes.T
        spread = (chosen - chosen.mean(0)).square().sum()
        kept = (places - places.mean(0)).square().sum()
        return places, float(kept / spread) if spread else 1.0


def fit_plane(
    model: Any,
    tokenizer: Tokenizer,
    text: str,
    *,
    top: int = 4,
    centre: bool = True,
    remove_components: int = 0,
    max_token_id: int | None = None,
) -> ProjectionPlane:
    """The words of a text and the `top` nearest of each, with their two principal axes in this model.

    Raises BadInput for an empty text, and for one of so many words that nothing could be read.
    """
    vectors = unit_word_vectors(model, tokenizer, centre=centre, remove_components=remove_components)
    return plane_from_vectors(vectors, tokenizer, text, top, max_token_id)


def plane_from_vectors(vectors: Float[Tensor, "V W"], tokenizer: Tokenizer, text: str, top: int, max_token_id: int | None) -> ProjectionPlane:
    """The same from word vectors."""
    own = word_tokens(tokenizer, text)
    if not own:
        raise BadInput("the text is empty; give a few words to look at")
    if top < 0 or len(own) * (1 + top) > MOST:
        raise BadInput(
            f"{len(own):,} words with {top:,} neighbours each are more than the {MOST} that can be told apart; give "
            "fewer words or a smaller top"
        )
    ids, pairs = dict.fromkeys(own), []
    for id in own:
        for near in nearest_tokens(vectors, vectors[id], top, without=(id,), max_token_id=max_token_id) if top else ():
            ids[near.id] = None
            pairs.append((id, near.id))
    order = list(ids)
    middle = vectors[order].mean(0)
    axes = principal_directions(vectors[order], 2)
    axes = F.pad(axes, (0, 0, 0, 2 - len(axes)))  # one word has one direction
    links = tuple((order.index(one), order.index(other)) for one, other in pairs)
    return ProjectionPlane(tuple(order), len(own), links, middle, axes, mean_linked_cosine(vectors[order], links))


def mean_linked_cosine(vectors: Float[Tensor, "N W"], links: Sequence[tuple[int, int]]) -> float | None:
    """The mean cosine of linked words; None where there are no links."""
    if not links:
        return None
    ones, others = zip(*links, strict=True)
    return float((vectors[list(ones)] * vectors[list(others)]).sum(-1).mean())


def projection(
    model: Any,
    tokenizer: Tokenizer,
    text: str,
    *,
    top: int = 4,
    centre: bool = True,
    remove_components: int = 0,
    max_token_id: int | None = None,
    layout: Layout = "pca",
) -> Map:
    """The words of a text and the `top` nearest of each, in the plane of their two principal components.

    Lines lead from each word to its nearest. `top` 0 shows the words alone. `layout` tsne keeps who is near whom in
    place of distances (van der Maaten and Hinton 2008); it asks for scikit-learn. Raises BadInput for an empty text,
    and for one of so many words that nothing could be read.
    """
    if layout not in ("pca", "tsne"):
        raise BadSetting(f"layout is '{layout}'; words are laid out by pca or by tsne")
    vectors = unit_word_vectors(model, tokenizer, centre=centre, remove_components=remove_components)
    plane = plane_from_vectors(vectors, tokenizer, text, top, max_token_id)
    title = "Words by their vectors" + (f", each with its {top} nearest" if top else "")
    if layout == "tsne":
        return drawn(
            tokenizer,
            plane,
            scattered(vectors[list(plane.ids)]),
            title=title,
            axes=("t-SNE", "its second axis"),
            caption=f"{len(plane.ids):,} words by t-SNE, seed 0: it keeps who is near whom; how far apart groups lie, and "
            "in which direction, means nothing.",
        )
    places, kept = plane.places(vectors)
    return drawn(
        tokenizer,
        plane,
        places,
        title=title,
        axes=("1st principal component", "2nd"),
        caption=f"{len(plane.ids):,} words; this plane keeps {kept:.0%} of their variance in {vectors.shape[1]:,} "
        "dimensions, so words that lie together here need not be near.",
    )


def project_on(model: Any, tokenizer: Tokenizer, plane: ProjectionPlane, *, centre: bool = True, remove_components: int = 0) -> Map:
    """The words of a plane where another model has them: an earlier checkpoint of the one that the plane was made of.

    The axes stand still, so what moves between two checkpoints are the words. Raises BadInput for a model whose
    vectors have another width, or that has fewer words.
    """
    vectors = unit_word_vectors(model, tokenizer, centre=centre, remove_components=remove_components)
    if vectors.shape[1] != len(plane.middle) or max(plane.ids) >= len(vectors):
        raise BadInput(
            f"the axes are of vectors of {len(plane.middle):,} numbers and this model has {len(vectors):,} words of "
            f"{vectors.shape[1]:,}; lay out checkpoints of one run"
        )
    places, kept = plane.places(vectors)
    said = f"These axes keep {kept:.0%} of the words' variance here."
    if not bool(vectors[list(plane.ids)].any()):
        said = "All word vectors are still zero here, so every word stands at one place."
    now = mean_linked_cosine(vectors[list(plane.ids)], plane.links)
    if now is not None and plane.cosine is not None:
        said = f"Words that are linked have a mean cosine of {now:.2f} here and {plane.cosine:.2f} at the end. {said}"
    return drawn(
        tokenizer,
        plane,
        places,
        title="Words by their vectors, on the axes of the end of training",
        axes=("1st principal component at the end", "2nd"),
        caption=said,
    )


def drawn(
    tokenizer: Tokenizer,
    plane: ProjectionPlane,
    places: Float[Tensor, "N 2"],
    *,
    title: str,
    axes: tuple[str, str],
    look: str,
) -> Map:
    """The map of a plane's words."""
    return Map(
        title=title,
        points=tuple(
            Point(tokenizer.display_token(id), float(x), float(y), int(number >= plane.own), f"token {id:,}")
            for number, (id, (x, y)) in enumerate(zip(plane.ids, places.tolist(), strict=True))
        ),
        links=plane.links,
        groups=("the text's own", "their nearest")[: 1 + (len(plane.ids) > plane.own)],
        x_label=axes[0],
        y_label=axes[1],
        caption=look,
    )


def scattered(vectors: Float[Tensor, "N W"]) -> Float[Tensor, "N 2"]:
    """Places by t-SNE. Raises MissingExtra without scikit-learn, BadInput for too few words."""
    different = len(set(map(tuple, vectors.tolist())))
    if different < FEWEST:
        raise BadInput(
            f"t-SNE lays out {FEWEST} different vectors and more, and these words have {different}; give more "
            "words, or use pca"
        )
    try:
        from sklearn.manifold import TSNE
    except ImportError:
        raise MissingExtra("t-SNE needs scikit-learn: pip install clearstory[data]") from None
    spread = min(30.0, (len(vectors) - 1) / 3)
    # Exactly: there are few words, and the quicker way ends the process where a number is none (scikit-learn 1.9).
    made = TSNE(perplexity=spread, init="pca", method="exact", random_state=0).fit_transform(vectors.double().numpy())
    return torch.from_numpy(made).double()


def axis_coordinates(
    vectors: Float[Tensor, "N W"], one: Float[Tensor, "W"], other: Float[Tensor, "W"]
) -> tuple[Float[Tensor, "N"], Float[Tensor, "N"]]:
    """How far along the way from one point to another each vector stands (0 at the one, 1 at the other), and how far
    off that line, both in lengths of the way.

    >>> import torch
    >>> [each.tolist() for each in along(torch.eye(2), torch.zeros(2), torch.tensor([2.0, 0.0]))]
    [[0.5, 0.0], [0.0, 0.5]]
    """
    way = other - one
    length = float(way.norm())
    if length == 0:
        raise BadInput("the two ends of the axis are the same; name two different words or sets of words")
    from_one = (vectors - one) / length
    places = from_one @ (way / length)
    return places, (from_one - places[:, None] * (way / length)).norm(dim=-1)


def semantic_axis(
    model: Any,
    tokenizer: Tokenizer,
    text: str,
    *,
    words: tuple[str, ...] = (),
    centre: bool = True,
    remove_components: int = 0,
) -> Map:
    """The words of a text along the axis between two words, or between the means of two sets of them (Bolukbasi et al.
    2016, section 3, projects on such a direction).

    `words`: the two ends, each one word or several with spaces between. Across stands how far along a word is, from 0
    at the first end to 1 at the second; upwards how far off the line.
    """
    if len(words) != 2:
        raise BadSetting(
            f"an axis has two ends and {len(words)} were given; name a word or several for each: "
            '--words "he man king" --words "she woman queen"'
        )
    ends = [[known_token(tokenizer, word) for word in end.replace(",", " ").split()] for end in words]
    if not all(ends):
        raise BadSetting("an end of the axis is empty; name at least one word for each")
    own = [id for id in word_tokens(tokenizer, text) if id not in (*ends[0], *ends[1])]
    vectors = unit_word_vectors(model, tokenizer, centre=centre, remove_components=remove_components)
    order = [*own, *dict.fromkeys((*ends[0], *ends[1]))]
    places, off = axis_coordinates(vectors[order], vectors[ends[0]].mean(0), vectors[ends[1]].mean(0))
    points = tuple(
        Point(tokenizer.display_token(id), float(x), float(y), 0 if id in own else 1 if id in ends[0] else 2)
        for id, x, y in zip(order, places.tolist(), off.tolist(), strict=True)
    )
    named = [", ".join(map(tokenizer.display_token, end)) for end in ends]
    said = None
    if own:
        first, last = min(points[: len(own)], key=lambda p: p.x), max(points[: len(own)], key=lambda p: p.x)
        said = (
            f"Nearest to the first end is {first.label} at {first.x:.2f}, to the second {last.label} at {last.x:.2f}."
        )
    return Map(
        title=f"From {named[0]} to {named[1]}",
        points=points,
        groups=("the text's own", f"one end: {named[0]}", f"other end: {named[1]}"),
        x_label="along the axis, 0 at one end and 1 at the other",
        y_label="off it",
        caption=said,
    )
