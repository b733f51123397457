"""Neighbours: the words whose vectors point the same way, and what sums of vectors point to. Mikolov et al. 2013."""

from __future__ import annotations

import re
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from clearstory.errors import BadInput
from clearstory.lens.probes.x_vectors import Neighbour, nearest_tokens, known_token, unit_word_vectors
from clearstory.lens.views import Table
from clearstory.text.tokenizers import Tokenizer


def neighbours(
    model: Any,
    tokenizer: Tokenizer,
    word: str,
    *,
    top: int = 8,
    centre: bool = True,
    remove_components: int = 0,
    max_token_id: int | None = None,
) -> Table:
    """The `top` tokens nearest to a word by cosine, exact over the whole vocabulary.

    `centre`, `remove_components`: what all words share is taken away, see `word_vectors`. `max_token_id`: only tokens with a smaller id
    are looked for; tokenizers give frequent tokens small ones. Raises BadInput for a word that is more than one token.
    """
    own, found, vectors = word_neighbours(model, tokenizer, word, top=top, centre=centre, remove_components=remove_components, max_token_id=max_token_id)
    return Table(
        title=f"Nearest to {tokenizer.display_token(own)}",
        columns=("token", "cosine", "id"),
        rows=tuple((tokenizer.display_token(each.id), round(each.cosine, 6), each.id) for each in found),
        bar="cosine",
        caption=similarity_caption(model, tokenizer, vectors, centre, remove_components),
    )


def word_neighbours(
    model: Any, tokenizer: Tokenizer, word: str, *, top: int, centre: bool, remove_components: int, max_token_id: int | None
) -> tuple[int, list[Neighbour], Float[Tensor, "V W"]]:
    """A word's token, the tokens nearest to it, and the vectors of all."""
    own = known_token(tokenizer, word)
    vectors = unit_word_vectors(model, tokenizer, centre=centre, remove_components=remove_components)
    return own, nearest_tokens(vectors, vectors[own], top, without=(own,), max_token_id=max_token_id), vectors


def similarity_caption(model: Any, tokenizer: Tokenizer, vectors: Float[Tensor, "V W"], centre: bool, remove_components: int) -> str:
    """How much alike any two words are, as learnt and as shown: the mean cosine of two drawn by chance.

    It is the squared length of the mean of all unit vectors.
    """
    raw = unit_word_vectors(model, tokenizer, centre=False) if centre or remove_components else vectors
    if not bool(raw.any()):
        return "All word vectors are zero, as a model begins: nothing has been learnt, and no word is near another."
    before, after = (float(each.mean(0).square().sum()) for each in (raw, vectors))
    said = f"Two words drawn by chance have a cosine of {before:.2f} on average as the model has learnt them"
    if not centre and not remove_components:
        return said + "; a cosine says something where it is well above that."
    taken = " and ".join(["their mean"] + [f"their {remove_components} main direction{'s' * (remove_components > 1)}"] * bool(remove_components))
    return f"{said}, and {after:.2f} here, where {taken} {'is' if not remove_components else 'are'} taken away."


def analogy(
    model: Any,
    tokenizer: Tokenizer,
    text: str,
    *,
    top: int = 8,
    centre: bool = True,
    remove_components: int = 0,
    max_token_id: int | None = None,
) -> Table:
    """The tokens nearest to a sum of words, such as `king - man + woman`; vectors of length 1 are added (Mikolov et al.
    2013, section 4; Levy and Goldberg 2014, eq. 2).

    The words of the sum are passed over, as is the custom: else one of them is mostly first, which `look` tells.
    Raises BadInput for a sum of fewer than two words, and for a word that is more than one token.
    """
    terms = [(sign, known_token(tokenizer, word)) for sign, word in parse_word_sum(text)]
    vectors = unit_word_vectors(model, tokenizer, centre=centre, remove_components=remove_components)
    wanted = F.normalize(sum((sign * vectors[id] for sign, id in terms), torch.zeros_like(vectors[0])), dim=-1)
    inputs = tuple(id for _, id in terms)
    found = nearest_tokens(vectors, wanted, top, without=inputs, max_token_id=max_token_id)
    first = nearest_tokens(vectors, wanted, 1)[0]
    written = " ".join(f"{'+' if sign > 0 else '-'} {tokenizer.display_token(id)}" for sign, id in terms).removeprefix("+ ")
    names = ", ".join(map(tokenizer.display_token, dict.fromkeys(inputs)))
    said = f"{names} {'are' if len(set(inputs)) > 1 else 'is'} passed over"
    if first.id in inputs:
        said += f"; with a cosine of {first.cosine:.2f} {tokenizer.display_token(first.id)} itself would be first"
    return Table(
        title=f"Nearest to {written}",
        columns=("token", "cosine", "id"),
        rows=tuple((tokenizer.display_token(each.id), round(each.cosine, 6), each.id) for each in found),
        bar="cosine",
        caption=f"{said}.",
    )


def parse_word_sum(text: str) -> list[tuple[int, str]]:
    """Words and their signs. A sign stands by itself or before a word.

    >>> summands("king - man +woman")
    [(1, 'king'), (-1, 'man'), (1, 'woman')]
    """
    found = [
        (-1 if sign and sign in "-−" else 1, word)
        for sign, word in re.findall(r"(?:(?<!\S)([+\-−])\s*)?([^\s+\-−]\S*)", text)
    ]
    if len(found) < 2:
        raise BadInput(f"‘{text}’ is no sum of words; write one such as: king - man + woman")
    return found
