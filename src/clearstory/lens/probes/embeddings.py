"""Embeddings: the vectors of tokens, nearest neighbours, and word analogies.

A model has input embeddings and, unless they are tied, output embeddings (the unembedding), which `clear` initialises
with zeros. Vectors share a large mean component (Mu and Viswanath 2018), which `centre` removes. The next principal
components mostly encode token frequency; `remove_components` removes those too.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from clearstory.errors import BadInput, BadSetting
from clearstory.lens.hooks.activations import embedding_module, unwrap_model
from clearstory.lens.hooks.passage import encode_passage
from clearstory.lens.hooks.residual_stream import single_token
from clearstory.lens.views import Grid, Table
from clearstory.models.base import LanguageModel, output_weight
from clearstory.models.capabilities import Capability, require
from clearstory.models.prompts import PromptOptions
from clearstory.text.tokenizers import Tokenizer

EmbeddingMatrix = Literal["input", "output"]
"""The input or the output embeddings of a model; the same where they are tied."""


def embeddings(
    model: LanguageModel,
    tokenizer: Tokenizer,
    text: str,
    *,
    top: int = 48,
    prompt: PromptOptions = PromptOptions(),
) -> Grid:
    """The input embeddings of a text's tokens: a row for each token, a column for each dimension.

    Of wide vectors the `top` dimensions with the largest variance are shown. Raises BadInput for an empty text.
    """
    passage = encode_passage(model, tokenizer, text, prompt=prompt)
    ids = list(passage.text_ids)
    rows = input_embeddings(model, ids)
    columns, caption = most_varying_columns(rows, top)
    return Grid(
        title=f"Embeddings of {len(ids):,} tokens, {rows.shape[1]:,} dimensions each",
        row_labels=passage.source_labels or passage.labels,
        column_labels=tuple(map(str, columns)),
        values=tuple(tuple(row) for row in rows[:, columns].double().tolist()),
        dots=True,
        caption=f"Values from {float(rows.min()):.2g} to {float(rows.max()):.2g}. {caption}",
    )


def input_embeddings(model: LanguageModel, ids: list[int]) -> Float[Tensor, "N W"]:
    """The input embeddings of these tokens."""
    weight = embedding_matrix(model, "input")
    chosen: Int[Tensor, "N"] = torch.tensor(ids, device=weight.device)
    rows: Tensor = weight[chosen].float().cpu()
    return rows


def most_varying_columns(rows: Float[Tensor, "N W"], top: int) -> tuple[list[int], str]:
    """The columns with the largest variance, in their own order, and a caption about those left out.

    >>> import torch
    >>> most_varying_columns(torch.tensor([[0.0, 1.0, 5.0], [0.0, 2.0, 5.5]]), 1)
    ([1], 'The 1 of 3 dimensions with the largest variance is shown: 80% of the total variance.')
    """
    if top < 1:
        raise BadSetting(f"top is {top}; show at least 1 dimension")
    count = rows.shape[1]
    if count <= top:
        return list(range(count)), f"All {count:,} dimensions are shown."
    variance = rows.double().var(0, correction=0)
    kept = sorted(variance.argsort(descending=True, stable=True)[:top].tolist())
    total = float(variance.sum())
    share = float(variance[kept].sum()) / total if total else 1.0
    caption = f"The {top:,} of {count:,} dimensions with the largest variance {'is' if top == 1 else 'are'} shown: "
    return kept, f"{caption}{share:.0%} of the total variance."


def neighbours(
    model: LanguageModel,
    tokenizer: Tokenizer,
    word: str,
    *,
    top: int = 8,
    centre: bool = True,
    remove_components: int = 0,
    max_token_id: int | None = None,
    matrix: EmbeddingMatrix = "input",
) -> Table:
    """The `top` tokens nearest to a word by cosine, exact over the whole vocabulary.

    `centre`, `remove_components` and `matrix`: see `unit_word_vectors`. `max_token_id`: only tokens with smaller ids
    count; most tokenizers give frequent tokens small ids. Raises BadInput for a word of more than one token.
    """
    id, found, vectors = word_neighbours(
        model,
        tokenizer,
        word,
        top=top,
        centre=centre,
        remove_components=remove_components,
        max_token_id=max_token_id,
        matrix=matrix,
    )
    return Table(
        title=f"Nearest to {tokenizer.display_token(id)}",
        columns=("token", "cosine", "id"),
        rows=tuple((tokenizer.display_token(each.id), round(each.cosine, 6), each.id) for each in found),
        bar="cosine",
        caption=similarity_caption(model, tokenizer, vectors, centre, remove_components, matrix),
    )


def word_neighbours(
    model: LanguageModel,
    tokenizer: Tokenizer,
    word: str,
    *,
    top: int,
    centre: bool,
    remove_components: int,
    max_token_id: int | None,
    matrix: EmbeddingMatrix = "input",
) -> tuple[int, list[Neighbour], Float[Tensor, "V W"]]:
    """A word's token, the tokens nearest to it, and the vectors of all tokens."""
    id = known_token(tokenizer, word)
    vectors = unit_word_vectors(model, tokenizer, centre=centre, remove_components=remove_components, matrix=matrix)
    return id, nearest_tokens(vectors, vectors[id], top, without=(id,), max_token_id=max_token_id), vectors


def similarity_caption(
    model: LanguageModel,
    tokenizer: Tokenizer,
    vectors: Float[Tensor, "V W"],
    centre: bool,
    remove_components: int,
    matrix: EmbeddingMatrix = "input",
) -> str:
    """The mean cosine of two random words, before and after removing components.

    It is the squared length of the mean of all unit vectors.
    """
    name = matrix_name(model, matrix)
    raw = unit_word_vectors(model, tokenizer, centre=False, matrix=matrix) if centre or remove_components else vectors
    if not bool(raw.any()):
        return f"All {name} are zero, as they are initialised: the model is not trained."
    before, after = (float(each.mean(0).square().sum()) for each in (raw, vectors))
    text = f"The mean cosine of two random words is {before:.2f} for the model's {name}"
    if not centre and not remove_components:
        return text + "; a cosine well above that is meaningful."
    removed = "their mean"
    if remove_components:
        removed += f" and {remove_components} principal component{'s' * (remove_components > 1)}"
    return f"{text}, and {after:.2f} here, with {removed} removed."


def analogy(
    model: LanguageModel,
    tokenizer: Tokenizer,
    text: str,
    *,
    top: int = 8,
    centre: bool = True,
    remove_components: int = 0,
    max_token_id: int | None = None,
    matrix: EmbeddingMatrix = "input",
) -> Table:
    """The tokens nearest to a sum of words, such as `king - man + woman`; the summands are unit vectors (Mikolov et al.
    2013, section 4; Levy and Goldberg 2014, eq. 2).

    The words of the sum are excluded, as is usual: one of them would mostly be first, which the caption states. Raises
    BadInput for a sum of fewer than two words, and for a word of more than one token.
    """
    terms = [(sign, known_token(tokenizer, word)) for sign, word in parse_word_sum(text)]
    vectors = unit_word_vectors(model, tokenizer, centre=centre, remove_components=remove_components, matrix=matrix)
    total = F.normalize(sum((sign * vectors[id] for sign, id in terms), torch.zeros_like(vectors[0])), dim=-1)
    inputs = tuple(id for _, id in terms)
    found = nearest_tokens(vectors, total, top, without=inputs, max_token_id=max_token_id)
    first = nearest_tokens(vectors, total, 1)[0]
    formula = " ".join(f"{'+' if sign > 0 else '-'} {tokenizer.display_token(id)}" for sign, id in terms)
    names = ", ".join(map(tokenizer.display_token, dict.fromkeys(inputs)))
    caption = f"{names} {'are' if len(set(inputs)) > 1 else 'is'} excluded"
    if first.id in inputs:
        caption += f"; {tokenizer.display_token(first.id)} would be first with a cosine of {first.cosine:.2f}"
    return Table(
        title=f"Nearest to {formula.removeprefix('+ ')}",
        columns=("token", "cosine", "id"),
        rows=tuple((tokenizer.display_token(each.id), round(each.cosine, 6), each.id) for each in found),
        bar="cosine",
        caption=f"{caption}.",
    )


def parse_word_sum(text: str) -> list[tuple[int, str]]:
    """Words and their signs. A sign is separated by spaces or directly before a word.

    >>> parse_word_sum("king - man +woman")
    [(1, 'king'), (-1, 'man'), (1, 'woman')]
    """
    found = [
        (-1 if sign and sign in "-−" else 1, word)
        for sign, word in re.findall(r"(?:(?<!\S)([+\-−])\s*)?([^\s+\-−]\S*)", text)
    ]
    if len(found) < 2:
        raise BadInput(f"‘{text}’ is not a sum of words; write a sum such as: king - man + woman")
    return found


@torch.no_grad()
def unit_word_vectors(
    model: LanguageModel,
    tokenizer: Tokenizer,
    *,
    centre: bool = True,
    remove_components: int = 0,
    matrix: EmbeddingMatrix = "input",
) -> Float[Tensor, "V W"]:
    """The vectors of a tokenizer's tokens, each of length 1.

    `matrix` input takes the input embeddings, output the output embeddings: rows of the unembedding, which every
    training step updates for all tokens, where input embeddings are updated only for tokens that were read. `centre`
    subtracts their mean first; `remove_components` removes that many principal components. Raises BadSetting for more
    than there are, CannotDo for a model without that matrix.
    """
    vectors = embedding_matrix(model, matrix)[: tokenizer.vocab].float()
    if not 0 <= remove_components < vectors.shape[1]:
        raise BadSetting(
            f"remove_components is {remove_components} and word vectors have {vectors.shape[1]:,} dimensions; remove "
            "fewer"
        )
    if centre or remove_components:
        vectors = vectors - vectors.mean(0)
    if remove_components:
        main = principal_directions(vectors, remove_components)
        vectors = vectors - (vectors @ main.T) @ main
    return torch.nn.functional.normalize(vectors, dim=-1)


def embedding_matrix(model: LanguageModel, matrix: EmbeddingMatrix) -> Float[Tensor, "V W"]:
    """The input or output embeddings of a model. Raises CannotDo for a model without them."""
    if matrix not in ("input", "output"):
        raise BadSetting(f"matrix is '{matrix}'; give input or output")
    if matrix == "input":
        rows: Any = embedding_module(model).weight
    else:
        require(model, Capability.OUTPUT_EMBEDDINGS)
        rows = unwrap_model(model).output_weight
    weight: Tensor = rows.detach()
    return weight


def matrix_name(model: LanguageModel, matrix: EmbeddingMatrix) -> str:
    """Name of the rows of a matrix: input embeddings, output embeddings, or embeddings if both are the same."""
    output = output_weight(unwrap_model(model))
    tied = output is not None and output.data_ptr() == embedding_matrix(model, "input").data_ptr()
    return "embeddings" if tied else f"{matrix} embeddings"


def principal_directions(vectors: Float[Tensor, "N W"], count: int) -> Float[Tensor, "K W"]:
    """Unit vectors along which centred vectors have the largest variance, largest first. Pearson 1901.

    Fewer than `count` where the vectors have fewer dimensions. The sign of each is chosen so that its largest component
    is positive.
    """
    centred = (vectors - vectors.mean(0)).double()
    if len(centred) < centred.shape[1]:
        _, _, found = torch.linalg.svd(centred, full_matrices=False)
    else:
        found = torch.linalg.eigh(centred.T @ centred).eigenvectors.flip(1).T
    found = found[:count]
    largest = found.gather(1, found.abs().argmax(1, keepdim=True))
    directions: Tensor = (found * largest.sign()).to(vectors.dtype)
    return directions


def project_to_plane(vectors: Float[Tensor, "N W"]) -> tuple[Float[Tensor, "N 2"], float]:
    """Coordinates on the first two principal components, and their share of the variance."""
    centred = vectors - vectors.mean(0)
    coordinates = centred @ principal_directions(centred, 2).T
    if coordinates.shape[1] < 2:
        coordinates = F.pad(coordinates, (0, 2 - coordinates.shape[1]))
    total = float(centred.square().sum())
    return coordinates, float(coordinates.square().sum()) / total if total else 1.0


@dataclass(frozen=True)
class Neighbour:
    """A token, its cosine with a vector, and its rank from 1."""

    id: int
    cosine: float
    rank: int


def nearest_tokens(
    vectors: Float[Tensor, "V W"],
    direction: Float[Tensor, "W"],
    top: int,
    *,
    without: tuple[int, ...] = (),
    max_token_id: int | None = None,
) -> list[Neighbour]:
    """The `top` rows of unit vectors nearest to a direction by cosine, by exact search.

    `without` excludes ids; `max_token_id` restricts the search to smaller ids.
    """
    if top < 1:
        raise BadSetting(f"top is {top}; show at least 1 token")
    if max_token_id is not None and max_token_id < 1:
        raise BadSetting(f"max_token_id is {max_token_id}; allow at least 1 token")
    cosines = vectors[:max_token_id] @ F.normalize(direction, dim=-1)
    order = cosines.argsort(descending=True, stable=True).tolist()
    ranked = [(id, rank) for rank, id in enumerate(order[: top + len(without)], start=1) if id not in without]
    return [Neighbour(id, float(cosines[id]), rank) for id, rank in ranked[:top]]


def known_token(tokenizer: Tokenizer, word: str) -> int:
    """The token that a word is, after a space if that is one. Raises BadInput for several or the unknown token."""
    token = single_token(tokenizer, word)
    if token == tokenizer.unk_token_id:
        raise BadInput(f"'{word}' is not in the vocabulary; choose another word")
    return token


def word_tokens(tokenizer: Tokenizer, text: str) -> list[int]:
    """The distinct tokens of a text's words, in their order: a word's own token, or all its tokens."""
    found: dict[int, None] = {}
    for word in text.split():
        try:
            found[known_token(tokenizer, word)] = None
        except BadInput:
            found.update(dict.fromkeys(tokenizer.encode(word)))
    return list(found)
