"""Neighbours: the words whose vectors point the same way. Mikolov et al. 2013."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional as F

from clearstory.errors import BadInput
from clearstory.lens.views import Table


@torch.no_grad()
def neighbours(model: Any, tokenizer: Any, word: str, *, top: int = 8) -> Table:
    """The `top` tokens nearest to a word by cosine, exact over the whole vocabulary.

    The vectors are those of the unembedding, which words are predicted by (the embedding's own where they are tied):
    every step moves all of them, where the embedding moves only the words it has read. Their mean is taken away first:
    they all share a direction that says nothing (Mu and Viswanath 2018).
    Raises BadInput for a word that is more than one token.
    """
    forms = [ids for form in (f" {word}", word) if len(ids := tokenizer.encode(form)) == 1]
    if not forms:
        pieces = " · ".join(tokenizer.piece(i) for i in tokenizer.encode(word))
        raise BadInput(f"'{word}' is not one token but {pieces}; choose a shorter or more frequent word")
    (own,) = forms[0]
    vectors = model.output_weight.float()
    vectors = F.normalize(vectors - vectors.mean(0), dim=-1)
    cosines = vectors @ vectors[own]
    cosines[own] = -2
    best = cosines.topk(min(top, len(cosines) - 1))
    rows = tuple((tokenizer.piece(int(i)), round(float(c), 3)) for c, i in zip(best.values, best.indices, strict=True))
    return Table(
        title=f"Nearest to {tokenizer.piece(own)}",
        columns=("token", "cosine"),
        rows=rows,
        bar="cosine",
    )
