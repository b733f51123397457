"""Data: what a text holds, how it is divided, and how many tokens it makes."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import Any

from clearstory.recipes.settings.schema import build_settings
from clearstory.recipes.settings.tools import DataRecipe
from clearstory.text.corpus import SPLITS, Corpus, train_corpus_tokenizer

EXCERPT = 200
"""Characters shown of a document's beginning."""


@dataclass(frozen=True)
class DataReport:
    """A corpus in numbers. `bytes` and `tokens` are by split where they are dictionaries; `shown` holds names and
    beginnings of documents.
    """

    corpus: str
    note: str | None
    documents: int
    bytes: int
    split_bytes: dict[str, int]
    tokenizer: str | None
    vocab: int | None
    tokens: dict[str, int] | None
    shown: tuple[tuple[str, str], ...]


def data(*text: str, recipe: DataRecipe | None = None, **settings: Any) -> DataReport:
    """Count a text: documents, bytes, and tokens if a tokenizer is named. `settings` are the fields of DataRecipe.

    Raises BadInput for sources that cannot be read.

    >>> data("corpus:python-docs", show=1).documents > 100
    True
    """
    recipe = recipe or build_settings(DataRecipe, {"text": text, **settings})
    corpus = Corpus.open(recipe.text, recipe.data)
    first = islice((document for document in corpus.documents("train") if document.part == 0), recipe.show)
    shown = tuple((document.name, document.text[:EXCERPT]) for document in first)
    split_bytes = {split: sum(len(part.encode()) for part in corpus.texts(split)) for split in SPLITS}
    vocab, tokens = None, None
    if recipe.tokenizer is not None:
        tokenizer = train_corpus_tokenizer(corpus, recipe.tokenizer)
        vocab = tokenizer.vocab
        tokens = {split: len(rows) for split, rows in corpus.encode(tokenizer).items()}
    return DataReport(
        corpus.name,
        corpus.note,
        corpus.size,
        corpus.text_bytes,
        split_bytes,
        recipe.tokenizer,
        vocab,
        tokens,
        shown,
    )
