"""Vectors: one for each word, as a model has learnt them, cleared of what they all share; and words found by them.

All words share a direction that says nothing of any: their mean (Mu and Viswanath 2018). Behind it stand a few more,
mostly of how frequent a word is; `remove_components` takes those away too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from clearstory.errors import BadInput, BadSetting
from clearstory.text.tokenizers import Tokenizer


@torch.no_grad()
def unit_word_vectors(model: Any, tokenizer: Tokenizer, *, centre: bool = True, remove_components: int = 0) -> Float[Tensor, "V W"]:
    """The vectors of a tokenizer's words in a model, each of length 1. Rows of a model that no token has are left out.

    They are those of the unembedding, which words are predicted by (the embedding's own where they are tied): every
    step of training moves all of them, where the embedding moves only the words it has read. `centre`: their mean is
    taken away first; `remove_components`: so many of their main directions too. Raises BadSetting for more than there are.
    """
    vectors: Tensor = model.output_weight.detach()[: tokenizer.vocab].float()
    if not 0 <= remove_components < vectors.shape[1]:
        raise BadSetting(f"remove_components is {remove_components} and word vectors have {vectors.shape[1]:,} directions; take away fewer")
    if centre or remove_components:
        vectors = vectors - vectors.mean(0)
    if remove_components:
        main = principal_directions(vectors, remove_components)
        vectors = vectors - (vectors @ main.T) @ main
    return torch.nn.functional.normalize(vectors, dim=-1)


def principal_directions(vectors: Float[Tensor, "N W"], count: int) -> Float[Tensor, "K W"]:
    """The directions in which vectors (their mean taken away) vary most, the first the most. Pearson 1901.

    Fewer than `count` where fewer numbers are there. Each points to where its largest number is positive, so that the
    same vectors give the same directions.
    """
    spread = (vectors - vectors.mean(0)).double()
    if len(spread) < spread.shape[1]:
        _, _, found = torch.linalg.svd(spread, full_matrices=False)
    else:
        found = torch.linalg.eigh(spread.T @ spread).eigenvectors.flip(1).T
    found = found[:count]
    largest = found.gather(1, found.abs().argmax(1, keepdim=True))
    main: Tensor = (found * largest.sign()).to(vectors.dtype)
    return main


def known_token(tokenizer: Tokenizer, word: str) -> int:
    """The token that is a word, behind a space where there is such a one. Raises BadInput for one of several tokens."""
    forms = [ids for form in (f" {word}", word) if len(ids := tokenizer.encode(form)) == 1]
    if not forms:
        pieces = " · ".join(tokenizer.display_token(id) for id in tokenizer.encode(word))
        raise BadInput(f"'{word}' is not one token but {pieces}; choose a shorter or more frequent word")
    (own,) = forms[0]
    if own == tokenizer.unk_token_id:
        raise BadInput(f"'{word}' is unknown to the vocabulary; choose a word that it has")
    return own


def word_tokens(tokenizer: Tokenizer, text: str) -> list[int]:
    """The different tokens of a text's words, in their order: of each word the one that is all of it, or its pieces."""
    found: dict[int, None] = {}
    for word in text.split():
        try:
            found[known_token(tokenizer, word)] = None
        except BadInput:
            found.update(dict.fromkeys(tokenizer.encode(word)))
    return list(found)


@dataclass(frozen=True)
class Neighbour:
    """A token, its cosine with what was asked, and how many tokens are nearer and one."""

    id: int
    cosine: float
    rank: int


def nearest_tokens(
    vectors: Float[Tensor, "V W"],
    wanted: Float[Tensor, "W"],
    top: int,
    *,
    without: tuple[int, ...] = (),
    max_token_id: int | None = None,
) -> list[Neighbour]:
    """The `top` tokens nearest to a direction by cosine, exact over the whole vocabulary.

    `without`: these are passed over. `max_token_id`: only ids below it count, which most tokenizers give to frequent tokens.
    """
    if top < 1:
        raise BadSetting(f"top is {top}; show at least 1 token")
    if max_token_id is not None and max_token_id < 1:
        raise BadSetting(f"max_token_id is {max_token_id}; let at least 1 token be found")
    cosines = vectors[:max_token_id] @ F.normalize(wanted, dim=-1)
    order = cosines.argsort(descending=True, stable=True).tolist()
    ranked = [(id, rank) for rank, id in enumerate(order[: top + len(without)], start=1) if id not in without]
    return [Neighbour(id, float(cosines[id]), rank) for id, rank in ranked[:top]]


def project_to_plane(vectors: Float[Tensor, "N W"]) -> tuple[Float[Tensor, "N 2"], float]:
    """Where points stand on the two directions in which they vary most, and the share of variance that is kept."""
    spread = vectors - vectors.mean(0)
    main = principal_directions(spread, 2)
    places = spread @ main.T
    if places.shape[1] < 2:
        places = F.pad(places, (0, 2 - places.shape[1]))
    whole = float(spread.square().sum())
    return places, float(places.square().sum()) / whole if whole else 1.0


def input_embeddings(model: Any, ids: list[int]) -> Float[Tensor, "N W"]:
    """The embedding's rows of these tokens: what stands in their place before anything is read."""
    weight = model.embedding.weight.detach()
    chosen: Int[Tensor, "N"] = torch.tensor(ids, device=weight.device)
    rows: Tensor = weight[chosen].float().cpu()
    return rows
