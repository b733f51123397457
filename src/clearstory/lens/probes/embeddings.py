"""Embeddings: the vectors that stand for the tokens of a text, before anything else is known of them."""

from __future__ import annotations

from typing import Any

from jaxtyping import Float
from torch import Tensor

from clearstory.errors import BadInput, BadSetting
from clearstory.lens.hooks.passage import number_duplicates
from clearstory.lens.probes.x_vectors import input_embeddings
from clearstory.lens.views import Grid
from clearstory.text.tokenizers import Tokenizer


def embeddings(model: Any, tokenizer: Tokenizer, text: str, *, top: int = 48) -> Grid:
    """The embedding's rows of a text's tokens: a row for each token, a column for each dimension.

    Of wide vectors the `top` dimensions are shown in which these tokens differ most. Raises BadInput for an empty text.
    """
    ids = tokenizer.encode(text)
    if not ids:
        raise BadInput("the text is empty; give a few words to look at")
    rows = input_embeddings(model, ids)
    shown, said = most_varying_columns(rows, top)
    return Grid(
        title=f"Embedding: {len(ids):,} tokens, {rows.shape[1]:,} numbers each",
        row_labels=number_duplicates([tokenizer.display_token(id) for id in ids]),
        column_labels=tuple(map(str, shown)),
        values=tuple(tuple(row) for row in rows[:, shown].double().tolist()),
        dots=True,
        caption=f"The numbers lie between {float(rows.min()):.2g} and {float(rows.max()):.2g}. {said}",
    )


def most_varying_columns(rows: Float[Tensor, "N W"], top: int) -> tuple[list[int], str]:
    """The columns in which rows differ most, in their own order, and what is said of those left out.

    >>> import torch
    >>> telling(torch.tensor([[0.0, 1.0, 5.0], [0.0, 2.0, 5.5]]), 1)
    ([1], 'Of 3 dimensions the 1 in which the rows differ most is shown: 80% of their variance.')
    """
    if top < 1:
        raise BadSetting(f"top is {top}; show at least 1 dimension")
    count = rows.shape[1]
    if count <= top:
        return list(range(count)), f"All {count:,} dimensions are shown."
    varied = rows.double().var(0, correction=0)
    kept = sorted(varied.argsort(descending=True, stable=True)[:top].tolist())
    whole = float(varied.sum())
    part = float(varied[kept].sum()) / whole if whole else 1.0
    said = f"Of {count:,} dimensions the {top:,} in which the rows differ most {'is' if top == 1 else 'are'} shown: "
    return kept, f"{said}{part:.0%} of their variance."
