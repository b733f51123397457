"""Word map: words laid out by their vectors, on the two directions in which they differ most or between two ends."""

from __future__ import annotations

from typing import Any

from jaxtyping import Float
from torch import Tensor

from clearstory.errors import BadInput, BadSetting
from clearstory.lens.placed import Point
from clearstory.lens.vectors import nearest_to, on_two_axes, one_token, tokens_of, word_vectors
from clearstory.lens.views import Map
from clearstory.text.tokenizers import Tokenizer

MOST = 120
"""More words than this cover each other."""


def words_map(
    model: Any,
    tokenizer: Tokenizer,
    text: str,
    *,
    top: int = 4,
    centre: bool = True,
    remove: int = 0,
    within: int | None = None,
) -> Map:
    """The words of a text and the `top` nearest of each, in the plane of their two principal components.

    Lines lead from each word to its nearest. `top` 0 shows the words alone. Raises BadInput for an empty text, and for
    one of so many words that nothing could be read.
    """
    own = tokens_of(tokenizer, text)
    if not own:
        raise BadInput("the text is empty; give a few words to look at")
    if top < 0 or len(own) * (1 + top) > MOST:
        raise BadInput(
            f"{len(own):,} words with {top:,} neighbours each are more than the {MOST} that can be told apart; give "
            "fewer words or a smaller top"
        )
    vectors = word_vectors(model, tokenizer, centre=centre, remove=remove)
    ids, pairs = dict.fromkeys(own), []
    for id in own:
        for near in nearest_to(vectors, vectors[id], top, without=(id,), within=within) if top else ():
            ids[near.id] = None
            pairs.append((id, near.id))
    order = list(ids)
    places, kept = on_two_axes(vectors[order])
    return Map(
        title="Words by their vectors" + (f", each with its {top} nearest" if top else ""),
        points=tuple(
            Point(tokenizer.piece(id), float(x), float(y), int(id not in own), f"token {id:,}")
            for id, (x, y) in zip(order, places.tolist(), strict=True)
        ),
        links=tuple((order.index(one), order.index(other)) for one, other in pairs),
        groups=("the text's own", "their nearest") if len(order) > len(own) else ("the text's own",),
        x_label="1st principal component",
        y_label="2nd",
        look=f"{len(order):,} words; this plane keeps {kept:.0%} of their variance in {vectors.shape[1]:,} dimensions, "
        "so words that lie together here need not be near.",
    )


def along(
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


def axis(
    model: Any,
    tokenizer: Tokenizer,
    text: str,
    *,
    words: tuple[str, ...] = (),
    centre: bool = True,
    remove: int = 0,
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
    ends = [[one_token(tokenizer, word) for word in end.replace(",", " ").split()] for end in words]
    if not all(ends):
        raise BadSetting("an end of the axis is empty; name at least one word for each")
    own = [id for id in tokens_of(tokenizer, text) if id not in (*ends[0], *ends[1])]
    vectors = word_vectors(model, tokenizer, centre=centre, remove=remove)
    order = [*own, *dict.fromkeys((*ends[0], *ends[1]))]
    places, off = along(vectors[order], vectors[ends[0]].mean(0), vectors[ends[1]].mean(0))
    points = tuple(
        Point(tokenizer.piece(id), float(x), float(y), 0 if id in own else 1 if id in ends[0] else 2)
        for id, x, y in zip(order, places.tolist(), off.tolist(), strict=True)
    )
    named = [", ".join(map(tokenizer.piece, end)) for end in ends]
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
        look=said,
    )
